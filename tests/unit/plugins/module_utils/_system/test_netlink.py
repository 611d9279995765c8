# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the format of netlink messages; integration tests exchange messages with a real kernel."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._system import netlink
from hypothesis import given
from hypothesis import strategies as st


@given(st.dictionaries(st.integers(1, 200), st.binary(max_size=40), max_size=8), st.integers(0, 8))
def test_written_attributes_are_read_back(attributes: dict[int, bytes], offset: int) -> None:
    message = bytes(offset) + b"".join(netlink.attribute(kind, payload) for kind, payload in attributes.items())
    assert netlink.parse(message, offset) == attributes
    few = set(list(attributes)[::2])
    assert netlink.parse(message, offset, few) == {kind: attributes[kind] for kind in few}


def test_nested_attributes_are_marked_and_padded() -> None:
    written = netlink.nested(4, netlink.attribute(1, b"\x03"))
    assert written == bytes.fromhex("0c000480 05000100 03000000")
    assert netlink.parse(netlink.parse(written)[4]) == {1: b"\x03"}


@pytest.mark.parametrize("cut", ["0300", "08000100", "08000100010203040000", "00000000"])
def test_a_truncated_message_is_read_without_an_error(cut: str) -> None:
    netlink.parse(bytes.fromhex(cut))


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=8))
def test_all_messages_of_a_buffer_are_read(sent: list[tuple[int, bytes]]) -> None:
    buffer = b"".join(
        struct.pack("=IHHII", 16 + len(payload), kind, 0, 1, 0) + payload + bytes(-len(payload) % 4)
        for kind, payload in sent
    )
    assert list(netlink.messages(buffer)) == sent


@pytest.mark.parametrize("cut", ["", "10000000", "00" * 40, "0f000000" + "00" * 12])
def test_an_incomplete_header_ends_the_buffer(cut: str) -> None:
    whole = bytes.fromhex("14000000 0300 0000 00000000 00000000 01020304")
    assert list(netlink.messages(whole + bytes.fromhex(cut))) == [(3, b"\1\2\3\4")]


class _SilentSocket:
    """A netlink socket that gives no answer."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours

    def __enter__(self) -> _SilentSocket:
        return self

    def __exit__(self, *_error: object) -> None:
        self._ours.close()

    def settimeout(self, _seconds: float) -> None:
        self._ours.settimeout(0.01)

    def bind(self, _address: tuple[int, int]) -> None:
        pass

    def send(self, message: bytes) -> None:
        self._ours.send(message)

    def recv(self, size: int) -> bytes:
        return self._ours.recv(size)


def test_a_kernel_that_does_not_answer_is_an_error_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    monkeypatch.setattr(socket, "socket", lambda *_arguments: _SilentSocket(ours))
    with pytest.raises(OSError, match="timed out") as raised:
        list(netlink.ask(10, 16))
    assert (raised.value.errno, raised.value.strerror) == (errno.ETIMEDOUT, "Connection timed out")
