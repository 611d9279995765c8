# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab as data: networks, nodes, addresses. This module does not change the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["lb", "backend", "client"]

MIN_BACKENDS, MAX_BACKENDS = 1, 6
SUITES = ("bookworm", "trixie")


@dataclass(frozen=True)
class Network:
    """A layer-2 segment with IPv4 and IPv6. Interfaces on it have its name."""

    name: str
    number: int
    prefix4: str
    prefix6: str

    def v4(self, host: int) -> str:
        """Return the IPv4 address of host number `host`, without a prefix length."""
        return f"198.18.{self.number}.{host}"

    def v6(self, host: int) -> str:
        """Return the IPv6 address whose last group reads like the decimal `host`, without a prefix length."""
        middle = f":{self.number}" if self.number else ""
        return f"2001:db8{middle}::{host}"


@dataclass(frozen=True)
class Nic:
    """One interface of a node."""

    network: Network
    host: int
    mac: str
    more_hosts: tuple[int, ...] = ()

    @property
    def v4(self) -> str:
        return self.network.v4(self.host)

    @property
    def v6(self) -> str:
        return self.network.v6(self.host)


@dataclass(frozen=True)
class NodeSpec:
    """One machine of the lab."""

    name: str
    kind: Kind
    nics: tuple[Nic, ...]

    def nic(self, network: Network) -> Nic:
        """Return the interface on `network`. Raise KeyError if the node is not on it."""
        for nic in self.nics:
            if nic.network == network:
                return nic
        raise KeyError(f"{self.name} is not on {network.name}")


@dataclass(frozen=True)
class Topology:
    """All nodes of one lab."""

    nodes: tuple[NodeSpec, ...]

    def of_kind(self, kind: Kind) -> tuple[NodeSpec, ...]:
        return tuple(node for node in self.nodes if node.kind == kind)

    def node(self, name: str) -> NodeSpec:
        """Return the node called `name`. Raise KeyError with the names of all nodes if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(f"no node {name!r}; there are {', '.join(node.name for node in self.nodes)}")


FRONT = Network("front", 0, "198.18.0.0/24", "2001:db8::/64")
BACK = Network("back", 1, "198.18.1.0/24", "2001:db8:1::/64")
NETWORKS = (FRONT, BACK)

# Prefixes that are routed to the load balancers and never resolved by ARP, for vip_mode `none`.
VIP_PREFIX4 = "198.18.100.0/24"
VIP_PREFIX6 = "2001:db8:100::/64"

CLIENT_HOST = 10
CLIENT_MORE_HOSTS = tuple(range(11, 20))


def topology(backends: int = 3) -> Topology:
    """Return two load balancers, `backends` backends and a client. Raise ValueError outside the allowed number."""
    if not MIN_BACKENDS <= backends <= MAX_BACKENDS:
        raise ValueError(f"backends must be {MIN_BACKENDS} to {MAX_BACKENDS}, not {backends}")
    balancers = [NodeSpec(f"lb{n}", "lb", (_nic(FRONT, n), _nic(BACK, n))) for n in (1, 2)]
    servers = [NodeSpec(f"b{n}", "backend", (_nic(BACK, 10 + n),)) for n in range(1, backends + 1)]
    client = NodeSpec("c1", "client", (_nic(FRONT, CLIENT_HOST, CLIENT_MORE_HOSTS),))
    return Topology((*balancers, *servers, client))


def routed_vip4(host: int) -> str:
    """Return an IPv4 address inside the prefix that the client routes to the load balancers."""
    return f"198.18.100.{host}"


def routed_vip6(host: int) -> str:
    """Return an IPv6 address inside the prefix that the client routes to the load balancers."""
    return f"2001:db8:100::{host}"


def on_link_vip4(host: int) -> str:
    """Return an IPv4 address on the front network itself, for vip_mode `address`: host 200 to 254."""
    if not 200 <= host <= 254:
        raise ValueError(f"on-link VIPs are hosts 200 to 254, not {host}")
    return FRONT.v4(host)


def on_link_vip6(host: int) -> str:
    """Return an IPv6 address on the front network itself, for vip_mode `address`: host 200 to 254."""
    if not 200 <= host <= 254:
        raise ValueError(f"on-link VIPs are hosts 200 to 254, not {host}")
    return FRONT.v6(host)


def _nic(network: Network, host: int, more_hosts: tuple[int, ...] = ()) -> Nic:
    return Nic(network, host, f"02:00:c6:12:{network.number:02x}:{host:02x}", more_hosts)
