# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Watches for changes that other programs make on the node: to files, to the table, to addresses."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Protocol

from .._nft.objects import TABLE
from .._node import agent_status
from .._system import netlink
from .._system.store import Store

# linux/inotify.h
_IN_CLOSE_WRITE, _IN_MOVED_TO, _IN_DELETE = 0x8, 0x80, 0x200
_IN_NONBLOCK = os.O_NONBLOCK
_INOTIFY_EVENT = struct.Struct("iIII")

# linux/socket.h, linux/netlink.h
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1

# linux/rtnetlink.h
_RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV6_IFADDR = 5, 9
_RTM_DELADDR = 21

# linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NFNLGRP_NFTABLES = 7
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_NEWGEN = 15
_NFTA_TABLE_NAME = 1
"""The attribute with the table's name. It has this number in messages about chains, rules, sets and elements too."""

_RECEIVE_BYTES = 1 << 18
_BUFFER_BYTES = 8 << 20


class Watch(Protocol):
    """A source of events with a file descriptor that the event loop can wait for."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with an event."""

    def happened(self) -> bool:
        """Read all pending events and return whether any of them concerns the agent."""

    def close(self) -> None:
        """Stop watching."""


def node_watches(store: Store) -> list[Watch]:
    """Watch everything to which the agent reacts.

    :raises OSError: something cannot be watched.
    """
    os.makedirs(store.config_dir, mode=0o750, exist_ok=True)
    return [
        FileWatch(store.config_dir, (os.path.basename(store.listeners_file), "node.json")),
        FileWatch(store.run_dir, (agent_status.WAKE_AGENT,)),
        TableWatch(),
        AddressWatch(),
    ]


class FileWatch:
    """Watch for files of a directory that are written, replaced or removed (inotify).

    :param names: the files that matter, without the directory.
    :raises OSError: the directory cannot be watched.
    """

    def __init__(self, directory: str, names: tuple[str, ...]) -> None:
        self._names = names
        library = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = library.inotify_init1(_IN_NONBLOCK)
        mask = _IN_CLOSE_WRITE | _IN_MOVED_TO | _IN_DELETE
        if self._descriptor < 0 or library.inotify_add_watch(self._descriptor, os.fsencode(directory), mask) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), directory)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with an event."""
        return self._descriptor

    def happened(self) -> bool:
        """Read all pending events and return whether any of them is about one of the files."""
        is_relevant = False
        try:
            events = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return False
        offset = 0
        while offset < len(events):
            _watch, _mask, _cookie, length = _INOTIFY_EVENT.unpack_from(events, offset)
            offset += _INOTIFY_EVENT.size
            name = events[offset : offset + length].rstrip(b"\0")
            is_relevant = is_relevant or os.fsdecode(name) in self._names
            offset += length
        return is_relevant

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)


class _NetlinkWatch:
    """Watch multicast groups of a netlink protocol."""

    def __init__(self, protocol: int, *groups: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._socket.bind((0, 0))
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with an event."""
        return self._socket.fileno()

    def happened(self) -> bool:
        """Read all pending messages and return whether any of them concerns the agent."""
        is_relevant = False
        while True:
            try:
                received = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return is_relevant
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # The kernel has dropped messages, and any of them may have been relevant.
                is_relevant = True
                continue
            is_relevant = is_relevant or any(
                self._is_relevant(kind, payload) for kind, payload in netlink.messages(received)
            )

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()

    def _is_relevant(self, kind: int, payload: bytes) -> bool:
        raise NotImplementedError


class TableWatch(_NetlinkWatch):
    """Watch for changes to the table ``inet evenflow``, those of the agent itself included."""

    def __init__(self) -> None:
        super().__init__(netlink.NETLINK_NETFILTER, _NFNLGRP_NFTABLES)
        self._name = TABLE.encode("ascii") + b"\0"

    def _is_relevant(self, kind: int, payload: bytes) -> bool:
        subsystem, message = kind >> 8, kind & 0xFF
        if subsystem != _NFNL_SUBSYS_NFTABLES or message == _NFT_MSG_NEWGEN:
            return False
        return netlink.parse(payload, netlink.PREAMBLE, (_NFTA_TABLE_NAME,)).get(_NFTA_TABLE_NAME) == self._name


class AddressWatch(_NetlinkWatch):
    """Watch for addresses that are removed from an interface."""

    def __init__(self) -> None:
        super().__init__(netlink.NETLINK_ROUTE, _RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV6_IFADDR)

    def _is_relevant(self, kind: int, payload: bytes) -> bool:
        return kind == _RTM_DELADDR
