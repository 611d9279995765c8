# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is checked, and what every check can run into."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from typing import Any, Awaitable, Callable

from .._config.address import family
from .._config.model import Backend, HealthCheck, Listener
from .._state.health import CheckResult

FAMILIES = {"4": socket.AF_INET, "6": socket.AF_INET6}

_WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "no route to network",
}


@dataclass(frozen=True)
class Target:
    """One registration and how it is checked.

    :ivar name: the registration's, as :func:`~.._config.model.backend_key` gives it.
    :ivar address: the address that is checked.
    :ivar port: the port that is checked; 0 where the check needs none.
    """

    name: str
    listener: str
    backend: str
    address: str
    port: int
    check: HealthCheck

    @classmethod
    def of(cls, name: str, listener: Listener, backend: Backend, check: HealthCheck) -> Target:
        """Tell what is checked of a registration."""
        port = check.port or backend.port or next((ports.first for ports in listener.ports if ports.is_single), 0)
        return cls(name, listener.name, backend.name, check.address or backend.address, port, check)

    @property
    def socket_family(self) -> socket.AddressFamily:
        """The family of the address that is checked."""
        return FAMILIES[family(self.address)]

    @property
    def host(self) -> str:
        """The host that is named to the server: the check's, or the address as URLs have it."""
        if self.check.host:
            return self.check.host
        return f"[{self.address}]" if family(self.address) == "6" else self.address


Check = Callable[[Target], Awaitable[CheckResult]]
"""Checks once. May raise :class:`CheckFailed`, :class:`OSError` or be cancelled."""


class CheckFailed(Exception):
    """The server answered, and not as it should; the text is the result in words."""


def failure(error: OSError) -> CheckResult:
    """Put what the network refused into words."""
    code = error.errno or 0
    words = _WORDS.get(code) or (os.strerror(code).lower() if code else str(error) or type(error).__name__)
    return CheckResult(False, words)


def missing(library: str, error: ImportError) -> CheckFailed:
    """Say that a check needs a library that the node does not have."""
    return CheckFailed(f"this check needs the Python library {library} on the node: {error}")


def shown(found: bytes) -> str:
    """Show the beginning of what a server sent."""
    text = repr(found[:40])[1:]
    return text if len(found) <= 40 else f"{text} and more"


async def connected(target: Target, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket that is connected to what is checked. The caller closes it."""
    connection = socket.socket(target.socket_family, kind)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (target.address, target.port))
    except BaseException:
        connection.close()
        raise
    return connection


def proxy_header(target: Target, connection: Any) -> bytes:
    """Return the header that tells a server behind the PROXY protocol (version 1) who connects."""
    if target.check.proxy_header == "none":
        return b""
    name = "TCP6" if target.socket_family == socket.AF_INET6 else "TCP4"
    own, port = connection.getsockname()[:2]
    return f"PROXY {name} {own} {target.address} {port} {target.port}\r\n".encode("ascii")
