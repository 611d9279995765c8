# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answer every datagram with the names of both ends: `<id> <peer> <peer port> <own port> <payload>`.

Arguments: the ports to serve, on all addresses of both families.
"""

from __future__ import annotations

import selectors
import socket
import sys

from notify import notify_ready

# Linux values that Python's socket module does not name everywhere.
_IP_PKTINFO = 8
_BURST = 64


def main() -> None:
    """Serve until the service manager ends the process."""
    name = socket.gethostname()
    selector = selectors.DefaultSelector()
    for port in map(int, sys.argv[1:]):
        for family in (socket.AF_INET, socket.AF_INET6):
            selector.register(_listen(family, port), selectors.EVENT_READ, port)
    notify_ready()
    while True:
        for key, _events in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            _answer(key.fileobj, name, key.data)


def _listen(family: int, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    sock.setblocking(False)
    sock.bind(("", port))
    return sock


def _answer(sock: socket.socket, name: str, port: int) -> None:
    """Answer waiting datagrams, a limited number so that every socket gets its turn."""
    for _turn in range(_BURST):
        try:
            payload, ancillary, _flags, peer = sock.recvmsg(65535, 256)
        except (BlockingIOError, ConnectionRefusedError):
            return
        head = f"{name} {peer[0]} {peer[1]} {port} ".encode()
        # the packet information has the destination of the datagram, and makes it the source of the answer
        source = [_from_destination(level, kind, data) for level, kind, data in ancillary]
        try:
            sock.sendmsg([head, payload], source, 0, peer)
        except OSError:
            # an answer that cannot be sent is a lost datagram, the client counts it
            continue


def _from_destination(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    if level == socket.IPPROTO_IP:
        # struct in_pktinfo: interface, local address, header address; interface 0 leaves the route free
        return level, kind, b"\0\0\0\0" + data[8:12] + b"\0\0\0\0"
    # struct in6_pktinfo: address, interface
    return level, kind, data[:16] + b"\0\0\0\0"


if __name__ == "__main__":
    main()
