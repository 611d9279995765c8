# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections to servers that are checked, with and without TLS, which bound what a server can make the agent do.

A server that sends too many bytes fails its check. A server that sends many small pieces is read more and more seldom,
so that the pieces gather in the kernel.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from typing import Callable, TypeVar

from .target import CheckFailed, NotChecked, Target

READ_BYTES = 16384
"""Number of bytes that are read at once."""

QUICK_READS = 8
"""Number of times that a connection is read without a pause."""

PAUSE_SECONDS = 0.01
"""The pause before each further read."""

_LOCAL_ERRORS = (
    *(errno.EACCES, errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH, errno.EINVAL),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EPERM),
)
"""Errors that have a reason on the node if they are raised before a packet has left it."""

_Result = TypeVar("_Result")


async def connect(target: Target, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket that is connected to the target. The caller closes it.

    :raises NotChecked: the node has no socket, no port or no route for it.
    """
    try:
        connection = socket.socket(target.socket_family, kind)
    except OSError as error:
        raise NotChecked(_strerror(error.errno)) from error
    try:
        connection.setblocking(False)
        code = connection.connect_ex((target.address, target.port))
        raise_if_local(code)
        if code == errno.EINPROGRESS:
            await _writable(connection)
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        connection.close()
        raise
    return connection


def send_datagram(connection: socket.socket, data: bytes) -> None:
    """Send a datagram to the peer of a socket. Raise NotChecked where the reason of an error is on this node."""
    try:
        connection.send(data)
    except OSError as error:
        raise_if_local(error.errno or 0)
        raise


def raise_if_local(code: int) -> None:
    """Raise an error if a packet could not be sent for a reason on the node.

    :raises NotChecked: the number is that of such an error.
    """
    if code in _LOCAL_ERRORS:
        raise NotChecked(_strerror(code))


async def _writable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if not future.done():
            future.set_result(None)

    loop.add_writer(connection.fileno(), ready)
    try:
        await future
    finally:
        loop.remove_writer(connection.fileno())


def _strerror(code: int | None) -> str:
    return os.strerror(code or 0).lower()


def proxy_header(target: Target, connection: socket.socket) -> bytes:
    """Return the header of the PROXY protocol, version 1; nothing if the check has none."""
    if target.check.proxy_header == "none":
        return b""
    name = "TCP6" if target.socket_family == socket.AF_INET6 else "TCP4"
    address, port = connection.getsockname()[:2]
    return f"PROXY {name} {address} {target.address} {port} {target.port}\r\n".encode("ascii")


class Pace:
    """The pauses between reads."""

    def __init__(self) -> None:
        self._reads = 0

    async def wait(self) -> None:
        """Wait before a read, unless there have been few."""
        self._reads += 1
        if self._reads > QUICK_READS:
            await asyncio.sleep(PAUSE_SECONDS)


class Stream:
    """A connection to a server.

    :param connection: a connected socket, which :meth:`close` closes.
    :param max_bytes: maximum number of bytes that the server may send, those of TLS included.
    """

    def __init__(self, connection: socket.socket, max_bytes: int) -> None:
        self._connection = connection
        self._max_bytes = max_bytes
        self._received = 0
        self._pace = Pace()

    async def send(self, data: bytes) -> None:
        """Send some data."""
        await asyncio.get_running_loop().sock_sendall(self._connection, data)

    async def receive(self) -> bytes:
        """Return the next data that the server has sent; nothing at its end.

        :raises CheckFailed: the server has sent too much.
        """
        await self._pace.wait()
        data = await asyncio.get_running_loop().sock_recv(self._connection, READ_BYTES)
        self._received += len(data)
        if self._received > self._max_bytes:
            raise CheckFailed(f"the server sent more than {self._max_bytes} bytes")
        return data

    def close(self) -> None:
        """Close the connection, whatever the server still sends."""
        self._connection.close()


class TlsStream(Stream):
    """A connection with TLS. asyncio's own would do all work outside of the check that causes it.

    :param server_name: the name to send by SNI, and to verify.
    """

    def __init__(self, connection: socket.socket, max_bytes: int, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__(connection, max_bytes)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)

    async def handshake(self) -> None:
        """Begin TLS."""
        await self._run(self.tls.do_handshake)

    async def send(self, data: bytes) -> None:
        """Send some data."""
        # Python 3.9 raises an error if there is nothing to write.
        if data:
            await self._run(lambda: self.tls.write(data))

    async def receive(self) -> bytes:
        """Return the next data that the server has sent; nothing at its end."""
        # One read returns one record, however short, and may need no read of the connection.
        await self._pace.wait()
        return await self._run(lambda: self.tls.read(READ_BYTES), at_end=b"")

    async def _run(self, step: Callable[[], _Result], at_end: _Result | None = None) -> _Result:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError) as error:
                if at_end is None:
                    raise CheckFailed("TLS: closed by the server") from error
                return at_end
            except ssl.SSLCertVerificationError as error:
                raise CheckFailed(f"TLS: {error.verify_message}") from error
            except ssl.SSLError as error:
                raise CheckFailed(f"TLS: {(error.reason or str(error)).lower().replace('_', ' ')}") from error
            finally:
                # After an error this is the alert, which tells the server more than a closed connection.
                if self._outgoing.pending > 0:
                    await super().send(self._outgoing.read())
            received = await super().receive()
            if received:
                self._incoming.write(received)
            else:
                self._incoming.write_eof()


async def open_stream(target: Target, max_bytes: int) -> Stream:
    """Connect to the target, and send its PROXY header if it has one. The caller closes the stream."""
    return Stream(await _connect(target), max_bytes)


async def open_tls_stream(target: Target, max_bytes: int, context: ssl.SSLContext, server_name: str) -> TlsStream:
    """Connect as :func:`open_stream` does, and begin TLS."""
    connection = await _connect(target)
    try:
        stream = TlsStream(connection, max_bytes, context, server_name)
        await stream.handshake()
        return stream
    except BaseException:
        connection.close()
        raise


async def _connect(target: Target) -> socket.socket:
    connection = await connect(target)
    try:
        header = proxy_header(target, connection)
        if header:
            await asyncio.get_running_loop().sock_sendall(connection, header)
        return connection
    except BaseException:
        connection.close()
        raise
