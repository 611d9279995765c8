# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Serve SCTP associations: send the name of this node first, then send back what the client sends.

Argument: the port to serve, on all addresses of both families.
"""

from __future__ import annotations

import selectors
import socket
import sys

from notify import notify_ready


def main(port: int) -> None:
    """Serve until the service manager ends the process."""
    name = f"{socket.gethostname()}\n".encode()
    selector = selectors.DefaultSelector()
    for family in (socket.AF_INET, socket.AF_INET6):
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(("", port))
        listening.listen(64)
        selector.register(listening, selectors.EVENT_READ, True)
    notify_ready()
    while True:
        for key, _events in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            if key.data:
                association = key.fileobj.accept()[0]
                association.sendall(name)
                selector.register(association, selectors.EVENT_READ, False)
            elif not _echo(key.fileobj):
                selector.unregister(key.fileobj)
                key.fileobj.close()


def _echo(association: socket.socket) -> bool:
    """Send back what has arrived, and return whether the association lives."""
    try:
        data = association.recv(65536)
        association.sendall(data)
    except OSError:
        return False
    return bool(data)


if __name__ == "__main__":
    main(int(sys.argv[1]))
