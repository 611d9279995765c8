# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send first packets of flows from addresses that are not this machine's, so that no answer is ever answered.

syn NETWORK DESTINATION PORT COUNT   TCP SYNs
ack NETWORK DESTINATION PORT COUNT   TCP segments of connections that never were: an ACK without a SYN before it
udp NETWORK DESTINATION PORT COUNT   UDP datagrams

Every packet has another source: the hosts of NETWORK from its 100th on, with a random port.
"""

from __future__ import annotations

import ipaddress
import random
import socket
import struct
import sys

_FIRST_HOST, _HOSTS = 100, 90
_FLAGS = {"syn": 0x02, "ack": 0x10}


def main() -> None:
    kind, network, destination, port, count = sys.argv[1:]
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    first = ipaddress.ip_network(network).network_address + _FIRST_HOST
    tuples = random.sample(range(_HOSTS * 50000), int(count))
    for number in tuples:
        source = str(first + number % _HOSTS)
        raw.sendto(packet(kind, source, 10000 + number // _HOSTS, destination, int(port)), (destination, 0))


def packet(kind: str, source: str, source_port: int, destination: str, port: int) -> bytes:
    """Return a whole packet, with its IP header."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    if kind == "udp":
        protocol, place = socket.IPPROTO_UDP, 6
        segment = struct.pack("!HHHH", source_port, port, 12, 0) + b"data"
    else:
        protocol, place = socket.IPPROTO_TCP, 16
        numbers = (random.getrandbits(32), random.getrandbits(32) if kind == "ack" else 0)
        segment = struct.pack("!HHIIBBHHH", source_port, port, *numbers, 0x50, _FLAGS[kind], 65535, 0, 0)
    checksum = _checksum(ends + struct.pack("!II", len(segment), protocol) + segment)
    segment = segment[:place] + struct.pack("!H", checksum) + segment[place + 2 :]
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28, len(segment), protocol, 64) + ends + segment
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, protocol, 0) + ends
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + segment


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


if __name__ == "__main__":
    main()
