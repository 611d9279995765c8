# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Open TCP connections as fast as possible until standard input ends, and print how they ended, as JSON.

Arguments: an address and a port. Each connection is reset as soon as it is established. One that has no answer is given
up when many later ones are open.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import struct
import sys
from collections import Counter

_AT_ONCE = 40
_OPEN = 800
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


def main() -> None:
    address, port = sys.argv[1], int(sys.argv[2])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    poll = select.epoll()
    opened: dict[int, socket.socket] = {}
    ends: Counter[str] = Counter()
    while not select.select([sys.stdin], [], [], 0)[0]:
        for _number in range(_AT_ONCE):
            connection = socket.socket(family)
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            code = connection.connect_ex((address, port))
            if code == errno.EINPROGRESS:
                opened[connection.fileno()] = connection
                poll.register(connection, select.EPOLLOUT)
            else:
                ends[errno.errorcode.get(code, "OK")] += 1
                connection.close()
        for descriptor, _events in poll.poll(0.001):
            connection = opened.pop(descriptor)
            poll.unregister(descriptor)
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            ends[errno.errorcode.get(code, "OK")] += 1
            connection.close()
        while len(opened) > _OPEN:
            descriptor, connection = next(iter(opened.items()))
            del opened[descriptor]
            poll.unregister(descriptor)
            connection.close()
            ends["given up"] += 1
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
