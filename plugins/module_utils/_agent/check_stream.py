# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks by a bare connection or datagram: tcp, udp, dns."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from .._state.health import CheckResult
from .target import CheckFailed, Target, connected, missing, proxy_header, shown

_AT_ONCE = struct.pack("ii", 1, 0)
"""Linger: a check's connection ends by a reset, so that thousands of them leave nothing behind in TIME_WAIT."""


async def tcp(target: Target) -> CheckResult:
    """Connect; send and compare if that is asked for."""
    check, loop = target.check, asyncio.get_running_loop()
    connection = await connected(target)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        request = proxy_header(target, connection) + check.request.encode("utf-8")
        if request:
            await loop.sock_sendall(connection, request)
        if not check.response:
            return CheckResult(True, "connected")
        wanted, found = check.response.encode("utf-8"), b""
        while len(found) < len(wanted):
            more = await loop.sock_recv(connection, 4096)
            if not more:
                raise CheckFailed(f"closed after {shown(found)}, wanted {shown(wanted)}")
            found += more
            if not wanted.startswith(found[: len(wanted)]):
                break
        return _compared(found, wanted)
    finally:
        connection.close()


async def udp(target: Target) -> CheckResult:
    """Send a datagram and compare the first one that comes back."""
    wanted = target.check.response.encode("utf-8")
    return _compared(await _asked(target, target.check.request.encode("utf-8")), wanted)


async def dns(target: Target) -> CheckResult:
    """Ask for a name; an answer with records is what is wanted."""
    library = _library()
    query = library.message.make_query(target.check.query, target.check.query_type)
    try:
        answer = library.message.from_wire(await _asked(target, query.to_wire()))
    except library.exception.DNSException as error:
        raise CheckFailed(f"not a DNS answer: {error}") from error
    if not query.is_response(answer):
        raise CheckFailed("the answer is to another question")
    code = library.rcode.to_text(answer.rcode())
    if code != "NOERROR":
        raise CheckFailed(f"{code} for {target.check.query}")
    records = sum(len(group) for group in answer.answer)
    if not records:
        raise CheckFailed(f"no {target.check.query_type} record of {target.check.query}")
    return CheckResult(True, f"{records} records")


async def _asked(target: Target, request: bytes) -> bytes:
    connection = await connected(target, socket.SOCK_DGRAM)
    try:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, request)
        return await loop.sock_recv(connection, 65535)
    finally:
        connection.close()


def _compared(found: bytes, wanted: bytes) -> CheckResult:
    if not found.startswith(wanted):
        raise CheckFailed(f"answer {shown(found)}, wanted {shown(wanted)}")
    return CheckResult(True, "answer as wanted")


def _library() -> Any:
    try:
        import dns.exception
        import dns.message
        import dns.rcode
    except ImportError as error:
        raise missing("dnspython", error) from error
    return dns
