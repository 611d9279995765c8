# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks by ICMP echo requests."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct

from .._state.health import CheckResult
from .stream import Pace, raise_if_local, send_datagram
from .target import CheckFailed, Target

_PROTOCOLS = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
_REQUESTS = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLIES = {socket.AF_INET: 0, socket.AF_INET6: 129}
_HEADER = struct.Struct("!BBHHH")

_sequence = itertools.count(1)


async def ping(target: Target) -> CheckResult:
    """Send one echo request and wait for its reply."""
    family, loop = target.socket_family, asyncio.get_running_loop()
    connection, is_raw = _socket(family)
    try:
        connection.setblocking(False)
        # This only sets the peer, so it does not block; the event loop's call would resolve a port.
        raise_if_local(connection.connect_ex((target.address, 0)))
        number = next(_sequence) & 0xFFFF
        identity, payload = os.getpid() & 0xFFFF, os.urandom(16)
        send_datagram(connection, _request(_REQUESTS[family], identity, number, payload))
        pace = Pace()
        while True:
            await pace.wait()
            packet = await loop.sock_recv(connection, 2048)
            if is_raw and family == socket.AF_INET:
                packet = packet[(packet[0] & 0x0F) * 4 :]
            if len(packet) < _HEADER.size:
                continue
            kind, _code, _checksum, _identity, reply = _HEADER.unpack_from(packet)
            # A raw socket receives the replies to other sockets too.
            if kind == _REPLIES[family] and reply == number and packet[_HEADER.size :] == payload:
                return CheckResult(True, "echo reply")
    finally:
        connection.close()


def _request(kind: int, identity: int, number: int, payload: bytes) -> bytes:
    without_checksum = _HEADER.pack(kind, 0, 0, identity, number) + payload
    # The kernel replaces the checksum for ICMPv6 and for datagram sockets.
    return _HEADER.pack(kind, 0, _checksum(without_checksum), identity, number) + payload


def _checksum(packet: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _socket(family: socket.AddressFamily) -> tuple[socket.socket, bool]:
    """Return a socket, and whether it is raw; a datagram socket if the kernel permits this user to ping."""
    try:
        return socket.socket(family, socket.SOCK_DGRAM, _PROTOCOLS[family]), False
    except PermissionError:
        pass
    try:
        return socket.socket(family, socket.SOCK_RAW, _PROTOCOLS[family]), True
    except PermissionError as error:
        raise CheckFailed(
            "the agent is not permitted to ping: run the role lb_node with all listeners that do, or set "
            "net.ipv4.ping_group_range"
        ) from error
