# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks by a plain connection or a datagram: tcp, udp."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Callable

from .._state.health import CheckResult
from .stream import Pace, connect, proxy_header, send_datagram
from .target import CheckFailed, Target, quoted

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""A value for SO_LINGER: thousands of checks would leave thousands of connections in TIME_WAIT."""


async def tcp(target: Target) -> CheckResult:
    """Connect, send the request if the check has one, and compare the answer if it expects one."""
    check, loop = target.check, asyncio.get_running_loop()
    connection = await connect(target)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        request = proxy_header(target, connection) + check.request.encode("utf-8")
        if request:
            await loop.sock_sendall(connection, request)
        if not check.response:
            return CheckResult(True, "connected")
        expected, answer, pace = check.response.encode("utf-8"), b"", Pace()
        while len(answer) < len(expected):
            await pace.wait()
            received = await loop.sock_recv(connection, 4096)
            if not received:
                raise CheckFailed(f"closed after {quoted(answer)}, expected {quoted(expected)}")
            answer += received
            if not expected.startswith(answer[: len(expected)]):
                break
        return _compare(answer, expected)
    finally:
        connection.close()


async def udp(target: Target) -> CheckResult:
    """Send a datagram and compare the first answer with what the check expects."""
    answer = await exchange(target, target.check.request.encode("utf-8"))
    return _compare(answer, target.check.response.encode("utf-8"))


async def exchange(target: Target, request: bytes, is_answer: Callable[[bytes], bool] = lambda _data: True) -> bytes:
    """Send a datagram and return the first one that is an answer to it; others are ignored."""
    connection = await connect(target, socket.SOCK_DGRAM)
    try:
        send_datagram(connection, request)
        pace = Pace()
        while True:
            await pace.wait()
            data = await asyncio.get_running_loop().sock_recv(connection, 65535)
            if is_answer(data):
                return data
    finally:
        connection.close()


def _compare(answer: bytes, expected: bytes) -> CheckResult:
    if not answer.startswith(expected):
        raise CheckFailed(f"answer {quoted(answer)}, expected {quoted(expected)}")
    return CheckResult(True, "answer as expected")
