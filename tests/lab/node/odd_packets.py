# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send packets that no ordinary client sends, a limited number per call.

flags SOURCE PORT DESTINATION PORT   TCP segments with every set of flags that has a SYN only beside an ACK; with port 0
                                     another port for each
udp-from SOURCE PORT DESTINATION PORT  a datagram, also from a port that a server has
too-big VIP CLIENT PORT              the ICMP error "too big" for an answer from VIP:53 to CLIENT's UDP port
gre DESTINATION                      three packets of a protocol without ports
sctp DESTINATION PORT                twelve SCTP INITs, each from another port
"""

from __future__ import annotations

import socket
import struct
import sys

_SYN, _ACK = 0x02, 0x10
_GRE = 47
_TOO_LONG = 1380


def main() -> None:
    kind, *arguments = sys.argv[1:]
    if kind == "flags":
        send_flags(arguments[0], int(arguments[1]), arguments[2], int(arguments[3]))
    elif kind == "udp-from":
        send_udp(arguments[0], int(arguments[1]), arguments[2], int(arguments[3]))
    elif kind == "too-big":
        send_too_big(arguments[0], arguments[1], int(arguments[2]))
    elif kind == "gre":
        send_gre(arguments[0])
    elif kind == "sctp":
        send_sctp(arguments[0], int(arguments[1]))
    else:
        raise SystemExit(__doc__)


def send_flags(source: str, source_port: int, destination: str, port: int) -> None:
    raw = socket.socket(_family(source), socket.SOCK_RAW, socket.IPPROTO_TCP)
    raw.bind((source, 0))
    ends = _packed(source) + _packed(destination)
    for flags in range(256):
        if flags & (_SYN | _ACK) != _SYN:
            ports = source_port or 20000 + flags, port or 20000 + flags
            segment = struct.pack("!HHIIBBHHH", *ports, 1, 1, 0x50, flags, 1024, 0, 0)
            length = struct.pack("!II" if ":" in source else "!HH", *_pseudo_tail(source, len(segment)))
            raw.sendto(_with_checksum(segment, 16, ends + length), (destination, 0))


def send_udp(source: str, source_port: int, destination: str, port: int) -> None:
    raw = socket.socket(_family(source), socket.SOCK_RAW, socket.IPPROTO_UDP)
    raw.bind((source, 0))
    datagram = struct.pack("!HHHH", source_port, port, 8, 0)
    length = struct.pack("!II", 8, socket.IPPROTO_UDP)
    raw.sendto(_with_checksum(datagram, 6, _packed(source) + _packed(destination) + length), (destination, 0))


def send_too_big(vip: str, client: str, port: int) -> None:
    udp = struct.pack("!HHHH", 53, port, _TOO_LONG, 0)
    ends = _packed(vip) + _packed(client)
    if ":" in vip:
        answer = struct.pack("!IHBB", 6 << 28, _TOO_LONG, socket.IPPROTO_UDP, 60) + ends + udp
        # The kernel writes this checksum itself.
        message = struct.pack("!BBHI", 2, 0, 0, 1280) + answer
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6).sendto(message, (vip, 0))
    else:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + _TOO_LONG, 7, 0x4000, 60, socket.IPPROTO_UDP, 0) + ends
        message = struct.pack("!BBHHH", 3, 4, 0, 0, 1200) + _with_checksum(header, 10) + udp
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        raw.sendto(_with_checksum(message, 2), (vip, 0))


def send_gre(destination: str) -> None:
    raw = socket.socket(_family(destination), socket.SOCK_RAW, _GRE)
    for _number in range(3):
        raw.sendto(bytes(4) + b"data", (destination, 0))


def send_sctp(destination: str, port: int) -> None:
    """Send INITs (RFC 9260 section 3.3.2) with a verification tag of 0, a window and a stream in each direction."""
    raw = socket.socket(_family(destination), socket.SOCK_RAW, socket.IPPROTO_SCTP)
    for source_port in range(27000, 27012):
        init = struct.pack("!BBHIIHHI", 1, 0, 20, source_port, 65536, 1, 1, 1)
        ends = struct.pack("!HHI", source_port, port, 0)
        checksum = struct.pack("<I", _crc32c(ends + bytes(4) + init))
        raw.sendto(ends + checksum + init, (destination, 0))


def _crc32c(data: bytes) -> int:
    """Return the checksum of RFC 9260 appendix A."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _bit in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _packed(address: str) -> bytes:
    return socket.inet_pton(_family(address), address)


def _pseudo_tail(address: str, length: int) -> tuple[int, int]:
    """Return the end of the pseudo-header of RFC 9293 section 3.1 and RFC 8200 section 8.1."""
    return (length, socket.IPPROTO_TCP) if ":" in address else (socket.IPPROTO_TCP, length)


def _with_checksum(data: bytes, offset: int, pseudo_header: bytes = b"") -> bytes:
    """Return the data with the Internet checksum (RFC 1071) in place of two zero bytes."""
    summed = pseudo_header + data
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return data[:offset] + struct.pack("!H", ~total & 0xFFFF) + data[offset + 2 :]


if __name__ == "__main__":
    main()
