# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks by HTTP/1.1, plain and over TLS, with the library h11. No more of a body is read than the check needs."""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable

from .._config.model import HealthCheck
from .._state.health import CheckResult
from .page import HEADERS, MAX_PIECES, WEIGHT_HEADER, check_status, max_bytes, needed, page_result
from .stream import Stream, open_stream
from .target import CheckFailed, Target, missing_library
from .tls import open_tls

MAX_INTERIM = 8
"""Maximum number of interim responses (1xx) before the response."""

_PIECES_AT_ONCE = 32


def prepare() -> None:
    """Load the library if the node has it."""
    try:
        _library()
    except CheckFailed:
        pass


async def http(target: Target) -> CheckResult:
    """Request the page and compare its status and its body with what the check expects."""
    return await _get(target, open_stream)


async def https(target: Target) -> CheckResult:
    """Check as :func:`http` does, over TLS."""
    return await _get(target, open_tls)


async def _get(target: Target, connect: Callable[[Target, int], Awaitable[Stream]]) -> CheckResult:
    library = _library()
    stream = await connect(target, max_bytes(target.check))
    try:
        connection = library.Connection(library.CLIENT)
        headers = [("Host", target.host), *HEADERS, ("Connection", "close")]
        request = library.Request(method="GET", target=target.check.request_path, headers=headers)
        await stream.send(connection.send(request) + connection.send(library.EndOfMessage()))
        return await _answer(library, connection, stream, target.check)
    except library.RemoteProtocolError as error:
        raise CheckFailed(f"not HTTP: {error}") from error
    finally:
        stream.close()


async def _answer(library: Any, connection: Any, stream: Stream, check: HealthCheck) -> CheckResult:
    response = await _event(library, connection, stream)
    interim = 0
    while isinstance(response, library.InformationalResponse):
        interim += 1
        if interim > MAX_INTERIM:
            raise CheckFailed(f"more than {MAX_INTERIM} interim responses, the last with status {response.status_code}")
        response = await _event(library, connection, stream)
    if not isinstance(response, library.Response):
        raise CheckFailed("closed without an answer")
    check_status(response.status_code, check)
    body = await _body(library, connection, stream, check)
    values = [value.decode("latin-1") for name, value in response.headers if name.decode("ascii") == WEIGHT_HEADER]
    return page_result(response.status_code, body, values[0] if values else None, check)


async def _body(library: Any, connection: Any, stream: Stream, check: HealthCheck) -> bytes:
    body, pieces = bytearray(), 0
    while len(body) < needed(check):
        event = await _event(library, connection, stream)
        if not isinstance(event, library.Data):
            break
        body += event.data
        pieces += 1
        if pieces > MAX_PIECES:
            raise CheckFailed(f"the body consists of more than {MAX_PIECES} pieces")
        if pieces % _PIECES_AT_ONCE == 0:
            # Thousands of pieces can come in one read, and other checks are waiting.
            await asyncio.sleep(0)
    return bytes(body)


async def _event(library: Any, connection: Any, stream: Stream) -> Any:
    while True:
        event = connection.next_event()
        if event is not library.NEED_DATA:
            return event
        connection.receive_data(await stream.receive())


def _library() -> Any:
    try:
        import h11
    except ImportError as error:
        raise missing_library("h11", error) from error
    return h11
