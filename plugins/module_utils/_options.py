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
BACKEND_ADMIN_STATES = ("enabled", "drained")
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
    :ivar options: options of a dict; given as a whole, what is left out has its default.
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


def capacity_scaler(value: float) -> float:
    """Check a factor of a weight; thousandths are kept."""
    if value != 0 and not 0.1 <= value <= 1:
        raise Refused(f"{value:g} is not 0 or in 0.1–1.0")
    return round(value, 3)


def sample_rate(value: float) -> float:
    """Check a part of all flows; millionths are kept."""
    if not 0 <= value <= 1:
        raise Refused(f"{value:g} is not in 0–1")
    return round(value, 6)


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
    "sample_rate": Option("float", default=1.0, check=sample_rate),
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
    "max_connections": Option("int", default=0, bounds=(0, MAX_CONNECTIONS)),
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
    "admin_state": Option("str", default="enabled", choices=BACKEND_ADMIN_STATES),
    "max_connections": Option("int", default=0, bounds=(0, MAX_CONNECTIONS)),
}
"""A registration's options. ``name`` is the address where it is not given."""


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
        spec[name] = entry
    return spec
