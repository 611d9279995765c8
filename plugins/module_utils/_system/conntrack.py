# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel's table of flows: count the flows of backends, delete entries."""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from typing import Collection, Iterator, Mapping

from .._config.address import Destination, address_bytes
from .._config.identity import OURS
from .._errors import NodeError
from .._state.fate import FlowKind
from . import netlink

_SUBSYSTEM = 1
_GET, _DELETE = 1, 2

# Attributes, from linux/netfilter/nfnetlink_conntrack.h.
_TUPLE_ORIG, _PROTOINFO, _MARK, _ID, _MARK_MASK = 1, 4, 8, 12, 21
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IPV4_DESTINATION, _IPV6_DESTINATION = 2, 4
_PROTO_NUMBER, _PROTO_DESTINATION_PORT = 1, 3
_PROTOINFO_TCP, _TCP_STATE = 1, 1
_LAST_ACTIVE_STATE = 5
"""CLOSE_WAIT: one side may still send. LAST_ACK, TIME_WAIT and CLOSE come after it."""
_PROTOINFO_SCTP, _SCTP_STATE = 3, 1
_SCTP_CLOSED = (1, 7)
"""CLOSED and SHUTDOWN_ACK_SENT: both sides have closed."""

_FLUSHES = 4
"""Up to this number of backends the kernel walks its table once for each; for more it is listed once."""

_PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}


def count(marks: Collection[int] = ()) -> dict[int, int]:
    """Return the number of active flows by backend id. A flow of TCP or SCTP that both sides have closed is not.

    :param marks: the ids that matter; all if empty.
    """
    flows: Counter[int] = Counter()
    for message in _dump(next(iter(marks)), 0xFFFFFFFF) if len(marks) == 1 else _dump(OURS, OURS):
        attributes = netlink.parse(message, netlink.PREAMBLE, (_MARK, _PROTOINFO))
        mark = _mark(attributes)
        if mark & OURS and _is_active(attributes):
            flows[mark] += 1
    return dict(flows)


def delete_unmarked(destinations: Collection[Destination]) -> int:
    """Delete the unmarked entries of flows to destinations, so that these flows are scheduled.

    :returns: the number of deleted entries.
    """
    if not destinations:
        return 0
    by_address: dict[bytes, list[Destination]] = {}
    for destination in destinations:
        by_address.setdefault(address_bytes(destination.address), []).append(destination)
    deleted = 0
    for message in _dump(0, 0xFFFFFFFF):
        attributes = netlink.parse(message, netlink.PREAMBLE, (_TUPLE_ORIG, _MARK, _ID))
        if not _mark(attributes) and _goes_to(attributes[_TUPLE_ORIG], by_address):
            deleted += _delete(message[0], attributes)
    return deleted


def delete_flows(kinds_by_id: Mapping[int, Collection[FlowKind]]) -> None:
    """Delete the entries of backends' flows.

    :param kinds_by_id: the kinds of flows to delete, by backend id.
    """
    if not kinds_by_id:
        return
    if len(kinds_by_id) <= _FLUSHES and all(len(kinds) == len(FlowKind) for kinds in kinds_by_id.values()):
        for mark in kinds_by_id:
            _flush(mark)
        return
    for message in _dump(OURS, OURS):
        attributes = netlink.parse(message, netlink.PREAMBLE, (_TUPLE_ORIG, _MARK, _ID))
        kinds = kinds_by_id.get(_mark(attributes))
        if kinds and (len(kinds) == len(FlowKind) or _kind(attributes[_TUPLE_ORIG]) in kinds):
            _delete(message[0], attributes)


def _flush(mark: int) -> None:
    """Let the kernel delete the entries with a mark. Without a mark it would delete all entries."""
    if not mark & OURS:
        raise NodeError(f"conntrack: {mark:#010x} is not the id of a backend")
    try:
        netlink.do(_SUBSYSTEM, _DELETE, socket.AF_UNSPEC, _marked(mark, 0xFFFFFFFF))
    except OSError as error:
        raise NodeError(f"conntrack: the flows of {mark:#010x} cannot be deleted: {error.strerror}") from error


def _marked(mark: int, mask: int) -> bytes:
    """Return the attributes that select entries by their mark."""
    return netlink.attribute(_MARK, struct.pack("!I", mark)) + netlink.attribute(_MARK_MASK, struct.pack("!I", mask))


def _kind(original: bytes) -> FlowKind:
    number = netlink.parse(netlink.parse(original)[_TUPLE_PROTO])[_PROTO_NUMBER][0]
    is_stream = number in (_PROTOCOL_NUMBERS["tcp"], _PROTOCOL_NUMBERS["sctp"])
    return FlowKind.STREAM if is_stream else FlowKind.DATAGRAM


def _mark(attributes: dict[int, bytes]) -> int:
    return int.from_bytes(attributes.get(_MARK, b""), "big")


def _goes_to(original: bytes, destinations: dict[bytes, list[Destination]]) -> bool:
    """Return whether an entry's original tuple goes to one of the destinations.

    :param destinations: by their address in network order.
    """
    parts = netlink.parse(original)
    addresses = netlink.parse(parts[_TUPLE_IP])
    address = addresses.get(_IPV4_DESTINATION) or addresses.get(_IPV6_DESTINATION) or b""
    if address not in destinations:
        return False
    protocol = netlink.parse(parts[_TUPLE_PROTO])
    number = protocol[_PROTO_NUMBER][0]
    port = int.from_bytes(protocol.get(_PROTO_DESTINATION_PORT, b"\0\0"), "big")
    return any(
        destination.protocol == "any"
        or (
            number == _PROTOCOL_NUMBERS[destination.protocol]
            and destination.ports.first <= port <= destination.ports.last
        )
        for destination in destinations[address]
    )


def _is_active(attributes: dict[int, bytes]) -> bool:
    if _PROTOINFO not in attributes:
        return True
    states = netlink.parse(attributes[_PROTOINFO])
    if _PROTOINFO_TCP in states:
        return netlink.parse(states[_PROTOINFO_TCP])[_TCP_STATE][0] <= _LAST_ACTIVE_STATE
    if _PROTOINFO_SCTP in states:
        return netlink.parse(states[_PROTOINFO_SCTP])[_SCTP_STATE][0] not in _SCTP_CLOSED
    return True


def _dump(mark: int, mask: int) -> Iterator[bytes]:
    """Yield the entries with a mark; a kernel that does not filter yields more."""
    try:
        yield from netlink.dump(_SUBSYSTEM, _GET, _marked(mark, mask))
    except OSError as error:
        raise NodeError(f"conntrack: the flows cannot be listed: {error.strerror}") from error


def _delete(family: int, attributes: dict[int, bytes]) -> bool:
    """Delete an entry by tuple and id, and return whether it was still there. Without a tuple all would be deleted."""
    tuple_of_entry = netlink.nested(_TUPLE_ORIG, attributes[_TUPLE_ORIG])
    try:
        netlink.do(_SUBSYSTEM, _DELETE, family, tuple_of_entry + netlink.attribute(_ID, attributes[_ID]))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise NodeError(f"conntrack: an entry cannot be deleted: {error.strerror}") from error
    return True
