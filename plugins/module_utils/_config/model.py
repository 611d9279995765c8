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
    """A backend: an endpoint registered with a listener.

    There are thousands of them, and a named tuple is made in a fifth of a dataclass's time.

    :ivar port: 0 means that a packet keeps its destination port.
    :ivar ramp: the part of its share that slow start allows, above 0 to 1.
    :ivar health: the value of its :class:`~.._state.health.HealthState`; empty without a check.
    :ivar is_drain_expired: whether the time in which its flows may end by themselves is over.
    :ivar is_leaving: whether it was removed from the configuration.
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
        """Address and port: the backend's identity within its listener."""
        return self.address, self.port

    @property
    def has_share(self) -> bool:
        """Whether its share is above 0."""
        return self.weight * self.capacity_scaler > 0

    @property
    def share(self) -> int:
        """Weight times capacity scaler times ramp, in thousandths of a weight; at least 1 if it has a share."""
        return max(1, round(self.weight * self.capacity_scaler * 1000 * self.ramp)) if self.has_share else 0


@dataclass(frozen=True)
class LogConfig:
    """Whether new flows are logged.

    :ivar sample_rate: the part of them that is logged, 0 to 1.
    """

    enable: bool
    sample_rate: float

    @property
    def is_on(self) -> bool:
        """Whether any flow is logged."""
        return self.enable and self.sample_rate > 0


@dataclass(frozen=True)
class HealthCheck:
    """How the backends of a listener are checked. Times are in seconds.

    :ivar port: 0 means the backend's port.
    :ivar address: ``None`` means the backend's address.
    :ivar status: HTTP status codes and ranges of them, as text.
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
    tls: bool
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
        """The longest time for which a backend that has failed counts as healthy."""
        return self.unhealthy_threshold * self.check_interval_sec + self.timeout_sec


@dataclass(frozen=True)
class FailoverPolicy:
    """When the failover pool takes over.

    :ivar failover_ratio: the failover pool takes over if the part of healthy primaries is strictly below this.
    """

    failover_ratio: float
    drop_traffic_if_unhealthy: bool
    disable_connection_drain_on_failover: bool


@dataclass(frozen=True)
class ConnectionRate:
    """How many new flows are accepted: this many per second, and this many at once.

    :ivar prefix: the bits of the source address that make a client; 0 where all clients share the rate.
    """

    rate: int
    burst: int
    prefix: int = 0


@dataclass(frozen=True)
class ConnectionsPerClient:
    """How many flows a client may have.

    :ivar prefix: the bits of the source address that make a client.
    """

    limit: int
    prefix: int


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
    source_ranges: tuple[str, ...]
    max_connection_rate: ConnectionRate | None
    max_connection_rate_per_client: ConnectionRate | None
    max_connections_per_client: ConnectionsPerClient | None
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
        """Whether its scheduler chooses by a hash of the packet."""
        return self.scheduler in HASH_SCHEDULERS

    @property
    def is_least_conn(self) -> bool:
        """Whether its scheduler is lc or wlc, whose shares follow the number of active flows."""
        return self.scheduler in LEAST_CONN_SCHEDULERS

    @property
    def keeps_sessions(self) -> bool:
        """Whether later flows of a client go to the backend of its first one."""
        return self.tracking_mode == "per_session"

    @cached_property
    def backend_keys(self) -> tuple[str, ...]:
        """The keys of its backends, see :func:`backend_key_of`, in the backends' order."""
        return tuple(self.key_of(backend) for backend in self.backends)

    def key_of(self, backend: Backend) -> str:
        """Return the key of a backend of this listener; `backend_keys` makes those of all."""
        return backend_key_of(self.name, *backend.endpoint)

    @property
    def is_limited(self) -> bool:
        """Whether any of its backends has a limit of connections."""
        return any(backend.max_connections for backend in self.backends)

    @property
    def is_wide(self) -> bool:
        """Whether it serves more than single ports."""
        return not all(ports.is_single for ports in self.ports)


@dataclass(frozen=True)
class Configuration:
    """All listeners of a node, sorted by name.

    :ivar leaving: a listener for each removed backend whose flows may live: the listener as it was, with this backend
        alone.
    :ivar guarded: the same for removed backends whose flows have ended.
    :ivar document: the plain data that the listeners were built from.
    :ivar previous: the configuration that shares the listeners whose data is the same object.
    """

    listeners: tuple[Listener, ...]
    leaving: tuple[Listener, ...] = ()
    guarded: tuple[Listener, ...] = ()
    document: Document = field(default_factory=dict, compare=False, repr=False)
    previous: Configuration | None = field(default=None, compare=False, repr=False)

    @property
    def listeners_and_leaving(self) -> tuple[Listener, ...]:
        """The listeners, and those of removed backends whose flows may live."""
        return self.listeners + self.leaving

    @cached_property
    def texts(self) -> dict[str, str]:
        """Each listener's plain data as one line of JSON, equal for equal data, by the listener's name."""
        texts = {}
        for name in sorted(self.document):
            data = self.document[name]
            is_shared = self.previous is not None and self.previous.document.get(name) is data
            texts[name] = self.previous.texts[name] if self.previous and is_shared else listener_text(data)
        return texts

    @cached_property
    def fingerprint(self) -> str:
        """The document's :func:`~.document.fingerprint`."""
        return fingerprint_of_texts(self.texts)

    @classmethod
    def from_document(cls, document: Document, previous: Configuration | None = None) -> Configuration:
        """Build a configuration from plain data that has been validated.

        :param previous: a configuration to take listeners from, where their data is the same object.
        """
        built = {listener.name: listener for listener in previous.listeners} if previous else {}
        return cls(
            tuple(
                built[name] if previous and previous.document.get(name) is document[name] else _listener(document[name])
                for name in sorted(document)
            ),
            document=document,
            previous=previous,
        )


def backend_key_of(listener: str, address: str, port: int) -> str:
    """Return the key by which files name a backend: ``listener/address/port``."""
    return f"{listener}/{address}/{port}"


def _listener(options: dict[str, Any]) -> Listener:
    fields = dict(options, ports=parse_ports(options["ports"]), log_config=LogConfig(**options["log_config"]))
    fields["failover_policy"] = FailoverPolicy(**options["failover_policy"])
    fields["source_ranges"] = tuple(options["source_ranges"])
    fields.update(_admission(options))
    fields["backends"] = tuple(Backend(**backend) for backend in options["backends"])
    check = options["health_check"]
    if check is not None:
        lists = {"status": tuple(check["status"]), "command": tuple(check["command"])}
        fields["health_check"] = HealthCheck(**{**check, **lists})
    return Listener(**fields)


def _admission(options: dict[str, Any]) -> dict[str, Any]:
    """Return what limits clients, with the defaults that follow from other options."""
    whole = 128 if family(options["address"]) == "6" else 32
    rate, per_client = options["max_connection_rate"], options["max_connection_rate_per_client"]
    limit = options["max_connections_per_client"]
    return {
        "max_connection_rate": rate and ConnectionRate(rate["rate"], rate["burst"] or rate["rate"]),
        "max_connection_rate_per_client": per_client
        and ConnectionRate(
            per_client["rate"], per_client["burst"] or per_client["rate"], per_client["prefix"] or whole
        ),
        "max_connections_per_client": limit and ConnectionsPerClient(limit["limit"], limit["prefix"] or whole),
    }
