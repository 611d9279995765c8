# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the events of the node that wake the agent."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.watch import AddressWatch, FileWatch, TableWatch
from ansible_collections.evenflow.l4lb.plugins.module_utils._system import netlink

_NEWTABLE, _NEWSETELEM, _NEWGEN = 0, 12, 15
_RTM_NEWADDR, _RTM_DELADDR = 20, 21


class Kernel:
    """A kernel that multicasts messages to a netlink socket."""

    def __init__(self) -> None:
        self.end, self._socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.end.setblocking(False)

    def multicast(self, *messages: bytes) -> None:
        self._socket.send(b"".join(messages))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """Return a kernel whose messages the test multicasts."""
    kernel = Kernel()
    yield kernel
    kernel.close()


def _watch(of: type[TableWatch] | type[AddressWatch], kernel: Kernel) -> TableWatch | AddressWatch:
    watch = of()
    watch.close()
    watch._socket = kernel.end
    return watch


def _message(kind: int, payload: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, 0, 0, 0) + payload + bytes(-len(payload) % 4)


def _nftables(message: int, *attributes: bytes) -> bytes:
    return _message(10 << 8 | message, bytes(netlink.PREAMBLE) + b"".join(attributes))


_OURS = netlink.attribute(1, b"evenflow\0")
_FOREIGN = netlink.attribute(1, b"evenflow2\0")


def test_only_changes_of_the_watched_file_are_noticed(tmp_path: Path) -> None:
    watch = FileWatch(str(tmp_path), ("listeners.json",))
    try:
        (tmp_path / "other.json").write_text("{}")
        assert not watch.happened()
        (tmp_path / "listeners.json.new").write_text("{}")
        (tmp_path / "listeners.json.new").rename(tmp_path / "listeners.json")
        assert watch.happened()
        assert not watch.happened()
        (tmp_path / "listeners.json").write_text("")
        assert watch.happened()
        (tmp_path / "listeners.json").unlink()
        assert watch.happened()
    finally:
        watch.close()


def test_the_error_names_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        FileWatch(str(tmp_path / "missing"), ("listeners.json",))
    assert raised.value.filename == str(tmp_path / "missing")


@pytest.mark.parametrize(
    ("messages", "is_relevant"),
    [
        ([_nftables(_NEWTABLE, _OURS)], True),
        ([_nftables(_NEWSETELEM, _OURS, netlink.attribute(2, b"vips4\0"))], True),
        ([_nftables(_NEWTABLE, _FOREIGN)], False),
        ([_nftables(_NEWSETELEM, _FOREIGN, netlink.attribute(2, b"evenflow\0"))], False),
        # The first attribute of a generation message is a number and not a table.
        ([_nftables(_NEWGEN, _OURS)], False),
        ([_nftables(_NEWTABLE, _FOREIGN), _nftables(_NEWTABLE, _OURS), _nftables(_NEWGEN)], True),
        # The message is from another subsystem of netfilter.
        ([_message(1 << 8, bytes(netlink.PREAMBLE) + _OURS)], False),
        ([_nftables(_NEWTABLE)], False),
    ],
)
def test_only_changes_of_the_library_s_table_are_noticed(
    kernel: Kernel, messages: list[bytes], is_relevant: bool
) -> None:
    watch = _watch(TableWatch, kernel)
    try:
        assert not watch.happened()
        kernel.multicast(*messages)
        assert watch.happened() is is_relevant
        assert not watch.happened()
    finally:
        watch.close()


def test_all_pending_messages_are_read_at_once(kernel: Kernel) -> None:
    watch = _watch(TableWatch, kernel)
    try:
        kernel.multicast(_nftables(_NEWTABLE, _OURS))
        kernel.multicast(_nftables(_NEWTABLE, _FOREIGN))
        assert watch.happened()
        assert not watch.happened()
    finally:
        watch.close()


def test_only_removed_addresses_are_noticed(kernel: Kernel) -> None:
    watch = _watch(AddressWatch, kernel)
    try:
        kernel.multicast(_message(_RTM_NEWADDR, bytes(8)))
        assert not watch.happened()
        kernel.multicast(_message(_RTM_NEWADDR, bytes(8)), _message(_RTM_DELADDR, bytes(8)))
        assert watch.happened()
    finally:
        watch.close()


class _Overflowing:
    """A socket whose buffer overflowed once."""

    def __init__(self) -> None:
        self._errors = [OSError(errno.ENOBUFS, "overflow"), BlockingIOError(), BlockingIOError()]

    def recv(self, size: int) -> bytes:
        raise self._errors.pop(0)

    def close(self) -> None:
        pass


def test_lost_messages_count_as_relevant() -> None:
    watch = AddressWatch()
    watch.close()
    watch._socket = _Overflowing()  # type: ignore[assignment]
    assert watch.happened()
    assert not watch.happened()
