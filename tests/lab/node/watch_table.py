# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Print changes of nftables as the kernel reports them: seconds since the epoch and the object, a line for each.

Only the load balancer's table and those that an observer makes are printed. Lost events end the program with an error.
It keeps no copy of the ruleset as `nft monitor` does, so no unexpected event can confuse it.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

_NETFILTER, _GROUPS = 12, 1 << 6
_RCVBUFFORCE = 33
_NFTABLES = 10
_BUFFER = 1 << 24

# Numbers of the attributes that name an object, after the name of its table.
_OBJECTS = {
    0: ("table", ()),
    3: ("chain", (3,)),
    6: ("rule", (2,)),
    9: ("set", (2,)),
    12: ("element", (2,)),
    18: ("object", (2,)),
}


def main() -> None:
    """Print events until the process is ended."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BUFFER)
        sock.bind((0, _GROUPS))
        while True:
            for text in events(sock.recv(1 << 20)):
                print(f"{time.time():.4f} {text}", flush=True)


def events(data: bytes) -> Iterator[str]:
    """Yield a text for each message of a datagram: the beginning of the statement that nft would write."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        message, data = data[16:length], data[(length + 3) & ~3 :]
        verb = "delete" if kind & 0xFF in (number + 2 for number in _OBJECTS) else "add"
        number = kind & 0xFF if verb == "add" else (kind & 0xFF) - 2
        if kind >> 8 != _NFTABLES or number not in _OBJECTS:
            continue
        name, keys = _OBJECTS[number]
        values = attributes(message[4:])
        table = values.get(1, "")
        if table == "evenflow" or table.startswith("watched"):
            yield " ".join([verb, name, "inet", table, *(values.get(key, "?") for key in keys)])


def attributes(data: bytes) -> dict[int, str]:
    """Return the attributes of a message as text; only attributes that are names are readable."""
    values = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        values[kind & 0x3FFF] = data[4:length].rstrip(b"\0").decode("utf-8", "replace")
        data = data[(max(length, 4) + 3) & ~3 :]
    return values


if __name__ == "__main__":
    main()
