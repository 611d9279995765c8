# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 7, 8, 12 to 15, 18 and 54: which backend a new flow gets, and what the backend sees of the client."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.model import Flow, Model
from lab.rows import FAMILIES, backend_address, forget_flows, listener, target, vip, wait_for_connections
from lab.topology import CLIENT_MORE_HOSTS, FRONT
from lab.traffic import Mode, Record, failures, finish, run_load, run_tuples, shares, start_load

# Chi-square above which p is below 0.001, by degrees of freedom.
CHI_SQUARE = {1: 10.828, 2: 13.816}


@pytest.mark.parametrize("family", FAMILIES)
def test_row_7_backend_sees_the_client(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 7: the client's address is seen by the backend, TCP and UDP, through both nodes."""
    fleet.configure(
        [
            listener(lab, "web", family, 7, ports=[80]),
            listener(lab, "dns", family, 7, protocol="udp", ports=[53], port=8053),
        ]
    )
    expected = client.spec.nic(FRONT).v6 if family == 6 else client.spec.nic(FRONT).v4
    # If the client uses a port for two VIPs, the kernel changes the port so that the backend can distinguish the flows.
    forget_flows(lab)
    for node in ("lb1", "lb2"):
        lab.route(node)
        modes: tuple[tuple[Mode, int], ...] = (("http", 80), ("udp", 53))
        for mode, port in modes:
            records = run_load(client, mode, [target(vip(family, 7), port)], count=60)
            assert not failures(records)
            assert {record.peer for record in records} == {expected}
            assert {record.backend for record in records} == {"b1", "b2", "b3"}
            assert all(record.peer_port == record.sport for record in records)


@pytest.mark.parametrize("family", FAMILIES)
def test_row_8_ports(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 8 (port 0, translation, lists): packets arrive at the right port; other ports are refused."""
    fleet.configure(
        [
            listener(lab, "kept", family, 8, ports=[80, 8080], port=0),
            listener(lab, "translated", family, 9, ports=[81, 443], port=8080),
        ]
    )
    lab.route("lb1")
    for host, port, arrives in ((8, 80, 80), (8, 8080, 8080), (9, 81, 8080), (9, 443, 8080)):
        answer = client.run(["curl", "-sS", "--max-time", "5", f"http://{target(vip(family, host), port)}/"])
        assert answer.stdout.split()[3] == str(arrives)
    for host, port in ((8, 79), (8, 81), (9, 80), (9, 8080)):
        refused = run_load(client, "http", [target(vip(family, host), port)], count=5)
        assert [record.error for record in refused] == ["Connection refused"] * 5


@pytest.mark.parametrize("family", FAMILIES)
def test_row_12_rr(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 12: 300 flows with rr: 100 each, whatever the weights above 0."""
    fleet.configure([listener(lab, "web", family, 12, scheduler="rr", weights=(3, 200, 65535))])
    lab.route("lb1")
    records = run_load(client, "http", [target(vip(family, 12), 80)], count=300)
    assert shares(records) == {"b1": 100, "b2": 100, "b3": 100}


@pytest.mark.parametrize("family", FAMILIES)
def test_row_13_wrr(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 13: 600 flows with wrr at 3:2:1: 300, 200 and 100 exactly, interleaved."""
    fleet.configure([listener(lab, "web", family, 13, scheduler="wrr", weights=(3, 2, 1))])
    lab.route("lb1")
    url = [target(vip(family, 13), 80)]
    in_turn = [record.backend for record in run_load(client, "http", url, count=60, concurrency=1)]
    assert Counter(in_turn) == {"b1": 30, "b2": 20, "b3": 10}
    assert in_turn[6:] == in_turn[:-6]
    assert all(len(set(in_turn[start : start + 3])) > 1 for start in range(58))
    assert shares(run_load(client, "http", url, count=540)) == {"b1": 270, "b2": 180, "b3": 90}


@pytest.mark.parametrize("family", FAMILIES)
def test_row_14_mh_shares(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 14: slots are within 1 of the ratio; 10,000 fixed flows match them; removing a backend moves few others."""
    dns = listener(lab, "dns", family, 14, protocol="udp", ports=[53], port=8053, weights=(3, 2, 1))
    fleet.configure([dns])
    lab.route("lb1")
    report = fleet.module("lb1", "lb_info", gather=["tables"])["listeners"][0]
    slots = {backend["name"]: backend["slots"] for backend in report["backends"]}
    size = report["table"]["size"]
    assert sum(slots.values()) == size == 1009
    for name, weight in (("b1", 3), ("b2", 2), ("b3", 1)):
        assert abs(slots[name] - size * weight / 6) < 1

    flows = _flows(client, family, "udp", vip(family, 14), 53, 10000)
    before = run_tuples(client, flows, concurrency=64)
    assert not failures(before)
    expected = {name: len(flows) * count / size for name, count in slots.items()}
    chi_square = sum((shares(before)[name] - due) ** 2 / due for name, due in expected.items())
    assert chi_square < CHI_SQUARE[2], (chi_square, shares(before), expected)

    fleet.configure([{**dns, "backends": dns["backends"][:2]}])
    forget_flows(lab)
    few = flows[:2000]
    after = run_tuples(client, few, concurrency=64)
    others = [(old, new) for old, new in zip(_by_flow(before, few), _by_flow(after, few)) if old != "b3"]
    moved = sum(old != new for old, new in others)
    assert moved < 0.05 * len(others), f"{moved} of {len(others)} moved"


@pytest.mark.parametrize(
    "affinity", ["none", "client_ip_port_proto", "client_ip_proto", "client_ip", "client_ip_no_destination"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_row_15_nodes_and_model_agree(fleet: Fleet, lab: Lab, client: Node, family: int, affinity: str) -> None:
    """Row 15: flows through lb1 and lb2 reach the same backends, which the model of the slot table predicts."""
    fleet.configure(
        [
            listener(lab, "web", family, 15, weights=(5, 3, 2), session_affinity=affinity),
            listener(
                lab,
                "dns",
                family,
                15,
                protocol="udp",
                ports=[53],
                port=8053,
                weights=(5, 3, 2),
                session_affinity=affinity,
            ),
        ]
    )
    address = vip(family, 15)
    count = 500 if affinity == "none" else 100
    flows = _flows(client, family, "udp", address, 53, count) + _flows(client, family, "tcp", address, 80, count)
    model = Model(document(fleet), fleet_seed(lab))
    names = {backend_address(lab, name, family): name for name in ("b1", "b2", "b3")}
    expected = [names[model.backend(Flow(*flow))] for flow in flows]
    for node in ("lb1", "lb2"):
        forget_flows(lab)
        lab.route(node)
        records = run_tuples(client, flows)
        assert not failures(records)
        assert _by_flow(records, flows) == expected
    if affinity == "none":
        assert set(expected) == {"b1", "b2", "b3"}
    digests = {fleet.module(node, "lb_info")["table_digest"] for node in ("lb1", "lb2")}
    assert len(digests) == 1


@pytest.mark.parametrize("scheduler", ["wrr", "mh"])
def test_row_18_weight_change(fleet: Fleet, lab: Lab, client: Node, scheduler: str) -> None:
    """Row 18: live flows stay when weights change, and new flows follow the new ratio."""
    listeners = [
        listener(lab, f"{kind}{family}", family, 18, scheduler=scheduler, ports=[port], weights=(1, 1, 1))
        for family in FAMILIES
        for kind, port in (("web", 80), ("stream", 7000))
    ]
    fleet.configure(listeners)
    lab.route("lb1")
    streams = start_load(client, "stream", [target(vip(family, 18), 7000) for family in FAMILIES], count=60)
    wait_for_connections(client, 7000, 60)
    for entry in listeners:
        entry["backends"][0]["weight"], entry["backends"][2]["weight"] = 4, 0
    fleet.configure(listeners)
    for family in FAMILIES:
        records = run_load(client, "http", [target(vip(family, 18), 80)], count=500)
        assert not failures(records)
        if scheduler == "wrr":
            assert shares(records) == {"b1": 400, "b2": 100}
        else:
            due = {"b1": 400.0, "b2": 100.0}
            assert set(shares(records)) == set(due)
            assert sum((shares(records)[name] - count) ** 2 / count for name, count in due.items()) < CHI_SQUARE[1]
    held = [record for record in finish(streams) if record.kind == "stream"]
    assert len(held) == 60
    assert not failures(held)
    assert {record.backend for record in held} == {"b1", "b2", "b3"}


@pytest.mark.parametrize("scheduler", ["wrr", "mh"])
def test_row_54_smallest_weight(fleet: Fleet, lab: Lab, client: Node, scheduler: str) -> None:
    """Row 54: weight 1 beside 65535: both have at least one slot, and the error is reported."""
    fleet.configure([listener(lab, "web", 4, 54, scheduler=scheduler, weights=(1, 65535))])
    lab.route("lb1")
    report = fleet.module("lb1", "lb_info", gather=["tables"])["listeners"][0]
    slots = {backend["name"]: backend["slots"] for backend in report["backends"]}
    assert slots["b1"] >= 1
    exact = report["table"]["size"] / 65536
    assert report["table"]["worst_error_slots"] == pytest.approx(abs(slots["b1"] - exact), abs=1e-5)
    assert not failures(run_load(client, "http", [target(vip(4, 54), 80)], count=50))


def _flows(client: Node, family: int, protocol: str, address: str, port: int, count: int) -> list[Any]:
    """Return distinct tuples, a fixed random choice over all addresses of the client."""
    nic = client.spec.nic(FRONT)
    hosts = (nic.host, *CLIENT_MORE_HOSTS)
    sources = [FRONT.v6(host) if family == 6 else FRONT.v4(host) for host in hosts]
    choice = random.Random(f"{family} {protocol} {count}")
    pairs = choice.sample([(source, sport) for source in sources for sport in range(20000, 30000)], count)
    return [(protocol, source, sport, address, port) for source, sport in pairs]


def _by_flow(records: list[Record], flows: list[Any]) -> list[str | None]:
    """Return the backends in the order of the flows; records are in the order of their answers."""
    kinds = {"http": "tcp"}
    by_tuple = {
        (kinds.get(record.kind, record.kind), record.source, record.sport): record.backend for record in records
    }
    return [by_tuple[flow[:3]] for flow in flows]


def fleet_seed(lab: Lab) -> int:
    """Return the seed that the role has made for the fleet."""
    seed: int = json.loads(lab.node("lb1").get("/etc/evenflow/node.json"))["hash_seed"]
    return seed


def document(fleet: Fleet) -> dict[str, Any]:
    """Return the configuration of lb1 as it is stored."""
    listeners = fleet.module("lb1", "lb_info", gather=["config"])["listeners"]
    drop = {"id", "status"}
    for entry in listeners:
        entry["backends"] = [{k: v for k, v in backend.items() if k not in drop} for backend in entry["backends"]]
    return {entry["name"]: entry for entry in listeners}
