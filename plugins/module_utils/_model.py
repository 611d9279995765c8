# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the operator asked for: listeners and their backends, as values."""

from __future__ import annotations

import hashlib
import json
import socket
from dataclasses import dataclass
from typing import Any, Dict

from ._options import BACKEND, LISTENER, Option

Document = Dict[str, Dict[str, Any]]
"""A configuration as plain data: ``{name: listener options}``, each with all its options, backends sorted."""


@dataclass(frozen=True)
class Backend:
    """A registration: one endpoint of one listener.

    :ivar port: 0 means that a packet keeps its destination port.
    """

    name: str
    address: str
    port: int
    weight: int
    admin_state: str

    @property
    def key(self) -> tuple[str, int]:
        """Identity within the listener."""
        return self.address, self.port


@dataclass(frozen=True)
class Listener:
    """A virtual service: one address, one protocol, some ports."""

    name: str
    description: str
    address: str
    protocol: str
    ports: tuple[int, ...]
    admin_state: str
    scheduler: str
    minimum_ring_size: int
    session_affinity: str
    backends: tuple[Backend, ...]

    @property
    def family(self) -> str:
        """``4`` or ``6``."""
        return family(self.address)


@dataclass(frozen=True)
class Configuration:
    """All listeners of a node, sorted by name."""

    listeners: tuple[Listener, ...]

    @classmethod
    def from_document(cls, document: Document) -> Configuration:
        """Build the values from plain data that has been validated."""
        return cls(tuple(_listener(document[name]) for name in sorted(document)))


@dataclass(frozen=True)
class Settings:
    """What is this node's own, not the fleet's; except the seed, which all nodes of a fleet share.

    :ivar hash_seed: seed of every hash, in the kernel and in slot tables.
    :ivar vip_mode: ``none``: somebody else brings the VIPs here. ``address``: they are put on an interface.
    :ivar vip_interface: that interface.
    """

    hash_seed: int = 24301
    vip_mode: str = "none"
    vip_interface: str = ""


def complete(name: str, found: Any) -> dict[str, Any]:
    """Give a stored listener the defaults of options that its file does not know yet.

    :param name: what it is stored under.
    :raises ValueError: it is not a listener that this version can have written.
    """
    listener = _completed(f"listener {name}", found, LISTENER, {"backends": []})
    if listener["name"] != name or not isinstance(listener["backends"], list):
        raise ValueError(f"listener {name}: not a listener")
    listener["backends"] = [_completed(f"listener {name}: backend", item, BACKEND, {}) for item in listener["backends"]]
    return listener


def _completed(place: str, found: Any, options: dict[str, Option], more: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{place}: {found!r} is not a dictionary")
    unknown = found.keys() - options.keys() - more.keys()
    missing = [name for name, option in options.items() if option.required and found.get(name) is None]
    if unknown or missing:
        raise ValueError(f"{place}: unknown options {sorted(unknown)}, missing options {missing}")
    return {**{name: option.default for name, option in options.items()}, **more, **found}


def _listener(options: dict[str, Any]) -> Listener:
    fields = dict(options, ports=tuple(int(port) for port in options["ports"]))
    fields["backends"] = tuple(Backend(**backend) for backend in options["backends"])
    return Listener(**fields)


def family(address: str) -> str:
    """Return ``6`` for the text of an IPv6 address, else ``4``."""
    return "6" if ":" in address else "4"


def address_bytes(address: str) -> bytes:
    """Return an address in network order; also the order in which addresses are sorted."""
    return socket.inet_pton(socket.AF_INET6 if family(address) == "6" else socket.AF_INET, address)


def fingerprint(document: Document) -> str:
    """Name a configuration by its content: equal text, equal configuration."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
