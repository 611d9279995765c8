# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The networks of a lab: a namespace with the bridges, and a veth pair for every interface of a node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from .process import enter, run
from .topology import BACK, FRONT, NETWORKS, VIP_PREFIX4, VIP_PREFIX6, NodeSpec, Topology

Via = Literal["lb1", "lb2", "both"]

# Marks and routing tables on backends, a pair for each load balancer.
_MARKS = {"lb1": 1, "lb2": 2}
_FIRST_TABLE = 100

# The client's routing table for every second flow.
_HALF_TABLE = 200


def create_bridges(namespace: str) -> None:
    """Make the namespace and its bridges."""
    run(["ip", "netns", "add", namespace])
    run(
        [
            "ip",
            "netns",
            "exec",
            namespace,
            "sysctl",
            "-qw",
            "net.ipv6.conf.default.disable_ipv6=1",
            "net.ipv6.conf.all.disable_ipv6=1",
        ]
    )
    lines = ["link set lo up"]
    for network in NETWORKS:
        lines.append(f"link add {network.name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        lines.append(f"link set {network.name} up")
    _batch(["ip", "-n", namespace], lines)


def remove_bridges(namespace: str) -> None:
    """Remove the namespace with the bridges, if it exists."""
    if has_bridges(namespace):
        run(["ip", "netns", "del", namespace])


def has_bridges(namespace: str) -> bool:
    return Path("/run/netns", namespace).exists()


def plug(namespace: str, spec: NodeSpec, pid: int, topology: Topology) -> None:
    """Set up the network of process `pid`, which must have no interface yet, as `spec` describes it."""
    run(enter(pid, ["sysctl", "-qw", *_sysctls(spec)], only_network=True))
    _batch(["ip", "-n", namespace], _wires(spec, pid))
    _batch(enter(pid, ["ip"], only_network=True), _addresses(spec))
    if spec.kind == "backend":
        _batch(enter(pid, ["ip"], only_network=True), _answer_routes(topology, 4))
        _batch(enter(pid, ["ip", "-6"], only_network=True), _answer_routes(topology, 6))
        run(enter(pid, ["nft", "-f", "-"], only_network=True), input=answer_ruleset(topology))
    if spec.kind == "client":
        for command in (["ip"], ["ip", "-6"]):
            _batch(enter(pid, command, only_network=True), [f"rule add fwmark 1 lookup {_HALF_TABLE}"])
        route_vips(pid, topology, "both")
        run(enter(pid, ["nft", "-f", "-"], only_network=True), input=halves_ruleset())


def route_vips(client_pid: int, topology: Topology, via: Via) -> None:
    """Set the load balancers through which the client reaches the routed VIP prefixes."""
    names = ("lb1", "lb2") if via == "both" else (via, via)
    nics = [topology.node(name).nic(FRONT) for name in names]
    for command, prefix, gateways in (
        (["ip"], VIP_PREFIX4, [nic.v4 for nic in nics]),
        (["ip", "-6"], VIP_PREFIX6, [nic.v6 for nic in nics]),
    ):
        _batch(
            enter(client_pid, command, only_network=True),
            [
                f"route replace {prefix} via {gateways[0]} dev {FRONT.name}",
                f"route replace {prefix} via {gateways[1]} dev {FRONT.name} table {_HALF_TABLE}",
            ],
        )


def halves_ruleset() -> str:
    """Return the client's nftables table, by which half of the flows take the second route, with all their packets.

    A router would do this by its multipath hash. On a Linux host with two next hops (seen with 6.18) the last ACK of a
    flow, which a timewait socket sends, may go the other way: the backend never sees it.
    """
    rules = [
        f"    {ip} daddr {prefix} meta l4proto {{ tcp, udp, sctp }} "
        f"meta mark set jhash {ip} saddr . {ip} daddr . meta l4proto . th sport . th dport mod 2"
        for ip, prefix in (("ip", VIP_PREFIX4), ("ip6", VIP_PREFIX6))
    ]
    return "\n".join(
        [
            "table inet lab {",
            "  chain halve {",
            "    type route hook output priority mangle;",
            *rules,
            "  }",
            "}",
            "",
        ]
    )


def answer_ruleset(topology: Topology) -> str:
    """Return the backend's nftables table, by which an answer leaves through the node whose packet came last."""
    remember = [
        f'    iifname "{BACK.name}" ether saddr {topology.node(name).nic(BACK).mac} ct direction original '
        f"ct mark set {mark}"
        for name, mark in _MARKS.items()
    ]
    recall = [f"    ct direction reply ct mark {mark} meta mark set {mark}" for mark in _MARKS.values()]
    return "\n".join(
        [
            "table inet lab {",
            "  chain remember {",
            "    type filter hook prerouting priority mangle;",
            *remember,
            "  }",
            "  chain recall {",
            "    type route hook output priority mangle;",
            *recall,
            "  }",
            "}",
            "",
        ]
    )


def _sysctls(spec: NodeSpec) -> list[str]:
    # without duplicate address detection an address works at once; the lab's addresses are unique
    settings = [
        "net.ipv6.conf.all.accept_dad=0",
        "net.ipv6.conf.default.accept_dad=0",
        "net.ipv6.conf.default.accept_ra=0",
        "net.ipv6.conf.default.router_solicitations=0",
    ]
    if spec.kind == "client":
        # Tests choose ports of this range; a port that a flow has just used cannot be bound for a minute.
        settings += ["net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.ip_local_reserved_ports=20000-29999"]
    return settings


def _wires(spec: NodeSpec, pid: int) -> list[str]:
    lines = []
    for nic in spec.nics:
        plugged = f"{spec.name}-{nic.network.name}"
        lines.append(f"link add {plugged} type veth peer name {nic.network.name} address {nic.mac} netns {pid}")
        lines.append(f"link set {plugged} master {nic.network.name} up")
    return lines


def _addresses(spec: NodeSpec) -> list[str]:
    lines = ["link set lo up"]
    for nic in spec.nics:
        device = nic.network.name
        lines.append(f"link set {device} up")
        lines.append(f"addr add {nic.v4}/24 dev {device}")
        lines.append(f"addr add {nic.v6}/64 dev {device} nodad")
        for host in nic.more_hosts:
            lines.append(f"addr add {nic.network.v4(host)}/24 dev {device}")
            # preferred 0: only programs that bind to it use it
            lines.append(f"addr add {nic.network.v6(host)}/64 dev {device} nodad preferred_lft 0")
    return lines


def _answer_routes(topology: Topology, family: Literal[4, 6]) -> list[str]:
    def gateway(name: str) -> str:
        nic = topology.node(name).nic(BACK)
        return nic.v4 if family == 4 else nic.v6

    # a reply is routed once before its mark is known, so there has to be a default
    lines = [f"route add default via {gateway('lb1')} dev {BACK.name}"]
    for name, mark in _MARKS.items():
        table = _FIRST_TABLE + mark
        lines.append(f"route add default via {gateway(name)} dev {BACK.name} table {table}")
        lines.append(f"rule add fwmark {mark} lookup {table} priority {table}")
    return lines


def _batch(command: Sequence[str], lines: Sequence[str]) -> None:
    """Run one `ip` program with many lines, up to the first that fails."""
    run([*command, "-batch", "-"], input="\n".join(lines) + "\n")
