# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exchange netlink messages with netfilter, as far as counting flows and reading the generation need it.

Importing a netlink library costs a run that changes nothing more than all the rest of it (0.2 s), and its decoding of
a conntrack dump takes 50 µs an entry, this 3.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Container, Iterator

_NETLINK_NETFILTER = 12
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
_NESTED = 0x8000
_RECEIVE_BYTES = 1 << 20
_TIMEOUT = 30

PREAMBLE = 4
"""Bytes of a netfilter message before its attributes: family, version, resource."""


def ask(subsystem: int, message: int, family: int = socket.AF_UNSPEC, attributes: bytes = b"") -> Iterator[bytes]:
    """Send a request and return the messages that answer it, without their netlink headers.

    :raises OSError: the kernel refuses.
    """
    return _exchange(_request(subsystem, message, family, attributes, 0))


def dump(subsystem: int, message: int, attributes: bytes = b"") -> Iterator[bytes]:
    """Return the messages that list all objects of a kind.

    :raises OSError: the kernel refuses.
    """
    return _exchange(_request(subsystem, message, socket.AF_UNSPEC, attributes, _NLM_F_DUMP))


def do(subsystem: int, message: int, family: int, attributes: bytes) -> None:
    """Send a request whose only answer is whether it succeeded.

    :raises OSError: the kernel refuses.
    """
    for _answer in _exchange(_request(subsystem, message, family, attributes, _NLM_F_ACK)):
        pass


def attribute(kind: int, payload: bytes) -> bytes:
    """Return an attribute with its header and padding."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, payload: bytes) -> bytes:
    """Return an attribute that contains attributes."""
    return attribute(kind | _NESTED, payload)


def parse(message: bytes, offset: int = 0, kinds: Container[int] = range(_TYPE_MASK + 1)) -> dict[int, bytes]:
    """Return the attributes of a message, or of a nested attribute's payload, by kind.

    :param offset: of the first attribute.
    :param kinds: the kinds to return.
    """
    attributes = {}
    last = len(message) - _ATTRIBUTE.size
    unpack = _ATTRIBUTE.unpack_from
    while offset <= last:
        length, kind = unpack(message, offset)
        if length < 4:
            break
        kind &= _TYPE_MASK
        if kind in kinds:
            attributes[kind] = message[offset + 4 : offset + length]
        offset += length + 3 & ~3
    return attributes


def _request(subsystem: int, message: int, family: int, attributes: bytes, flags: int) -> bytes:
    payload = struct.pack("=BBH", family, 0, 0) + attributes
    header = _HEADER.pack(_HEADER.size + len(payload), subsystem << 8 | message, _NLM_F_REQUEST | flags, 1, 0)
    return header + payload


def _exchange(request: bytes) -> Iterator[bytes]:
    flags = _HEADER.unpack_from(request)[2]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.settimeout(_TIMEOUT)
        netlink.bind((0, 0))
        netlink.send(request)
        while True:
            received = netlink.recv(_RECEIVE_BYTES)
            offset = 0
            while offset + _HEADER.size <= len(received):
                length, kind, _flags, _sequence, _port = _HEADER.unpack_from(received, offset)
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", received, offset + _HEADER.size)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield received[offset + _HEADER.size : offset + length]
                offset += length + 3 & ~3
            if not flags & (_NLM_F_DUMP | _NLM_F_ACK):
                return
