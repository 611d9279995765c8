# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks by gRPC's standard health service, version 1, over HTTP/2 without TLS, with the library h2."""

from __future__ import annotations

from typing import Any

from .._state.health import CheckResult
from .check_http import open_stream
from .target import CheckFailed, Target, missing_library

_STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_SERVING = 1
_MAX_ANSWER = 4096


async def grpc(target: Target) -> CheckResult:
    """Call ``grpc.health.v1.Health/Check`` and succeed if the answer is SERVING."""
    connections, events, library = _library()
    reader, writer = await open_stream(target)
    try:
        connection = connections.H2Connection()
        connection.initiate_connection()
        stream = connection.get_next_available_stream_id()
        connection.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/grpc.health.v1.Health/Check"),
                (":authority", f"{target.host}:{target.port}"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
            ],
        )
        connection.send_data(stream, _request(target.check.grpc_service_name), end_stream=True)
        headers: dict[str, str] = {}
        body = b""
        while True:
            writer.write(connection.data_to_send())
            received = await reader.read(65536)
            if not received:
                raise CheckFailed("closed without an answer")
            for event in connection.receive_data(received):
                if isinstance(event, (events.ResponseReceived, events.TrailersReceived)):
                    headers.update((_text(name), _text(value)) for name, value in event.headers)
                elif isinstance(event, events.DataReceived):
                    body += event.data
                    if len(body) > _MAX_ANSWER:
                        raise CheckFailed(f"the answer is longer than {_MAX_ANSWER} bytes")
                elif isinstance(event, (events.StreamReset, events.ConnectionTerminated)):
                    raise CheckFailed(f"HTTP/2 error {int(event.error_code)}")
                elif isinstance(event, events.StreamEnded):
                    return _result(headers, body)
    except library.exceptions.ProtocolError as error:
        raise CheckFailed(f"not HTTP/2: {str(error) or type(error).__name__}") from error
    finally:
        writer.transport.abort()


def _request(service: str) -> bytes:
    """Return a HealthCheckRequest, whose only field 1 is a string, as an uncompressed message."""
    name = service.encode("ascii")
    length = bytes([len(name)]) if len(name) < 128 else bytes([len(name) & 0x7F | 0x80, len(name) >> 7])
    message = b"\x0a" + length + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _result(headers: dict[str, str], body: bytes) -> CheckResult:
    if headers.get(":status") != "200":
        raise CheckFailed(f"status {headers.get(':status')}, expected 200")
    if headers.get("grpc-status") != "0":
        raise CheckFailed(f"gRPC status {headers.get('grpc-status')} {headers.get('grpc-message', '')}".rstrip())
    # A HealthCheckResponse, whose only field 1 is an enumeration; a field that is missing is 0.
    message = body[5:]
    state = message[1] if len(message) >= 2 and message[0] == 0x08 else 0
    if state != _SERVING:
        raise CheckFailed(_STATES.get(state, f"state {state}"))
    return CheckResult(True, _STATES[state])


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _library() -> tuple[Any, Any, Any]:
    try:
        import h2.connection
        import h2.events
        import h2.exceptions
    except ImportError as error:
        raise missing_library("h2", error) from error
    return h2.connection, h2.events, h2
