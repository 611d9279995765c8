# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One request over HTTP/2 and its answer, with the library h2.

With TLS the server must select HTTP/2 by ALPN; without TLS it must expect HTTP/2 from the first byte.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Callable

from .stream import Stream, open_stream
from .target import CheckFailed, Target, missing_library, quoted
from .tls import HTTP2, open_tls

RETRIES = 2
"""How often a request is made again on a new connection, after the server has closed one without an error."""

RETRY_SECONDS = 0.1
"""The pause before a request is made again."""

MAX_FRAMES = 100
"""Maximum number of frames of an answer, without those that bring a part of its body; it has about ten."""

_FRAMES_AT_ONCE = 32
_HEADER_BYTES = 9
_MAX_FRAME = 1 << 14
_DATA, _GOAWAY = 0, 7


@dataclass(frozen=True)
class Request:
    """A request, and how much a server may send for it.

    :ivar headers: the headers without those whose names begin with a colon.
    :ivar max_bytes: maximum number of bytes that the server may send, those of TLS included.
    :ivar max_pieces: maximum number of frames that bring a part of the body.
    """

    method: str
    path: str
    authority: str
    headers: tuple[tuple[str, str], ...]
    max_bytes: int
    max_pieces: int
    body: bytes = b""


@dataclass
class Answer:
    """What a server has answered so far.

    :ivar headers: all headers by their names, those after the body included.
    """

    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


class _Closing(Exception):
    """The server closes the connection without an error and has not answered the request."""


async def ask(target: Target, request: Request, is_enough: Callable[[Answer], bool]) -> Answer:
    """Make a request and return the answer.

    :param is_enough: called whenever more of the answer has come, with the answer so far; it may raise an error.
    """
    for _attempt in range(RETRIES):
        try:
            return await _ask(target, request, is_enough)
        except _Closing:
            # A server that closes all connections may stop listening in the same moment.
            await asyncio.sleep(RETRY_SECONDS)
    try:
        return await _ask(target, request, is_enough)
    except _Closing as error:
        raise CheckFailed("closed without an answer") from error


async def _ask(target: Target, request: Request, is_enough: Callable[[Answer], bool]) -> Answer:
    library = _library()
    stream = await _open(target, request.max_bytes)
    try:
        connection = library.connection.H2Connection()
        connection.initiate_connection()
        connection.update_settings({library.settings.SettingCodes.ENABLE_PUSH: 0})
        number = connection.get_next_available_stream_id()
        first = [
            (":method", request.method),
            (":scheme", "https" if target.check.tls else "http"),
            (":path", request.path),
            (":authority", request.authority),
        ]
        connection.send_headers(number, first + list(request.headers), end_stream=not request.body)
        if request.body:
            connection.send_data(number, request.body, end_stream=True)
        answer, frames = Answer(), _Frames(number, request.max_pieces)
        while True:
            await stream.send(connection.data_to_send())
            received = await stream.receive()
            if not received:
                raise _Closing if frames.is_closing else CheckFailed("closed without an answer")
            for part in frames.split(received):
                for event in connection.receive_data(part):
                    if _is_last(library.events, event, number, answer) or is_enough(answer):
                        return answer
                    if isinstance(event, library.events.DataReceived):
                        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                # Hundreds of frames can come in one read, and other checks are waiting.
                await asyncio.sleep(0)
    except library.exceptions.ProtocolError as error:
        raise CheckFailed(f"not HTTP/2: {str(error) or type(error).__name__}") from error
    finally:
        stream.close()


async def _open(target: Target, max_bytes: int) -> Stream:
    if not target.check.tls:
        return await open_stream(target, max_bytes)
    stream = await open_tls(target, max_bytes)
    protocol = stream.tls.selected_alpn_protocol()
    if protocol != HTTP2:
        stream.close()
        raise CheckFailed(f"TLS: the server selects {protocol or 'no protocol'} by ALPN, expected {HTTP2}")
    return stream


def _is_last(events: Any, event: Any, number: int, answer: Answer) -> bool:
    """Add what an event says to the answer, and return whether the answer is complete."""
    if isinstance(event, events.ConnectionTerminated):
        raise CheckFailed(f"HTTP/2 error {int(event.error_code)}")
    if getattr(event, "stream_id", None) != number:
        return False
    if isinstance(event, (events.ResponseReceived, events.TrailersReceived)):
        answer.headers.update((_text(name), _text(value)) for name, value in event.headers)
    elif isinstance(event, events.DataReceived):
        answer.body += event.data
    elif isinstance(event, events.StreamReset):
        raise CheckFailed(f"HTTP/2 error {int(event.error_code)}")
    return isinstance(event, events.StreamEnded)


class _Frames:
    """The frames that a server sends, counted before the library works on them.

    The library forbids an answer after GOAWAY, which a server sends that answers its last requests before it ends.

    :param stream: the number of the request's stream.
    :ivar is_closing: whether the server has announced without an error that it closes the connection.
    """

    def __init__(self, stream: int, max_pieces: int) -> None:
        self.is_closing = False
        self._stream = stream
        self._data = b""
        self._count = 0
        self._pieces = 0
        self._max_pieces = max_pieces

    def split(self, received: bytes) -> list[bytes]:
        """Return the frames that are complete, some at once, without those that announce an end without an error."""
        self._data += received
        begin, complete = 0, []
        while len(self._data) - begin >= _HEADER_BYTES:
            length = int.from_bytes(self._data[begin : begin + 3], "big")
            if length > _MAX_FRAME:
                raise CheckFailed(f"not HTTP/2: {quoted(self._data[begin:])}")
            end = begin + _HEADER_BYTES + length
            if end > len(self._data):
                break
            frame = self._data[begin:end]
            begin = end
            self._check_number(is_piece=frame[3] == _DATA and length > 0)
            if not self._announces_end(frame):
                complete.append(frame)
        self._data = self._data[begin:]
        return [
            b"".join(complete[first : first + _FRAMES_AT_ONCE]) for first in range(0, len(complete), _FRAMES_AT_ONCE)
        ]

    def _check_number(self, is_piece: bool) -> None:
        self._pieces += is_piece
        self._count += not is_piece
        if self._pieces > self._max_pieces:
            raise CheckFailed(f"the body consists of more than {self._max_pieces} pieces")
        if self._count > MAX_FRAMES:
            raise CheckFailed(f"more than {MAX_FRAMES} HTTP/2 frames")

    def _announces_end(self, frame: bytes) -> bool:
        payload = frame[_HEADER_BYTES:]
        if frame[3] != _GOAWAY or len(payload) < 8 or any(payload[4:8]):
            return False
        self.is_closing = True
        if int.from_bytes(payload[:4], "big") & 0x7FFFFFFF < self._stream:
            raise _Closing
        return True


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def prepare() -> None:
    """Load the library if the node has it."""
    try:
        _library()
    except CheckFailed:
        pass


def _library() -> Any:
    try:
        import h2.connection
        import h2.events
        import h2.exceptions
        import h2.settings
    except ImportError as error:
        raise missing_library("h2", error) from error
    return h2
