# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send packets with forged sources, a limited number per call: syn|udp DESTINATION PORT SOURCE COUNT.

SOURCE is the first of COUNT consecutive addresses; each sends a single packet.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys

_MAX_COUNT = 200_000


def main() -> None:
    kind, destination, port, source, count = sys.argv[1:]
    sources = range(int(ipaddress.ip_address(source)), int(ipaddress.ip_address(source)) + min(int(count), _MAX_COUNT))
    is_ipv6 = ":" in destination
    raw = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    protocol = socket.IPPROTO_TCP if kind == "syn" else socket.IPPROTO_UDP
    target = ipaddress.ip_address(destination).packed
    for number in sources:
        origin = number.to_bytes(16 if is_ipv6 else 4, "big")
        source_port = 1024 + number % 60000
        if kind == "syn":
            data = struct.pack("!HHIIBBHHH", source_port, int(port), number & 0xFFFFFFFF, 0, 0x50, 0x02, 1024, 0, 0)
            data = _with_checksum(data, 16, origin + target, protocol)
        else:
            data = _with_checksum(struct.pack("!HHHH", source_port, int(port), 8, 0), 6, origin + target, protocol)
        if is_ipv6:
            header = struct.pack("!IHBB", 6 << 28, len(data), protocol, 64) + origin + target
        else:
            # The kernel writes the checksum of this header.
            header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, protocol, 0) + origin + target
        raw.sendto(header + data, (destination, 0))


def _with_checksum(data: bytes, offset: int, ends: bytes, protocol: int) -> bytes:
    """Return the data with the Internet checksum (RFC 1071) in place of two zero bytes."""
    summed = ends + struct.pack("!II", len(data), protocol) + data
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return data[:offset] + struct.pack("!H", ~total & 0xFFFF) + data[offset + 2 :]


if __name__ == "__main__":
    main()
