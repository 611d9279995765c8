# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target of a check, and what all kinds of checks have in common."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Callable, Coroutine

from .._config.address import family
from .._config.model import Backend, HealthCheck, Listener, backend_key_of
from .._state.health import CheckResult

FAMILIES = {"4": socket.AF_INET, "6": socket.AF_INET6}

MESSAGE_LENGTH = 200
"""Maximum number of characters of a result's message."""

_MESSAGES = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "no route to network",
}

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors that say that the node has run out of something, whenever they are raised."""

_QUOTED_BYTES = 40

_OF_REGISTRATION = ("address", "port", "healthy_threshold", "unhealthy_threshold")
"""Options of a check that do not decide what it does to an address and a port."""

_decisive_options = attrgetter(*(field.name for field in fields(HealthCheck) if field.name not in _OF_REGISTRATION))


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
    def probe(self) -> tuple[object, ...]:
        """All that decides what a check does: targets for which this is equal share each check and its result.

        A script learns the names of the listener and the backend, and an echo request has no port.
        """
        names = (self.listener, self.backend) if self.check.type == "script" else ()
        return self.address, 0 if self.check.type == "ping" else self.port, names, _decisive_options(self.check)

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


Check = Callable[[Target], Coroutine[Any, Any, CheckResult]]
"""Checks a target once. The kinds of checks may raise any exception; those that say most are
:class:`CheckFailed`, :class:`NotChecked` and :class:`OSError`."""


class CheckFailed(Exception):
    """The server did not answer as expected, or could not be asked; the text is the message for people."""


class NotChecked(Exception):
    """The check could not be made for a reason on this node; the text is the reason."""


def result_of(error: Exception) -> CheckResult:
    """Return the result of a check that an error has ended, whatever a server has provoked in a library."""
    if isinstance(error, NotChecked) or (isinstance(error, OSError) and error.errno in _EXHAUSTED):
        return CheckResult(None, f"not checked: {_text(error)}")
    return CheckResult(False, _text(error))


def is_exhaustion(error: OSError) -> bool:
    """Return whether an error says that the node has run out of something, such as descriptors."""
    return error.errno in _EXHAUSTED


def missing_library(library: str, error: ImportError) -> CheckFailed:
    """Return the error for a check that needs a library which the node does not have."""
    return CheckFailed(f"this check needs the Python library {library} on the node: {error}")


def printable(text: str) -> str:
    """Return a text of which a server may have sent a part, in one line of printable characters, for logs and files."""
    line = " ".join(text[: 4 * MESSAGE_LENGTH].split())
    return "".join(character if character.isprintable() else "?" for character in line)[:MESSAGE_LENGTH]


def quoted(data: bytes) -> str:
    """Return the beginning of what a server sent, for a message."""
    text = repr(data[:_QUOTED_BYTES])[1:]
    return text if len(data) <= _QUOTED_BYTES else f"{text} and more"


def _text(error: Exception) -> str:
    if isinstance(error, (CheckFailed, NotChecked)):
        return str(error)
    if isinstance(error, OSError):
        code = error.errno or 0
        return _MESSAGES.get(code) or (os.strerror(code).lower() if code else str(error) or type(error).__name__)
    return f"{type(error).__name__}: {error}"
