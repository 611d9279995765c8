# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks by HTTP/1.1, plain and over TLS, with the library h11. No more of a body is read than the check needs."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Awaitable, Callable

from .._config.model import HealthCheck
from .._state.health import CheckResult
from .stream import Stream, open_stream
from .target import CheckFailed, Target, missing_library, quoted
from .tls import open_tls

MAX_BODY = 1 << 20
"""Maximum length in bytes of a body to which a JMESPath expression is applied."""

MAX_INTERIM = 8
"""Maximum number of interim responses (1xx) before the response."""

MAX_PIECES = 4096
"""Maximum number of pieces of which a body may consist."""

WEIGHT_HEADER = b"x-load-balancing-endpoint-weight"

_MAX_OVERHEAD = 1 << 17
_PIECES_AT_ONCE = 32


async def http(target: Target) -> CheckResult:
    """Request the page and compare its status and its body with what the check expects."""
    return await _get(target, open_stream)


async def https(target: Target) -> CheckResult:
    """Check as :func:`http` does, over TLS."""
    return await _get(target, open_tls)


async def _get(target: Target, connect: Callable[[Target, int], Awaitable[Stream]]) -> CheckResult:
    library = _library()
    stream = await connect(target, _MAX_OVERHEAD + 2 * _needed(target.check))
    try:
        connection = library.Connection(library.CLIENT)
        headers = [("Host", target.host), ("User-Agent", "evenflow"), ("Accept", "*/*"), ("Connection", "close")]
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
    _check_status(response.status_code, check)
    body = await _body(library, connection, stream, check)
    if check.response and not body.startswith(check.response.encode("utf-8")):
        raise CheckFailed(f"body {quoted(body)}, expected {quoted(check.response.encode('utf-8'))}")
    if check.json_query:
        _check_json(body, check.json_query)
    return CheckResult(
        True, f"status {response.status_code}", _weight(response.headers) if check.dynamic_weight else None
    )


def _check_status(code: int, check: HealthCheck) -> None:
    for codes in check.status:
        first, _dash, last = codes.partition("-")
        if int(first) <= code <= int(last or first):
            return
    raise CheckFailed(f"status {code}, expected {', '.join(check.status)}")


def _needed(check: HealthCheck) -> int:
    """Return how many bytes of the body the check needs to see."""
    return MAX_BODY + 1 if check.json_query else len(check.response.encode("utf-8"))


async def _body(library: Any, connection: Any, stream: Stream, check: HealthCheck) -> bytes:
    needed, body, pieces = _needed(check), bytearray(), 0
    while len(body) < needed:
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
    if len(body) > MAX_BODY:
        raise CheckFailed(f"the body is longer than {MAX_BODY} bytes")
    return bytes(body)


async def _event(library: Any, connection: Any, stream: Stream) -> Any:
    while True:
        event = connection.next_event()
        if event is not library.NEED_DATA:
            return event
        connection.receive_data(await stream.receive())


def _check_json(body: bytes, query: str) -> None:
    try:
        import jmespath
    except ImportError as error:
        raise missing_library("jmespath", error) from error
    try:
        document = json.loads(body)
    except ValueError as error:
        raise CheckFailed(f"the body is not JSON: {error}") from error
    try:
        value = jmespath.search(query, document)
    except jmespath.exceptions.JMESPathError as error:
        raise CheckFailed(f"json_query {query!r} cannot be applied: {error}") from error
    if value is not True:
        raise CheckFailed(f"json_query gives {_shown(value)}, expected true")


def _shown(value: Any) -> str:
    """Return a value for a message. A long one would take long to write."""
    if isinstance(value, (bool, int, float, type(None))):
        return json.dumps(value)
    if isinstance(value, str):
        return json.dumps(value[:60])
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else "no JSON value"


def _weight(headers: Any) -> int | None:
    for name, value in headers:
        if name.lower() == WEIGHT_HEADER and value.isdigit() and len(value) < 6:
            return min(int(value), 65535)
    return None


def _library() -> Any:
    try:
        import h11
    except ImportError as error:
        raise missing_library("h11", error) from error
    return h11
