# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks by a plain connection or a datagram: tcp, udp, dns."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from .._state.health import CheckResult
from .target import CheckFailed, Target, connect, missing_library, proxy_header, quoted

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
        expected, answer = check.response.encode("utf-8"), b""
        while len(answer) < len(expected):
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
    answer = await _exchange(target, target.check.request.encode("utf-8"))
    return _compare(answer, target.check.response.encode("utf-8"))


async def dns(target: Target) -> CheckResult:
    """Query a name and succeed if the answer has records."""
    library = _library()
    query = library.message.make_query(target.check.query, target.check.query_type)
    try:
        answer = library.message.from_wire(await _exchange(target, query.to_wire()))
    except library.exception.DNSException as error:
        raise CheckFailed(f"not a DNS answer: {error}") from error
    if not query.is_response(answer):
        raise CheckFailed("the answer is for another query")
    code = library.rcode.to_text(answer.rcode())
    if code != "NOERROR":
        raise CheckFailed(f"{code} for {target.check.query}")
    records = sum(len(group) for group in answer.answer)
    if not records:
        raise CheckFailed(f"no {target.check.query_type} record of {target.check.query}")
    return CheckResult(True, f"{records} records")


async def _exchange(target: Target, request: bytes) -> bytes:
    """Send a datagram and return the first answer."""
    connection = await connect(target, socket.SOCK_DGRAM)
    try:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, request)
        return await loop.sock_recv(connection, 65535)
    finally:
        connection.close()


def _compare(answer: bytes, expected: bytes) -> CheckResult:
    if not answer.startswith(expected):
        raise CheckFailed(f"answer {quoted(answer)}, expected {quoted(expected)}")
    return CheckResult(True, "answer as expected")


def _library() -> Any:
    try:
        import dns.exception
        import dns.message
        import dns.rcode
    except ImportError as error:
        raise missing_library("dnspython", error) from error
    return dns
