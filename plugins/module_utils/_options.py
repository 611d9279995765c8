# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of listeners and backends: one description for argument specs, validation and defaults."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any, Callable

from ._ports import parse_ports, written

SCHEDULERS = ("mh", "wrr", "rr", "wlc", "lc", "sh", "dh")
HASH_SCHEDULERS = ("mh", "sh", "dh")
"""Schedulers that choose by a hash of the packet, in a table of Maglev's."""
SHARE_SCHEDULERS = ("wlc", "lc")
"""Schedulers whose shares follow the number of active flows."""
EVEN_SCHEDULERS = ("rr", "lc")
"""Schedulers to which every weight above 0 is the same."""

PROTOCOLS = ("tcp", "udp", "sctp", "any")
AFFINITIES = ("none", "client_ip_port_proto", "client_ip_proto", "client_ip", "client_ip_no_destination")
LISTENER_ADMIN_STATES = ("enabled", "disabled")
TRACKING_MODES = ("per_connection", "per_session")
SNATS = ("none", "masquerade", "hairpin")
BACKEND_ADMIN_STATES = ("enabled", "drained", "disabled")
PERSISTENCES = ("default_for_protocol", "never_persist", "always_persist")
DRAIN_MODES = ("timed", "natural")
PROXY_HEADERS = ("none", "proxy_v1")
QUERY_TYPES = ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT")

CHECK_TYPES = ("tcp", "http", "https", "grpc", "dns", "udp", "ping", "script")
CHECK_OPTIONS = {
    "tcp": ("request", "response", "proxy_header"),
    "http": ("request_path", "host", "status", "response", "json_query", "proxy_header", "dynamic_weight"),
    "https": (
        *("request_path", "host", "status", "response", "json_query", "proxy_header", "dynamic_weight"),
        *("tls_verify", "ca_file"),
    ),
    "grpc": ("host", "grpc_service_name"),
    "dns": ("query", "query_type"),
    "udp": ("request", "response"),
    "ping": (),
    "script": ("command", "dynamic_weight"),
}
"""What each type of health check takes beside what all take."""
CHECKS_WITHOUT_PORT = ("ping", "script")
PURGES = ("none", "backends", "listeners", "all")

MAX_RING_SIZE = 65521
MAX_CONNECTIONS = 0x7FFFFFFF


class Refused(ValueError):
    """A value breaks its option's rule; the text says what is allowed, without the path."""


@dataclass(frozen=True)
class Option:
    """One option.

    :ivar type: ``str``, ``int``, ``float``, ``bool``, ``list`` or ``dict``, in the sense of an argument spec.
    :ivar default: the value in a new listener or backend; ``None`` where it is required or derived.
    :ivar choices: the allowed words; empty where there is no such list.
    :ivar hints: what to add to the refusal of a word that is a likely mistake.
    :ivar bounds: smallest and largest allowed number.
    :ivar elements: type of a list's elements.
    :ivar options: options of a dict; given as a whole, what is left out has its default. Where the default of the
        dict is ``None``, an empty one means that.
    :ivar required: a new listener or backend cannot be without it.
    :ivar check: brings a value into its canonical form or raises :class:`Refused`.
    """

    type: str
    default: Any = None
    choices: tuple[str, ...] = ()
    hints: dict[str, str] = field(default_factory=dict)
    bounds: tuple[int, int] | None = None
    elements: str | None = None
    options: dict[str, Option] = field(default_factory=dict)
    required: bool = False
    check: Callable[[Any], Any] | None = None

    def canonical(self, value: Any) -> Any:
        """Return the value in the one form in which it is stored and compared.

        :raises Refused: the value is not allowed.
        """
        if self.type == "int":
            value = _integer(value)
            if self.bounds and not self.bounds[0] <= value <= self.bounds[1]:
                raise Refused(f"{value} is not in {self.bounds[0]}–{self.bounds[1]}")
        elif self.type == "str":
            value = _text(value)
            if self.choices and value not in self.choices:
                raise Refused(f"{value!r} is not one of {', '.join(self.choices)}{self.hints.get(value, '')}")
        elif self.type == "float":
            value = _number(value)
        elif self.type == "bool":
            value = _truth(value)
        elif self.type == "dict":
            if not isinstance(value, dict):
                raise Refused(f"{_shown(value)} is not a dictionary")
        elif not isinstance(value, list):
            raise Refused(f"{_shown(value)} is not a list")
        return self.check(value) if self.check else value


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,12}", value, re.ASCII):
        return int(value)
    raise Refused(f"{_shown(value)} is not a whole number")


def _number(value: Any) -> float:
    if not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    raise Refused(f"{_shown(value)} is not a number")


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if str(value).lower() in words:
        return words[str(value).lower()]
    raise Refused(f"{_shown(value)} is not true or false")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Refused(f"{_shown(value)} is not text")


def listener_name(value: str) -> str:
    """Check an RFC 1035 label: 1 to 63 letters, digits and hyphens."""
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", value):
        raise Refused(
            f"{_shown(value)} is not a name: 1 to 63 of a-z, 0-9 and -, a letter first, no hyphen last (RFC 1035)"
        )
    if value == "all":
        raise Refused("'all' is not a name: it stands for every listener")
    return value


def backend_name(value: str) -> str:
    """Check a machine's name: what hosts are called in an inventory, or an address."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,252}", value):
        raise Refused(
            f"{_shown(value)} is not a name: 1 to 253 of letters, digits, '.', ':', '_' and '-', "
            "a letter, digit or '_' first"
        )
    return value


def description(value: str) -> str:
    """Check free text: one printable line."""
    if len(value) > 1024 or not value.isprintable():
        raise Refused(f"{_shown(value)} is not one line of at most 1024 printable characters")
    return value


def unicast_address(value: str) -> str:
    """Bring an IPv4 or IPv6 unicast address into its canonical text (RFC 5952)."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        address = None
    if (
        address is None
        or getattr(address, "scope_id", None)
        or address.is_unspecified
        or address.is_multicast
        or address.is_loopback
        or (address.version == 6 and (address.is_link_local or int(address) >> 32 in (0, 0xFFFF)))
        or (address.version == 4 and (int(address) >> 24 == 0 or int(address) == 0xFFFFFFFF))
    ):
        raise Refused(f"{_shown(value)} is not a unicast IPv4 or IPv6 address without prefix or zone")
    return str(address)


def machines(value: list[Any]) -> list[str]:
    """Check names and addresses of machines; addresses get their canonical text."""
    found = []
    for item in value:
        text = _text(item)
        try:
            found.append(unicast_address(text))
        except Refused:
            found.append(text)
    return list(dict.fromkeys(found))


def capacity_scaler(value: float) -> float:
    """Check a factor of a weight; thousandths are kept."""
    if value != 0 and not 0.1 <= value <= 1:
        raise Refused(f"{value:g} is not 0 or in 0.1–1.0")
    return round(value, 3)


def ratio(value: float) -> float:
    """Check a part of a whole; millionths are kept."""
    if not 0 <= value <= 1:
        raise Refused(f"{value:g} is not in 0–1")
    return round(value, 6)


def absolute_path(value: str) -> str:
    """Check the path of a file on the node."""
    if not re.fullmatch(r"/[^\x00-\x1f]{1,1023}", value):
        raise Refused(f"{_shown(value)} is not an absolute path")
    return value


def request_path(value: str) -> str:
    """Check what follows the host in a URL."""
    if not re.fullmatch(r"/[!-~]{0,2047}", value):
        raise Refused(f"{_shown(value)} is not a path: /, then at most 2047 printable ASCII characters without space")
    return value


def host_name(value: str) -> str:
    """Check a host's name, or an address, as a Host header and SNI take them."""
    if not re.fullmatch(r"([A-Za-z0-9_][-A-Za-z0-9_.:]{0,252})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?", value):
        raise Refused(f"{_shown(value)} is not a host name of at most 253 letters, digits, '-', '_' and '.'")
    return value


def payload(value: str) -> str:
    """Check what is sent to a server, or expected from it."""
    if len(value.encode("utf-8", "surrogatepass")) > 1024:
        raise Refused(f"{_shown(value)} is longer than 1024 bytes")
    return value


def domain_name(value: str) -> str:
    """Check a name to ask a DNS server for."""
    if not re.fullmatch(r"\.?|([A-Za-z0-9_-]{1,63}\.){0,126}[A-Za-z0-9_-]{1,63}\.?", value) or len(value) > 254:
        raise Refused(f"{_shown(value)} is not a domain name")
    return value


def service_name(value: str) -> str:
    """Check the name of a gRPC service."""
    if not re.fullmatch(r"[!-~]{0,255}", value):
        raise Refused(f"{_shown(value)} is not the name of a gRPC service: at most 255 printable ASCII characters")
    return value


def status_list(value: list[Any]) -> list[str]:
    """Bring HTTP status codes and ranges of them into ascending order, as text."""
    found = []
    for item in value:
        match = re.fullmatch(r"([0-9]{3})(?:-([0-9]{3}))?", str(item))
        if isinstance(item, bool) or not match:
            raise Refused(f"{item!r} is not a status code or a range a-b of them")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 100 <= first <= last <= 599:
            raise Refused(f"{item!r} is not in 100–599")
        found.append((first, last))
    if not found:
        raise Refused("[] is empty: give at least one status code or range")
    return [str(first) if first == last else f"{first}-{last}" for first, last in sorted(set(found))]


def json_query(value: str) -> str:
    """Check that an expression may be JMESPath; whether it is one shows where the library is."""
    if len(value) > 1024 or not value.isprintable():
        raise Refused(f"{_shown(value)} is not one line of at most 1024 printable characters")
    return value


def command(value: list[Any]) -> list[str]:
    """Check an argument list: a program by its absolute path, and its arguments."""
    found = [str(item) for item in value]
    if len(found) > 64 or any("\0" in item or len(item) > 4096 for item in found):
        raise Refused(f"{_shown(value)} is not a list of at most 64 arguments of at most 4096 characters")
    return [absolute_path(item) for item in found[:1]] + found[1:]


def port_list(value: list[Any]) -> list[str]:
    """Bring ports and ranges into ascending order, as text."""
    try:
        return written(parse_ports(value))
    except ValueError as error:
        raise Refused(str(error)) from error


def defaults(options: dict[str, Option]) -> dict[str, Any]:
    """Return the value of each option that is not given."""
    return {name: option.default for name, option in options.items()}


LOG_CONFIG = {
    "enable": Option("bool", default=False),
    "sample_rate": Option("float", default=1.0, check=ratio),
}

HEALTH_CHECK = {
    "type": Option("str", required=True, choices=CHECK_TYPES),
    "port": Option("int", default=0, bounds=(0, 65535)),
    "address": Option("str", check=unicast_address),
    "check_interval_sec": Option("int", default=5, bounds=(1, 300)),
    "timeout_sec": Option("int", default=5, bounds=(1, 300)),
    "healthy_threshold": Option("int", default=2, bounds=(1, 10)),
    "unhealthy_threshold": Option("int", default=2, bounds=(1, 10)),
    "request": Option("str", default="", check=payload),
    "response": Option("str", default="", check=payload),
    "request_path": Option("str", default="/", check=request_path),
    "host": Option("str", default="", check=host_name),
    "status": Option("list", default=["200"], elements="str", check=status_list),
    "json_query": Option("str", default="", check=json_query),
    "tls_verify": Option("bool", default=True),
    "ca_file": Option("str", check=absolute_path),
    "proxy_header": Option("str", default="none", choices=PROXY_HEADERS),
    "grpc_service_name": Option("str", default="", check=service_name),
    "query": Option("str", default="", check=domain_name),
    "query_type": Option("str", default="A", choices=QUERY_TYPES),
    "command": Option("list", default=[], elements="str", check=command),
    "dynamic_weight": Option("bool", default=False),
}

FAILOVER_POLICY = {
    "failover_ratio": Option("float", default=0.0, check=ratio),
    "drop_traffic_if_unhealthy": Option("bool", default=False),
    "disable_connection_drain_on_failover": Option("bool", default=False),
}

LISTENER = {
    "name": Option("str", required=True, check=listener_name),
    "description": Option("str", default="", check=description),
    "address": Option("str", required=True, check=unicast_address),
    "protocol": Option("str", required=True, choices=PROTOCOLS),
    "ports": Option("list", required=True, elements="str", check=port_list),
    "admin_state": Option("str", default="enabled", choices=LISTENER_ADMIN_STATES),
    "scheduler": Option("str", default="mh", choices=SCHEDULERS, hints={"wIc": "; its second letter is an l: wlc"}),
    "minimum_ring_size": Option("int", default=0, bounds=(0, MAX_RING_SIZE)),
    "session_affinity": Option("str", default="none", choices=AFFINITIES),
    "tracking_mode": Option("str", default="per_connection", choices=TRACKING_MODES),
    "idle_timeout_sec": Option("int", bounds=(60, 57600)),
    "connection_persistence_on_unhealthy_backends": Option("str", default="default_for_protocol", choices=PERSISTENCES),
    "connection_draining_timeout_sec": Option("int", default=300, bounds=(0, 3600)),
    "drain_mode": Option("str", default="timed", choices=DRAIN_MODES),
    "health_check": Option("dict", options=HEALTH_CHECK),
    "failover_policy": Option("dict", default=defaults(FAILOVER_POLICY), options=FAILOVER_POLICY),
    "max_connections": Option("int", default=0, bounds=(0, MAX_CONNECTIONS)),
    "slow_start_sec": Option("int", default=0, bounds=(0, 3600)),
    "snat": Option("str", default="none", choices=SNATS),
    "log_config": Option("dict", default=defaults(LOG_CONFIG), options=LOG_CONFIG),
}
"""A listener's options; ``backends`` is a list of :data:`BACKEND`."""

BACKEND = {
    "name": Option("str", check=backend_name),
    "address": Option("str", required=True, check=unicast_address),
    "port": Option("int", default=0, bounds=(0, 65535)),
    "weight": Option("int", default=100, bounds=(0, 65535)),
    "capacity_scaler": Option("float", default=1.0, check=capacity_scaler),
    "failover": Option("bool", default=False),
    "admin_state": Option("str", default="enabled", choices=BACKEND_ADMIN_STATES),
    "max_connections": Option("int", default=0, bounds=(0, MAX_CONNECTIONS)),
}
"""A registration's options. ``name`` is the address where it is not given."""


_LONGEST_WAIT = 7 * 24 * 3600

DRAIN = {
    "backends": Option("list", elements="str", required=True, check=machines),
    "listener": Option("list", elements="str", default=["all"]),
    "state": Option("str", default="drained", choices=("drained", "active")),
    "wait": Option("bool", default=True),
    "timeout": Option("int", bounds=(0, _LONGEST_WAIT)),
    "on_timeout": Option("str", default="terminate", choices=("terminate", "fail", "continue")),
    "max_connections": Option("int", default=0, bounds=(0, 2**31 - 1)),
    "poll_interval": Option("int", default=1, bounds=(1, 3600)),
    "progress_interval": Option("int", default=10, bounds=(0, 3600)),
    "min_eligible": Option("int", default=1, bounds=(0, 65535)),
    "out_elsewhere": Option("list", elements="str", default=[], check=machines),
    "not_found": Option("str", default="fail", choices=("fail", "ignore")),
}
"""Options of a drain."""


def argument_spec(options: dict[str, Option]) -> dict[str, dict[str, Any]]:
    """Describe options to Ansible.

    Defaults are left out: an option that a task does not name keeps its live value.
    """
    spec: dict[str, dict[str, Any]] = {}
    for name, option in options.items():
        entry: dict[str, Any] = {"type": option.type}
        if option.choices:
            entry["choices"] = list(option.choices)
        if option.elements:
            entry["elements"] = option.elements
        if option.required:
            entry["required"] = True
        if option.options:
            entry["options"] = argument_spec(option.options)
            if option.default is None:
                # An empty dict is allowed, so the library tells what is missing in another.
                for nested in entry["options"].values():
                    nested.pop("required", None)
        spec[name] = entry
    return spec
