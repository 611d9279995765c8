# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Strategies of hypothesis for configurations, with few names, addresses and ports so that they often overlap."""

from __future__ import annotations

from typing import Any

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.address import family
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.options import (
    AFFINITIES,
    HASH_SCHEDULERS,
    PROTOCOLS,
    SCHEDULERS,
    SNATS,
    TRACKING_MODES,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.ports import PortRange, parse_ports
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.source_ranges import sort_key
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP, VIP6, backend, document, listener
from hypothesis import strategies as st

_POOLS = {
    "4": [f"198.19.0.{number}" for number in range(1, 5)],
    "6": [f"2001:db8:1::{number}" for number in range(1, 4)],
}
_RANGES = {
    "4": ["0.0.0.0/0", "198.18.0.0/24", "198.18.0.0/25", "198.18.0.128/25", "198.18.1.0/24", "198.18.3.7/32"],
    "6": ["::/0", "2001:db8::/64", "2001:db8::1/128", "2001:db8:0:1::/64", "::ffff:0.0.0.0/96"],
}
_WEIGHTS = st.sampled_from([0, 1, 2, 3, 100])


_PORTS = [["53"], ["80"], ["443"], ["53", "80"], ["443", "8000-8999"], ["80-90"], ["all"]]


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Draw a valid configuration of up to four listeners."""
    served: list[tuple[str, str, PortRange]] = []
    listeners = []
    for name in draw(st.lists(st.sampled_from(["api", "dns", "mail", "web"]), unique=True)):
        options = draw(_options())
        address, protocol, ports = options["address"], options["protocol"], parse_ports(options["ports"])
        if any(
            (address, protocol) == earlier[:2]
            and port_range.first <= earlier[2].last
            and earlier[2].first <= port_range.last
            for port_range in ports
            for earlier in served
        ):
            continue
        served.extend((address, protocol, port_range) for port_range in ports)
        listeners.append(
            listener(name, *draw(_backends(address, all(port_range.is_single for port_range in ports))), **options)
        )
    return document(*listeners)


@st.composite
def _options(draw: st.DrawFn) -> dict[str, Any]:
    scheduler = draw(st.sampled_from(SCHEDULERS))
    protocol = draw(st.sampled_from(PROTOCOLS))
    tracking = draw(st.sampled_from(TRACKING_MODES))
    affinities = AFFINITIES if scheduler in HASH_SCHEDULERS or tracking == "per_session" else ("none",)
    address = draw(st.sampled_from([VIP, "198.18.0.11", VIP6]))
    ranges = st.lists(st.sampled_from(_RANGES[family(address)]), unique=True, max_size=4)
    rate = {"rate": draw(st.sampled_from([1, 100])), "burst": draw(st.sampled_from([None, 1, 1000]))}
    prefix = {"prefix": draw(st.sampled_from([None, 24]))}
    return {
        "address": address,
        "protocol": protocol,
        "ports": ["all"] if protocol == "any" else draw(st.sampled_from(_PORTS)),
        "admin_state": draw(st.sampled_from(["enabled", "enabled", "disabled"])),
        "scheduler": scheduler,
        "session_affinity": draw(st.sampled_from(affinities)),
        "tracking_mode": tracking,
        "idle_timeout_sec": draw(st.sampled_from([None, 60, 600])),
        "max_connections": draw(st.sampled_from([0, 0, 5])),
        "source_ranges": sorted(draw(ranges), key=sort_key),
        "max_connection_rate": draw(st.sampled_from([None, rate])),
        "max_connection_rate_per_client": draw(st.sampled_from([None, {**rate, **prefix}])),
        "max_connections_per_client": draw(st.sampled_from([None, {"limit": 5, **prefix}])),
        "snat": draw(st.sampled_from(SNATS)),
        "log_config": {"enable": draw(st.booleans()), "sample_rate": draw(st.sampled_from([0.0, 0.25, 1.0]))},
    }


@st.composite
def _backends(draw: st.DrawFn, vip: str, with_ports: bool) -> list[dict[str, Any]]:
    ports = [0, 80, 8080] if with_ports else [0]
    keys = st.tuples(st.sampled_from(_POOLS[family(vip)]), st.sampled_from(ports))
    return [
        backend(
            address,
            port,
            weight=draw(_WEIGHTS),
            capacity_scaler=draw(st.sampled_from([0.1, 0.5, 1.0])),
            admin_state=draw(st.sampled_from(["enabled", "enabled", "drained"])),
            max_connections=draw(st.sampled_from([0, 0, 2])),
        )
        for address, port in draw(st.lists(keys, unique=True, max_size=5))
    ]
