# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accept the connections of checks and answer each request like HTTP. Arguments: address, port."""

from __future__ import annotations

import selectors
import socket
import sys

_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: lab\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"
)


def main() -> None:
    address, port = sys.argv[1], int(sys.argv[2])
    listening = socket.create_server((address, port), backlog=8192)
    listening.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    while True:
        for key, _events in selector.select():
            if isinstance(key.fileobj, socket.socket) and key.fileobj is not listening:
                _answer(key.fileobj, selector)
            else:
                _accept(listening, selector)


def _accept(listening: socket.socket, selector: selectors.BaseSelector) -> None:
    while True:
        try:
            connection, _peer = listening.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)


def _answer(connection: socket.socket, selector: selectors.BaseSelector) -> None:
    try:
        if connection.recv(4096):
            connection.sendall(_ANSWER)
    except OSError:
        # The checker has closed the connection.
        pass
    selector.unregister(connection)
    connection.close()


if __name__ == "__main__":
    main()
