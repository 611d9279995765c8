# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 17 and 19 to 21: which flows of a client reach the same backend, and for how long."""

from __future__ import annotations

import json
import time
from typing import Any, Literal

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import FAMILIES, agent_stopped, forget_flows, listener, target, vip, wait_for_connections
from lab.topology import CLIENT_MORE_HOSTS, FRONT
from lab.traffic import Flow, failures, finish, run_tuples, start_load
from lab.waiting import wait_until


@pytest.mark.parametrize("family", FAMILIES)
def test_row_17_sh_dh(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 17: with sh a source keeps its backend over many ports, with dh a destination over many sources."""
    fleet.configure(
        [
            listener(lab, "source", family, 17, scheduler="sh"),
            *(listener(lab, f"destination{host}", family, host, scheduler="dh") for host in range(170, 182)),
        ]
    )
    lab.route("lb1")
    by_source = _backends(
        client,
        [("tcp", source, port, vip(family, 17), 80) for source in _sources(family) for port in range(21000, 21012)],
        key=1,
    )
    assert all(len(backends) == 1 for backends in by_source.values())
    assert len(set.union(*by_source.values())) > 1
    by_destination = _backends(
        client,
        [
            ("tcp", source, 22000 + host, vip(family, host), 80)
            for source in _sources(family)
            for host in range(170, 182)
        ],
        key=3,
    )
    assert all(len(backends) == 1 for backends in by_destination.values())
    assert len(set.union(*by_destination.values())) > 1


@pytest.mark.parametrize(
    ("affinity", "protocols_meet", "vips_meet", "ports_meet"),
    [
        ("none", False, False, False),
        ("client_ip_port_proto", False, False, False),
        ("client_ip_proto", False, False, True),
        ("client_ip", True, False, True),
        ("client_ip_no_destination", True, True, True),
    ],
)
@pytest.mark.parametrize("tracking", ["per_connection", "per_session"])
def test_row_19_affinity(
    fleet: Fleet,
    lab: Lab,
    client: Node,
    affinity: str,
    tracking: str,
    protocols_meet: bool,
    vips_meet: bool,
    ports_meet: bool,
) -> None:
    """Row 19: which flows of a client reach the same backend, and which may reach different ones."""
    options: dict[str, Any] = {"session_affinity": affinity, "tracking_mode": tracking, "port": 8080}
    fleet.configure(
        [
            entry
            for family in FAMILIES
            for entry in (
                listener(lab, f"one{family}", family, 190, **options),
                listener(lab, f"two{family}", family, 191, **options),
                listener(lab, f"dns{family}", family, 190, protocol="udp", ports=[53], **{**options, "port": 8053}),
            )
        ]
    )
    lab.route("lb1")
    forget_flows(lab)
    for family in FAMILIES:
        first, second = vip(family, 190), vip(family, 191)
        ways: tuple[tuple[Literal["tcp", "udp"], str], ...] = (("tcp", first), ("tcp", second), ("udp", first))
        flows: list[Flow] = [
            (protocol, source, port, address, 53 if protocol == "udp" else 80)
            for source in _sources(family)
            for port in range(24000, 24006)
            for protocol, address in ways
        ]
        backend_of = {flow: record.backend for flow, record in zip(flows, _send(client, flows))}

        def met(*kinds: tuple[str, str], backend_of: dict[Flow, str | None] = backend_of) -> bool:
            by_source: dict[str, set[str | None]] = {}
            for (protocol, source, _port, address, _to), backend in backend_of.items():
                if (protocol, address) in kinds:
                    by_source.setdefault(source, set()).add(backend)
            return all(len(backends) == 1 for backends in by_source.values())

        assert met(("tcp", first)) is ports_meet
        assert met(("tcp", first), ("udp", first)) is protocols_meet
        assert met(("tcp", first), ("tcp", second)) is vips_meet


@pytest.mark.nft
@pytest.mark.parametrize("family", FAMILIES)
def test_row_20_sessions(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 20: per_session: clients with a session keep it when a backend is added; removal moves only its clients."""

    def listeners(*weights: int) -> list[dict[str, Any]]:
        return [
            listener(
                lab,
                "web",
                family,
                20,
                scheduler="wrr",
                tracking_mode="per_session",
                session_affinity="client_ip",
                weights=weights,
            )
        ]

    def backends(port: int) -> list[str | None]:
        flows: list[Flow] = [("tcp", source, port, vip(family, 20), 80) for source in _sources(family)]
        return [record.backend for record in _send(client, flows)]

    fleet.configure(listeners(1, 1))
    lab.route("lb1")
    first = backends(25000)
    assert set(first) == {"b1", "b2"}
    fleet.configure(listeners(1, 1, 1))
    assert backends(25001) == first
    fleet.configure(listeners(0, 1, 1))
    moved = backends(25002)
    assert "b1" not in moved
    assert [new for old, new in zip(first, moved) if old == "b2"] == ["b2"] * first.count("b2")
    # A table that is rebuilt after it was lost has no sessions; a table that replaces other rules keeps them.
    node = lab.node("lb1")
    with agent_stopped(node):
        node.run(["nft", "insert", "rule", "inet", "evenflow", "dispatch", "counter"])
        assert "delete table inet evenflow" in fleet.module("lb1", "lb_config", listeners=[])["commands"]
    fleet.configure(listeners(1, 1, 1))
    assert backends(25003) == moved


@pytest.mark.nft
def test_row_20_idle_sessions(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 20: a session ends after its idle timeout; traffic of an old flow keeps it."""
    fleet.configure(
        [
            listener(
                lab,
                f"stream{family}",
                family,
                22,
                ports=[80],
                port=7000,
                scheduler="wrr",
                tracking_mode="per_session",
                session_affinity="client_ip",
                idle_timeout_sec=60,
            )
            for family in FAMILIES
        ]
    )
    lab.route("lb1")
    targets = [target(vip(family, 22), 80) for family in FAMILIES]
    held = start_load(client, "stream", targets, count=2)
    for family in FAMILIES:
        flows: list[Flow] = [("tcp", source, 26000, vip(family, 22), 80) for source in _sources(family)]
        # The stream service gives no HTTP answer, but the flow is enough here.
        run_tuples(client, flows)
    counted = [_sessions(lab, f"stream{family}") for family in FAMILIES]
    assert counted == [1 + len(CLIENT_MORE_HOSTS)] * 2
    # Wait for the idle timeout of the sessions and a little longer.
    time.sleep(64)
    assert [_sessions(lab, f"stream{family}") for family in FAMILIES] == [1, 1]
    assert not failures(finish(held))


@pytest.mark.nft
@pytest.mark.parametrize("family", FAMILIES)
def test_row_20_half_open_sessions(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 20: sessions that forged SYNs make are gone soon; one whose flow was established stays."""
    fleet.configure([listener(lab, f"web{family}", family, 23, scheduler="wrr", tracking_mode="per_session")])
    lab.route("lb1")
    address = vip(family, 23)
    established: list[Flow] = [("tcp", source, 27000, address, 80) for source in _sources(family)]
    assert all(record.ok for record in run_tuples(client, established))
    network = FRONT.prefix6 if family == 6 else FRONT.prefix4
    client.run(["python3", "/opt/lab/attack.py", "syn", network, address, "80", "1000"])
    assert _sessions(lab, f"web{family}") > 500
    wait_until(
        lambda: _sessions(lab, f"web{family}"), "no forged session", accepts=lambda seen: seen <= len(established)
    )
    assert _sessions(lab, f"web{family}") == len(established)


@pytest.mark.parametrize(
    ("scheduler", "tracking"),
    [
        ("mh", "per_connection"),
        ("wrr", "per_session"),
        ("wrr", "per_connection"),
    ],
)
def test_row_21_mid_stream(fleet: Fleet, lab: Lab, client: Node, scheduler: str, tracking: str) -> None:
    """Row 21: a flow whose entry is lost continues with mh or a session; otherwise it may be reset, but never hangs."""
    affinity = "client_ip" if tracking == "per_session" else "none"
    fleet.configure(
        [
            listener(
                lab,
                f"stream{family}",
                family,
                21,
                ports=[80],
                port=7000,
                scheduler=scheduler,
                tracking_mode=tracking,
                session_affinity=affinity,
            )
            for family in FAMILIES
        ]
    )
    lab.route("lb1")
    streams = start_load(client, "stream", [target(vip(family, 21), 80) for family in FAMILIES], count=40)
    wait_for_connections(client, 80, 40)
    for family in FAMILIES:
        lab.node("lb1").run(["conntrack", "-D", "-f", f"ipv{family}", "-p", "tcp", "--dport", "80"])
    held = [record for record in finish(streams) if record.kind == "stream"]
    assert len(held) == 40
    if scheduler == "mh" or tracking == "per_session":
        assert not failures(held), failures(held)[:3]
    else:
        assert {record.error for record in failures(held)} == {"Connection reset by peer"}


def _sources(family: int) -> list[str]:
    return [FRONT.v6(host) if family == 6 else FRONT.v4(host) for host in CLIENT_MORE_HOSTS]


def _send(client: Node, flows: list[Flow]) -> list[Any]:
    """Send the flows and return their records in the same order."""
    records = run_tuples(client, flows)
    assert not failures(records), failures(records)[:3]
    kinds = {"http": "tcp"}
    by_tuple = {
        (kinds.get(record.kind, record.kind), record.source, record.sport, record.target): record for record in records
    }
    return [by_tuple[(*flow[:3], target(flow[3], flow[4]))] for flow in flows]


def _backends(client: Node, flows: list[Flow], key: int) -> dict[Any, set[str]]:
    """Send the flows and return the backends that each value of one field of the tuple reached."""
    backends: dict[Any, set[str]] = {}
    for flow, record in zip(flows, _send(client, flows)):
        backends.setdefault(flow[key], set()).add(record.backend)
    return backends


def _sessions(lab: Lab, name: str) -> int:
    """Return the number of sessions of a listener on lb1."""
    listed = json.loads(lab.node("lb1").run(["nft", "-j", "list", "map", "inet", "evenflow", f"sess_{name}"]).stdout)
    return sum(len(entry.get("map", {}).get("elem", ())) for entry in listed["nftables"])
