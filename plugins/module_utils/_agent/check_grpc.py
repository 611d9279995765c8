# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks by gRPC's standard health service, version 1, over HTTP/2 without TLS, with the library h2."""

from __future__ import annotations

import asyncio
from typing import Any

from .._state.health import CheckResult
from .stream import open_stream
from .target import CheckFailed, Target, missing_library

_STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_SERVING = 1
_MAX_ANSWER = 4096
_MAX_BYTES = 1 << 16

RETRY_SECONDS = 0.1
"""The pause before the call is made again."""

MAX_FRAMES = 100
"""Maximum number of HTTP/2 frames of an answer; it has about ten."""

RETRIES = 2
"""How often the call is made again on a new connection, after the server has closed one without an error."""

_HEADER_BYTES = 9
_MAX_FRAME = 1 << 14
_GOAWAY = 7


class _Closing(Exception):
    """The server closes the connection without an error and has not answered the call."""


async def grpc(target: Target) -> CheckResult:
    """Call ``grpc.health.v1.Health/Check`` and succeed if the answer is SERVING."""
    for _attempt in range(RETRIES):
        try:
            return await _call(target)
        except _Closing:
            # A server that closes all connections may stop listening in the same moment.
            await asyncio.sleep(RETRY_SECONDS)
    try:
        return await _call(target)
    except _Closing as error:
        raise CheckFailed("closed without an answer") from error


async def _call(target: Target) -> CheckResult:
    connections, events, library = _library()
    stream = await open_stream(target, _MAX_BYTES)
    try:
        connection = connections.H2Connection()
        connection.initiate_connection()
        number = connection.get_next_available_stream_id()
        connection.send_headers(
            number,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/grpc.health.v1.Health/Check"),
                (":authority", f"{target.host}:{target.port}"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
            ],
        )
        connection.send_data(number, _request(target.check.grpc_service_name), end_stream=True)
        headers: dict[str, str] = {}
        body, frames = b"", _Frames(number)
        while True:
            await stream.send(connection.data_to_send())
            received = await stream.receive()
            if not received:
                raise _Closing if frames.is_closing else CheckFailed("closed without an answer")
            for event in connection.receive_data(frames.split(received)):
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
        stream.close()


class _Frames:
    """The frames that a server sends, counted before the library works on them.

    The library forbids an answer after GOAWAY, which a server sends that answers its last calls before it ends.

    :param stream: the number of the call's stream.
    :ivar is_closing: whether the server has announced without an error that it closes the connection.
    """

    def __init__(self, stream: int) -> None:
        self.is_closing = False
        self._stream = stream
        self._data = b""
        self._count = 0

    def split(self, received: bytes) -> bytes:
        """Return the frames that are complete now, without those that announce an end without an error."""
        self._data += received
        complete = b""
        while len(self._data) >= _HEADER_BYTES:
            length = int.from_bytes(self._data[:3], "big")
            if length > _MAX_FRAME:
                raise CheckFailed(f"not HTTP/2: a frame of {length} bytes")
            frame, rest = self._data[: _HEADER_BYTES + length], self._data[_HEADER_BYTES + length :]
            if len(frame) < _HEADER_BYTES + length:
                break
            self._data = rest
            self._count += 1
            if self._count > MAX_FRAMES:
                raise CheckFailed(f"more than {MAX_FRAMES} HTTP/2 frames")
            if not self._announces_end(frame):
                complete += frame
        return complete

    def _announces_end(self, frame: bytes) -> bool:
        payload = frame[_HEADER_BYTES:]
        if frame[3] != _GOAWAY or len(payload) < 8 or any(payload[4:8]):
            return False
        self.is_closing = True
        if int.from_bytes(payload[:4], "big") & 0x7FFFFFFF < self._stream:
            raise _Closing
        return True


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
