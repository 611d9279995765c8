# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the operator asked for: listeners and their backends, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from .address import family
from .document import Document, fingerprint_of_texts, listener_text
from .options import HASH_SCHEDULERS, LEAST_CONN_SCHEDULERS
from .ports import PortRange, parse_ports


class Backend(NamedTuple):
    """A registration: one endpoint of one listener. There are thousands: a named tuple is made in a fifth of the time.

    :ivar port: 0 means that a packet keeps its destination port.
    :ivar ramp: the part of its share that it has while it joins.
    :ivar health: its state by its checks; empty without a check.
    :ivar is_drain_expired: whether the time for its flows to end by themselves is over.
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
    is_drain_expired: bool = False
    is_leaving: bool = False

    @property
    def endpoint(self) -> tuple[str, int]:
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
    def is_least_conn(self) -> bool:
        """Whether its shares follow the number of active flows."""
        return self.scheduler in LEAST_CONN_SCHEDULERS

    @property
    def keeps_sessions(self) -> bool:
        """Whether a client's later flows go where its first went."""
        return self.tracking_mode == "per_session"

    @cached_property
    def backend_keys(self) -> tuple[str, ...]:
        """The names of its registrations, see :func:`named`, in the backends' order."""
        return tuple(backend_key(self, backend) for backend in self.backends)

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
    def listeners_and_leaving(self) -> tuple[Listener, ...]:
        """The listeners, and what is left of removed ones while their flows may live."""
        return self.listeners + self.leaving

    def texts(self) -> dict[str, str]:
        """Write each listener's plain data as one line, the same for equal data, by the listener's name."""
        for listener in self.listeners:
            # Kept with the value, which the configuration before and after a change share.
            if _TEXT not in vars(listener):
                vars(listener)[_TEXT] = listener_text(self.document[listener.name])
        return {listener.name: vars(listener)[_TEXT] for listener in self.listeners}

    @cached_property
    def fingerprint(self) -> str:
        """The document's :func:`fingerprint`."""
        return fingerprint_of_texts(self.texts())

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


def backend_key(listener: Listener, backend: Backend) -> str:
    """Name a registration as files do."""
    return backend_key_of(listener.name, *backend.endpoint)


def backend_key_of(listener: str, address: str, port: int) -> str:
    """Name a registration by what identifies it: ``listener/address/port``."""
    return f"{listener}/{address}/{port}"


def _listener(options: dict[str, Any]) -> Listener:
    fields = dict(options, ports=parse_ports(options["ports"]), log_config=LogConfig(**options["log_config"]))
    fields["failover_policy"] = FailoverPolicy(**options["failover_policy"])
    fields["backends"] = tuple(Backend(**backend) for backend in options["backends"])
    check = options["health_check"]
    if check is not None:
        lists = {"status": tuple(check["status"]), "command": tuple(check["command"])}
        fields["health_check"] = HealthCheck(**{**check, **lists})
    return Listener(**fields)


_TEXT = "listener_text"
