# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks by HTTP/1.1, plain and over TLS, with the library h11. No more of a body is read than the check needs."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from functools import lru_cache
from typing import Any

from .._config.model import HealthCheck
from .._state.health import CheckResult
from .target import CheckFailed, Target, connect, missing_library, proxy_header, quoted

MAX_BODY = 1 << 20
"""Maximum length in bytes of a body to which a JMESPath expression is applied."""

WEIGHT_HEADER = b"x-load-balancing-endpoint-weight"

_READ_BYTES = 65536


async def http(target: Target) -> CheckResult:
    """Request the page and compare its status and its body with what the check expects."""
    return await _get(target, None)


async def https(target: Target) -> CheckResult:
    """Check as :func:`http` does, over TLS."""
    return await _get(target, _context(target.check.tls_verify, target.check.ca_file))


async def _get(target: Target, context: ssl.SSLContext | None) -> CheckResult:
    library = _library()
    reader, writer = await open_stream(target, context)
    try:
        connection = library.Connection(library.CLIENT)
        headers = [("Host", target.host), ("User-Agent", "evenflow"), ("Accept", "*/*"), ("Connection", "close")]
        request = library.Request(method="GET", target=target.check.request_path, headers=headers)
        writer.write(connection.send(request) + connection.send(library.EndOfMessage()))
        return await _answer(library, connection, reader, target.check)
    except library.RemoteProtocolError as error:
        raise CheckFailed(f"not HTTP: {error}") from error
    finally:
        writer.transport.abort()


async def _answer(library: Any, connection: Any, reader: asyncio.StreamReader, check: HealthCheck) -> CheckResult:
    response = await _event(library, connection, reader)
    while isinstance(response, library.InformationalResponse):
        response = await _event(library, connection, reader)
    if not isinstance(response, library.Response):
        raise CheckFailed("closed without an answer")
    _check_status(response.status_code, check)
    body = await _body(library, connection, reader, check)
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


async def _body(library: Any, connection: Any, reader: asyncio.StreamReader, check: HealthCheck) -> bytes:
    needed = MAX_BODY + 1 if check.json_query else len(check.response.encode("utf-8"))
    body = bytearray()
    while len(body) < needed:
        event = await _event(library, connection, reader)
        if not isinstance(event, library.Data):
            break
        body += event.data
    if len(body) > MAX_BODY:
        raise CheckFailed(f"the body is longer than {MAX_BODY} bytes")
    return bytes(body)


async def _event(library: Any, connection: Any, reader: asyncio.StreamReader) -> Any:
    while True:
        event = connection.next_event()
        if event is not library.NEED_DATA:
            return event
        connection.receive_data(await reader.read(_READ_BYTES))


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
        raise CheckFailed(f"json_query gives {json.dumps(value)[:60]}, expected true")


def _weight(headers: Any) -> int | None:
    for name, value in headers:
        if name.lower() == WEIGHT_HEADER and value.isdigit() and len(value) < 6:
            return min(int(value), 65535)
    return None


async def open_stream(
    target: Target, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the target, send its PROXY header if it has one, and begin TLS if there is a context."""
    connection = await connect(target)
    try:
        header = proxy_header(target, connection)
        if header:
            await asyncio.get_running_loop().sock_sendall(connection, header)
        name = _server_name(target) if context else None
        return await asyncio.open_connection(sock=connection, limit=_READ_BYTES, ssl=context, server_hostname=name)
    except BaseException as error:
        connection.close()
        if isinstance(error, ssl.SSLCertVerificationError):
            raise CheckFailed(f"TLS: {error.verify_message}") from error
        if isinstance(error, ssl.SSLError):
            raise CheckFailed(f"TLS: {(error.reason or str(error)).lower().replace('_', ' ')}") from error
        raise


def _server_name(target: Target) -> str:
    host = target.host
    if host.startswith("["):
        return host[1:].partition("]")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.partition(":")[0]


@lru_cache(maxsize=32)
def _context(verify: bool, ca_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise CheckFailed(f"ca_file {ca_file}: {error.strerror or error}") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _library() -> Any:
    try:
        import h11
    except ImportError as error:
        raise missing_library("h11", error) from error
    return h11
