# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happens on the node outside of the agent: files that change, nftables and addresses that somebody touches."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Any

from .._nft.objects import TABLE

_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_NFNLGRP_NFTABLES, _RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV6_IFADDR = 7, 5, 9
_NFTABLES = 10
_NEW_GENERATION = 15
_HEADER = struct.Struct("=IHHII")
_DELETE_ADDRESS = 21
_RECEIVE = 1 << 18
_BUFFER = 8 << 20

_IN_CLOSE_WRITE, _IN_MOVED_TO, _IN_DELETE = 0x8, 0x80, 0x200
_IN_NONBLOCK = 0o4000


class FileWatch:
    """Tells when a file in a directory is written, replaced or removed (inotify).

    :raises OSError: the kernel refuses.
    """

    def __init__(self, directory: str, names: tuple[str, ...]) -> None:
        self._names = names
        library = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = library.inotify_init1(_IN_NONBLOCK)
        mask = _IN_CLOSE_WRITE | _IN_MOVED_TO | _IN_DELETE
        if self._descriptor < 0 or library.inotify_add_watch(self._descriptor, os.fsencode(directory), mask) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), directory)

    def fileno(self) -> int:
        return self._descriptor

    def happened(self) -> bool:
        """Read what has happened; whether it is about one of the files."""
        found = False
        try:
            events = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return False
        offset = 0
        while offset < len(events):
            _watch, _mask, _cookie, length = struct.unpack_from("iIII", events, offset)
            name = events[offset + 16 : offset + 16 + length].rstrip(b"\0")
            found = found or os.fsdecode(name) in self._names
            offset += 16 + length
        return found

    def close(self) -> None:
        os.close(self._descriptor)


class _NetlinkWatch:
    def __init__(self, protocol: int, *groups: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind((0, 0))
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        return self._socket.fileno()

    def happened(self) -> bool:
        """Read what has happened; whether it concerns the agent. What was too much to read does."""
        found = False
        while True:
            try:
                received = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True
                continue
            offset = 0
            while offset + _HEADER.size <= len(received):
                length, kind = _HEADER.unpack_from(received, offset)[:2]
                found = found or self._concerns(kind, received[offset : offset + length])
                offset += max(length + 3 & ~3, _HEADER.size)

    def _concerns(self, kind: int, message: bytes) -> bool:
        raise NotImplementedError

    def close(self) -> None:
        self._socket.close()


class TableWatch(_NetlinkWatch):
    """Tells when somebody, the agent itself included, changes our table."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_NETFILTER, _NFNLGRP_NFTABLES)
        self._name = TABLE.encode("ascii") + b"\0"

    def _concerns(self, kind: int, message: bytes) -> bool:
        # The table's name is the first attribute of every message but that of a generation.
        return kind >> 8 == _NFTABLES and kind & 0xFF != _NEW_GENERATION and message[24:].startswith(self._name)


class AddressWatch(_NetlinkWatch):
    """Tells when an address goes from an interface."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_ROUTE, _RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV6_IFADDR)

    def _concerns(self, kind: int, message: bytes) -> bool:
        return kind == _DELETE_ADDRESS


Watch = Any
"""One of these: ``fileno``, ``happened``, ``close``."""
