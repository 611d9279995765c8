# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target of a check, and what all kinds of checks have in common."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from typing import Any, Awaitable, Callable

from .._config.address import family
from .._config.model import Backend, HealthCheck, Listener, backend_key_of
from .._state.health import CheckResult

FAMILIES = {"4": socket.AF_INET, "6": socket.AF_INET6}

_MESSAGES = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "no route to network",
}

_QUOTED_BYTES = 40


@dataclass(frozen=True)
class Target:
    """A backend and how it is checked.

    :ivar key: the backend's key, see :func:`~.._config.model.backend_key_of`.
    :ivar address: the address to check.
    :ivar port: the port to check; 0 if the check needs none.
    """

    key: str
    listener: str
    backend: str
    address: str
    port: int
    check: HealthCheck

    @classmethod
    def of(cls, listener: Listener, backend: Backend, check: HealthCheck) -> Target:
        """Return the target for a backend of a listener."""
        port = check.port or backend.port or next((ports.first for ports in listener.ports if ports.is_single), 0)
        address = check.address or backend.address
        return cls(backend_key_of(listener.name, *backend.endpoint), listener.name, backend.name, address, port, check)

    @property
    def socket_family(self) -> socket.AddressFamily:
        """The family of the address to check."""
        return FAMILIES[family(self.address)]

    @property
    def host(self) -> str:
        """The host to name in requests: the check's, or the address as in a URL."""
        if self.check.host:
            return self.check.host
        return f"[{self.address}]" if family(self.address) == "6" else self.address


Check = Callable[[Target], Awaitable[CheckResult]]
"""Checks a target once. The kinds of checks may raise :class:`CheckFailed` or :class:`OSError`."""


class CheckFailed(Exception):
    """The server did not answer as expected, or could not be asked; the text is the message for people."""


def failure(error: OSError) -> CheckResult:
    """Return the result of a check that an error of the network has ended."""
    code = error.errno or 0
    message = _MESSAGES.get(code) or (os.strerror(code).lower() if code else str(error) or type(error).__name__)
    return CheckResult(False, message)


def missing_library(library: str, error: ImportError) -> CheckFailed:
    """Return the error for a check that needs a library which the node does not have."""
    return CheckFailed(f"this check needs the Python library {library} on the node: {error}")


def quoted(data: bytes) -> str:
    """Return the beginning of what a server sent, for a message."""
    text = repr(data[:_QUOTED_BYTES])[1:]
    return text if len(data) <= _QUOTED_BYTES else f"{text} and more"


async def connect(target: Target, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket that is connected to the target. The caller closes it."""
    connection = socket.socket(target.socket_family, kind)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (target.address, target.port))
    except BaseException:
        connection.close()
        raise
    return connection


def proxy_header(target: Target, connection: Any) -> bytes:
    """Return the header of the PROXY protocol, version 1; nothing if the check has none."""
    if target.check.proxy_header == "none":
        return b""
    name = "TCP6" if target.socket_family == socket.AF_INET6 else "TCP4"
    address, port = connection.getsockname()[:2]
    return f"PROXY {name} {address} {target.address} {port} {target.port}\r\n".encode("ascii")
