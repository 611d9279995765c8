# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of conntrack with prepared kernel messages; the integration target `conntrack` uses a real kernel."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any, Iterator

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.address import Destination
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.ports import ALL, PortRange
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import NodeError
from ansible_collections.evenflow.l4lb.plugins.module_utils._system import conntrack, netlink
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.conntrack import count, delete_unmarked

TCP, UDP, ICMP, SCTP = 6, 17, 1, 132
WEB = PortRange(80, 80)


def entry(mark: int | None, protocol: int = TCP, state: int = 3, address: str = "198.18.0.10", port: int = 80) -> bytes:
    """Return a conntrack entry in the kernel's format."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = 4 if family == socket.AF_INET6 else 2
    ports = netlink.attribute(3, struct.pack("!H", port)) if protocol != ICMP else b""
    original = netlink.nested(1, netlink.attribute(kind, socket.inet_pton(family, address))) + netlink.nested(
        2, netlink.attribute(1, bytes([protocol])) + ports
    )
    message = struct.pack("=BBH", family, 0, 0) + netlink.nested(1, original) + netlink.attribute(12, b"\0\0\0\1")
    if protocol in (TCP, SCTP):
        kind = 1 if protocol == TCP else 3
        message += netlink.nested(4, netlink.nested(kind, netlink.attribute(1, bytes([state]))))
    return message if mark is None else message + netlink.attribute(8, struct.pack("!I", mark))


class Kernel:
    """A kernel that lists prepared entries and records the deleted ones."""

    def __init__(self, *entries: bytes, error: int = 0) -> None:
        self.entries, self.error = entries, error
        self.deleted: list[dict[int, bytes]] = []

    def dump(self, *_arguments: Any) -> Iterator[bytes]:
        """Yield the entries."""
        yield from self.entries

    def do(self, subsystem: int, message: int, _family: int, attributes: bytes) -> None:
        """Record a deletion, or raise the prepared error."""
        assert (subsystem, message) == (1, 2)
        if self.error:
            raise OSError(self.error, "refused")
        self.deleted.append(netlink.parse(attributes))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that replaces the kernel by a fake one with the given entries."""

    def put(*entries: bytes, error: int = 0) -> Kernel:
        fake = Kernel(*entries, error=error)
        monkeypatch.setattr(netlink, "dump", fake.dump)
        monkeypatch.setattr(netlink, "do", fake.do)
        return fake

    return put


def test_active_flows_are_counted_by_backend(kernel: Any) -> None:
    first, second = 0x80000001, 0x80000002
    kernel(
        *(entry(first, state=state) for state in range(1, 9)),
        entry(second, UDP),
        entry(second, ICMP),
        entry(second, UDP, address="2001:db8::10"),
        entry(1),
        entry(0),
        entry(None),
    )
    assert count() == {first: 5, second: 3}
    kernel(*(entry(first, SCTP, state=state) for state in range(1, 8)))
    assert count() == {first: 5}


@pytest.mark.parametrize(
    ("destination", "deleted"),
    [
        (Destination("198.18.0.10", "tcp", WEB), 1),
        (Destination("198.18.0.10", "tcp", PortRange(70, 90)), 1),
        (Destination("198.18.0.10", "tcp", PortRange(81, 90)), 0),
        (Destination("198.18.0.10", "udp", ALL), 2),
        (Destination("198.18.0.10", "any", ALL), 4),
        (Destination("198.18.0.11", "any", ALL), 0),
        (Destination("2001:db8::10", "tcp", WEB), 1),
    ],
)
def test_unmarked_flows_to_a_listener_are_deleted(kernel: Any, destination: Destination, deleted: int) -> None:
    fake = kernel(
        entry(0),
        entry(None, UDP),
        entry(0, UDP, port=53),
        entry(0, ICMP),
        entry(0x80000001),
        entry(7),
        entry(0, address="198.18.0.9"),
        entry(0, address="2001:db8::10"),
    )
    assert delete_unmarked([destination]) == deleted
    # A deletion without a tuple would delete all entries.
    assert all(set(attributes) == {1, 12} for attributes in fake.deleted)


def test_no_destination_lists_no_flow(kernel: Any) -> None:
    assert delete_unmarked([]) == 0


def test_an_entry_that_has_ended_already_is_no_error(kernel: Any) -> None:
    kernel(entry(0), error=errno.ENOENT)
    assert delete_unmarked([Destination("198.18.0.10", "tcp", WEB)]) == 0


def test_a_refused_deletion_is_an_error(kernel: Any) -> None:
    kernel(entry(0), error=errno.EPERM)
    with pytest.raises(NodeError, match="conntrack: an entry cannot be deleted: refused"):
        delete_unmarked([Destination("198.18.0.10", "tcp", WEB)])


def test_a_refused_listing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> Iterator[bytes]:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(netlink, "dump", refuse)
    with pytest.raises(NodeError, match="conntrack: the flows cannot be listed: not permitted"):
        conntrack.count()
