# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the operator asked for: listeners and their backends, as values."""

from __future__ import annotations

import hashlib
import json
import socket
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Dict, NamedTuple

from ._options import BACKEND, HASH_SCHEDULERS, LISTENER, SHARE_SCHEDULERS, Option, defaults
from ._ports import PortRange, parse_ports

Document = Dict[str, Dict[str, Any]]
"""A configuration as plain data: ``{name: listener options}``, each with all its options, backends sorted."""


class Backend(NamedTuple):
    """A registration: one endpoint of one listener. There are thousands: a named tuple is made in a fifth of the time.

    :ivar port: 0 means that a packet keeps its destination port.
    :ivar ramp: the part of its share that it has while it joins.
    :ivar health: its state by its checks; empty without a check.
    :ivar is_past_drain: whether the time for its flows to end by themselves is over.
    :ivar is_leaving: whether the configuration no longer has it.
    """

    name: str
    address: str
    port: int
    weight: int
    capacity_scaler: float
    failover: bool
    admin_state: str
    max_connections: int
    ramp: float = 1.0
    health: str = ""
    is_past_drain: bool = False
    is_leaving: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """Identity within the listener."""
        return self.address, self.port

    @property
    def has_share(self) -> bool:
        """Whether its share is above 0."""
        return self.weight * self.capacity_scaler > 0

    @property
    def share(self) -> int:
        """Weight times scaler, in thousandths of a weight. What joins has a little of it."""
        return max(1, round(self.weight * self.capacity_scaler * 1000 * self.ramp)) if self.has_share else 0


@dataclass(frozen=True)
class LogConfig:
    """Which new flows are logged.

    :ivar sample_rate: the part of them, 0 to 1.
    """

    enable: bool
    sample_rate: float

    @property
    def is_on(self) -> bool:
        """Whether any flow is logged."""
        return self.enable and self.sample_rate > 0


@dataclass(frozen=True)
class HealthCheck:
    """How the backends of a listener are checked; times in seconds.

    :ivar port: 0 means the backend's.
    :ivar address: ``None`` means the backend's.
    :ivar status: codes and ranges of them, as text.
    """

    type: str
    port: int
    address: str | None
    check_interval_sec: int
    timeout_sec: int
    healthy_threshold: int
    unhealthy_threshold: int
    request: str
    response: str
    request_path: str
    host: str
    status: tuple[str, ...]
    json_query: str
    tls_verify: bool
    ca_file: str | None
    proxy_header: str
    grpc_service_name: str
    query: str
    query_type: str
    command: tuple[str, ...]
    dynamic_weight: bool

    @property
    def detection_sec(self) -> int:
        """How long a backend that fails may be taken for healthy."""
        return self.unhealthy_threshold * self.check_interval_sec + self.timeout_sec


@dataclass(frozen=True)
class FailoverPolicy:
    """When the backup pool takes over.

    :ivar failover_ratio: strictly below this part of healthy primaries it does.
    """

    failover_ratio: float
    drop_traffic_if_unhealthy: bool
    disable_connection_drain_on_failover: bool


@dataclass(frozen=True)
class Listener:
    """A virtual service: one address, one protocol, some ports."""

    name: str
    description: str
    address: str
    protocol: str
    ports: tuple[PortRange, ...]
    admin_state: str
    scheduler: str
    minimum_ring_size: int
    session_affinity: str
    tracking_mode: str
    idle_timeout_sec: int | None
    connection_persistence_on_unhealthy_backends: str
    connection_draining_timeout_sec: int
    drain_mode: str
    health_check: HealthCheck | None
    failover_policy: FailoverPolicy
    max_connections: int
    slow_start_sec: int
    snat: str
    log_config: LogConfig
    backends: tuple[Backend, ...]

    @property
    def family(self) -> str:
        """``4`` or ``6``."""
        return family(self.address)

    @property
    def is_hashed(self) -> bool:
        """Whether its scheduler chooses by a hash."""
        return self.scheduler in HASH_SCHEDULERS

    @property
    def is_shared_out(self) -> bool:
        """Whether its shares follow the number of active flows."""
        return self.scheduler in SHARE_SCHEDULERS

    @property
    def keeps_sessions(self) -> bool:
        """Whether a client's later flows go where its first went."""
        return self.tracking_mode == "per_session"

    @cached_property
    def registrations(self) -> tuple[str, ...]:
        """The names of its registrations, see :func:`named`, in the backends' order."""
        return tuple(registration(self, backend) for backend in self.backends)

    @property
    def is_limited(self) -> bool:
        """Whether a backend may be full."""
        return any(backend.max_connections for backend in self.backends)

    @property
    def is_wide(self) -> bool:
        """Whether it serves more than single ports."""
        return not all(ports.is_single for ports in self.ports)


@dataclass(frozen=True)
class Configuration:
    """All listeners of a node, sorted by name.

    :ivar leaving: what is left of listeners whose registrations were removed while their flows may live: those
        registrations, and the ports that nobody else serves now.
    :ivar guarded: the same of those whose flows have ended.
    :ivar document: the plain data that the listeners were built from.
    """

    listeners: tuple[Listener, ...]
    leaving: tuple[Listener, ...] = ()
    guarded: tuple[Listener, ...] = ()
    document: Document = field(default_factory=dict, compare=False, repr=False)

    @property
    def present(self) -> tuple[Listener, ...]:
        """All whose backends may have flows."""
        return self.listeners + self.leaving

    def texts(self) -> dict[str, str]:
        """Write each listener's plain data as one line, the same for equal data, by the listener's name."""
        for listener in self.listeners:
            # Kept with the value, which the configuration before and after a change share.
            if _TEXT not in vars(listener):
                vars(listener)[_TEXT] = _text(self.document[listener.name])
        return {listener.name: vars(listener)[_TEXT] for listener in self.listeners}

    @cached_property
    def fingerprint(self) -> str:
        """The document's :func:`fingerprint`."""
        return _fingerprint(self.texts())

    @classmethod
    def from_document(cls, document: Document, known: Configuration | None = None) -> Configuration:
        """Build the values from plain data that has been validated.

        :param known: one that was built before; it gives the listeners whose data is the same object.
        """
        built = {one.name: one for one in known.listeners} if known else {}
        return cls(
            tuple(
                built[name] if known and known.document.get(name) is document[name] else _listener(document[name])
                for name in sorted(document)
            ),
            document=document,
        )


@dataclass(frozen=True)
class Settings:
    """What is this node's own, not the fleet's; except the seed, which all nodes of a fleet share.

    :ivar hash_seed: seed of every hash, in the kernel and in slot tables.
    :ivar vip_mode: ``none``: somebody else brings the VIPs here. ``address``: they are put on an interface.
    :ivar vip_interface: that interface.
    :ivar vip_dedicated: reject every port of a VIP that no listener serves. ``None``: unless the VIP is an address of
        the node's own, that is, one that was not put there for us.
    :ivar log_group: NFLOG group that gets the logged flows.
    """

    hash_seed: int = 24301
    vip_mode: str = "none"
    vip_interface: str = ""
    vip_dedicated: bool | None = None
    log_group: int = 5


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


def registration(listener: Listener, backend: Backend) -> str:
    """Name a registration as files do."""
    return named(listener.name, *backend.key)


def named(listener: str, address: str, port: int) -> str:
    """Name a registration by what identifies it: ``listener/address/port``."""
    return f"{listener}/{address}/{port}"


def _completed(place: str, found: Any, options: dict[str, Option], more: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{place}: {found!r} is not a dictionary")
    if options is BACKEND and found.keys() == BACKEND.keys() and None not in found.values():
        # As this version writes it, so nearly always, and there are thousands.
        return found
    unknown = found.keys() - options.keys() - more.keys()
    missing = [name for name, option in options.items() if option.required and found.get(name) is None]
    if unknown or missing:
        raise ValueError(f"{place}: unknown options {sorted(unknown)}, missing options {missing}")
    nested = {
        name: {**defaults(options[name].options), **value}
        for name, value in found.items()
        if name in options and options[name].options and isinstance(value, dict)
    }
    return {**defaults(options), **more, **found, **nested}


def _listener(options: dict[str, Any]) -> Listener:
    fields = dict(options, ports=parse_ports(options["ports"]), log_config=LogConfig(**options["log_config"]))
    fields["failover_policy"] = FailoverPolicy(**options["failover_policy"])
    fields["backends"] = tuple(Backend(**backend) for backend in options["backends"])
    check = options["health_check"]
    if check is not None:
        lists = {"status": tuple(check["status"]), "command": tuple(check["command"])}
        fields["health_check"] = HealthCheck(**{**check, **lists})
    return Listener(**fields)


def family(address: str) -> str:
    """Return ``6`` for the text of an IPv6 address, else ``4``."""
    return "6" if ":" in address else "4"


@lru_cache(maxsize=65536)
def address_bytes(address: str) -> bytes:
    """Return an address in network order; also the order in which addresses are sorted."""
    return socket.inet_pton(socket.AF_INET6 if family(address) == "6" else socket.AF_INET, address)


def fingerprint(document: Document) -> str:
    """Name a configuration by its content: equal text, equal configuration."""
    return _fingerprint({name: _text(document[name]) for name in sorted(document)})


_TEXT = "_text"


def _text(listener: dict[str, Any]) -> str:
    return json.dumps(listener, sort_keys=True, separators=(",", ":"))


def _fingerprint(texts: dict[str, str]) -> str:
    content = ",".join(f"{json.dumps(name)}:{text}" for name, text in texts.items())
    return hashlib.sha256(f"{{{content}}}".encode("ascii")).hexdigest()
