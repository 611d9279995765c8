# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 41, 46 and 52, and VIPs on an interface: traffic during changes and reboots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import (
    FAMILIES,
    agent_stopped,
    backend_address,
    forget_removed,
    leaked,
    listener,
    put_library,
    target,
    vip,
    wait_for_connections,
)
from lab.steady import SteadyLoad
from lab.topology import on_link_vip4, on_link_vip6
from lab.traffic import failures, finish, run_load, shares, start_load, wait_for_answers
from lab.waiting import wait_until


@pytest.fixture
def vips_on_interfaces(fleet: Fleet) -> Iterator[Any]:
    """Yield a function that deploys listeners with their VIPs on a node's front interface, and undo it at the end."""

    def deploy(listeners: list[dict[str, Any]], *nodes: str, mode: str = "address") -> None:
        fleet.deploy(
            listeners,
            nodes,
            tags=["configure", "listeners"],
            lb_node_purge="all",
            lb_node_vip_mode=mode,
            lb_node_vip_interface="front",
        )

    yield deploy
    deploy([], "lb1", "lb2", mode="none")


def test_row_41_slot_changes(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 41 (slots): 150 changes under load: 0 failed requests."""
    fleet.configure(
        [
            listener(lab, f"{scheduler}{family}", family, host, scheduler=scheduler, weights=(2, 4, 1))
            for scheduler, host in (("wrr", 41), ("mh", 42))
            for family in FAMILIES
        ]
    )
    lab.route("lb1")
    node = lab.node("lb1")
    library = put_library(node)
    targets = [target(vip(family, host), 80) for host in (41, 42) for family in FAMILIES]
    with SteadyLoad(client, targets, rate=100) as load:
        changed = node.run(["python3", "/opt/lab/changes.py", library, "150", "0.1"], timeout=900)
        records = load.end(least=1000)
    # Neighbouring weights differ, so each change was one transaction.
    assert int(changed.stdout) == 150
    assert not failures(records), failures(records)[:5]
    assert set(shares(records)) == {"b1", "b2", "b3"}


@pytest.mark.nft
def test_row_41_table_replacements(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 41 (whole tables): 100 replacements by rules of another version under load: 0 failed requests."""
    options: dict[str, Any] = {"tracking_mode": "per_session", "session_affinity": "client_ip"}
    fleet.configure(
        [
            listener(lab, f"{name}{family}", family, host, scheduler="wrr", **more)
            for name, host, more in (("web", 43, {}), ("known", 44, options))
            for family in FAMILIES
        ]
    )
    lab.route("lb1")
    node = lab.node("lb1")
    targets = [target(vip(family, host), 80) for host in (43, 44) for family in FAMILIES]
    sessions = run_load(client, "http", targets[2:], count=2)
    arguments = ["python3", "/opt/lab/changes.py", put_library(node), "100", "0.1", "--tables"]
    # The agent would replace the table too, for its version of the rules.
    with agent_stopped(node), SteadyLoad(client, targets, rate=100) as load:
        changed = node.run(arguments, timeout=900)
        records = load.end(least=1000)
        assert fleet.module("lb1", "lb_config", listeners=[])["changed"] is True
    assert int(changed.stdout) == 100
    assert not failures(records), failures(records)[:5]
    for session in sessions:
        assert {record.backend for record in records if record.target == session.target} == {session.backend}
    assert fleet.module("lb1", "lb_config", listeners=[])["changed"] is False


def test_row_41_first_datagrams(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 41: replacements of the table lose no datagram, and no first packet meets the rules of neither table."""
    replace_under_datagrams(fleet, lab, client, replacements=100, rate=3000)


def replace_under_datagrams(fleet: Fleet, lab: Lab, client: Node, *, replacements: int, rate: int) -> None:
    """Replace the whole table under first datagrams, and assert that each is answered."""
    fleet.configure(
        [
            listener(lab, f"dns{family}", family, 45, protocol="udp", ports=[53], port=8053, scheduler="wrr")
            for family in FAMILIES
        ]
    )
    lab.route("lb1")
    node = lab.node("lb1")
    arguments = ["python3", "/opt/lab/changes.py", put_library(node), str(replacements), "0", "--tables"]
    with agent_stopped(node):
        load = start_load(client, "udp", [target(vip(family, 45), 53) for family in FAMILIES], rate=rate, timeout=60)
        wait_for_answers(load, 1)
        changed = node.run(arguments, timeout=1200)
        records = finish(load)
        fleet.module("lb1", "lb_config", listeners=[])
    assert int(changed.stdout) == replacements
    print(f"{replacements} replacements, {len(records)} first datagrams, {len(failures(records))} lost")
    assert not failures(records), failures(records)[:5]


@pytest.mark.nft
def test_a_module_run_restores_a_lost_table(fleet: Fleet, lab: Lab, client: Node) -> None:
    """After a flush of all tables a module run restores the table; flows that were idle meanwhile continue."""
    streams = [
        listener(lab, f"stream{family}", family, 48, ports=[80], port=7000, scheduler="wrr") for family in FAMILIES
    ]
    web = [listener(lab, f"web{family}", family, 49) for family in FAMILIES]
    fleet.configure([*streams, *web])
    lab.route("lb1")
    node = lab.node("lb1")
    before = _rules(node)
    streamed = [target(vip(family, 48), 80) for family in FAMILIES]
    held = start_load(client, "stream", streamed, count=10, interval=600)
    wait_for_connections(client, 80, 10)
    with agent_stopped(node):
        for lost in (["flush", "ruleset"], ["delete", "table", "inet", "evenflow"]):
            node.run(["nft", *lost])
            assert fleet.module("lb1", "lb_config", listeners=[])["changed"] is True
            assert _rules(node) == before
            records = run_load(client, "http", [target(vip(family, 49), 80) for family in FAMILIES], count=60)
            assert not failures(records), failures(records)[:3]
    ended = [record for record in finish(held) if record.kind == "stream"]
    assert len(ended) == 10
    assert not failures(ended), failures(ended)[:3]


@pytest.mark.nft
def test_row_46_reboot(fleet: Fleet, lab: Lab, client: Node, vips_on_interfaces: Any) -> None:
    """Row 46: a rebooted node forwards and has its VIPs before a module runs on it, also after a power cut."""
    forget_removed(fleet, lab.node("lb1"))
    listeners = [listener(lab, f"web{family}", family, 46, scheduler="wrr") for family in FAMILIES]
    on_link = [
        {**listener(lab, f"on-link{family}", family, 46, port=80), "address": address, "ports": [8081]}
        for family, address in zip(FAMILIES, (on_link_vip4(246), on_link_vip6(246)))
    ]
    vips_on_interfaces([*listeners, *on_link], "lb1")
    lab.route("lb1")
    targets = [target(vip(family, 46), 80) for family in FAMILIES]
    targets += [target(on_link_vip4(246), 8081), target(on_link_vip6(246), 8081)]
    node = lab.node("lb1")
    before = _rules(node)
    for hard in (False, True):
        node.reboot(hard=hard)
        assert _rules(node) == before
        records = run_load(client, "http", targets, count=120)
        assert not failures(records), failures(records)[:5]
        assert set(shares(records)) == {"b1", "b2", "b3"}
    assert fleet.module("lb1", "lb_config", listeners=[])["changed"] is False


@pytest.mark.usefixtures("no_streams")
@pytest.mark.parametrize("family", FAMILIES)
def test_row_52_shared_endpoint(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 52: two listeners over one endpoint: removing one leaves the other's guard, counters and flows alone."""
    kept = listener(lab, "kept", family, 52, ports=[80], port=7000, weights=(1,))
    gone = listener(lab, "gone", family, 53, ports=[80], port=7000, weights=(1,))
    fleet.configure([kept, gone])
    lab.route("lb1")
    targets = [target(vip(family, host), 80) for host in (52, 53)]
    streams = start_load(client, "stream", targets, count=20)
    _wait_for_flows(fleet, {"kept": 10, "gone": 10})
    before = _counters(fleet)["kept"]
    fleet.configure([kept])
    assert _counters(fleet)["kept"]["flows"] == before["flows"]
    wait_until(
        lambda: _counters(fleet)["kept"]["packets_out"],
        "the flows that are left are counted",
        accepts=lambda packets: packets > before["packets_out"],
    )
    more = run_load(client, "stream", targets[:1], count=5, seconds=1)
    assert not failures(more)
    assert _counters(fleet)["kept"]["flows"] == before["flows"] + 5
    held = [record for record in finish(streams) if record.kind == "stream"]
    assert len(held) == 20
    assert not failures(held)

    assert leaked(lab, targets[:1], family) == ""
    # Without the guard the sniffer sees packets, so the sniffer works.
    guard = f"{backend_address(lab, 'b1', family)} . tcp . 7000"
    with agent_stopped(lab.node("lb1")):
        lab.node("lb1").run(["nft", "delete", "element", "inet", "evenflow", f"endpoints{family}", f"{{ {guard} }}"])
        assert backend_address(lab, "b1", family) in leaked(lab, targets[:1], family)


def test_vips_are_announced(lab: Lab, client: Node, vips_on_interfaces: Any) -> None:
    """A VIP that moves to the other node is reached there by the first request: the move is announced."""
    listeners = [
        {**listener(lab, f"web{family}", family, 47), "address": address}
        for family, address in zip(FAMILIES, (on_link_vip4(247), on_link_vip6(247)))
    ]
    targets = [target(on_link_vip4(247), 80), target(on_link_vip6(247), 80)]
    seen = {}
    for node in ("lb1", "lb2", "lb1"):
        other = "lb2" if node == "lb1" else "lb1"
        vips_on_interfaces([], other)
        vips_on_interfaces(listeners, node)
        records = run_load(client, "http", targets, count=40)
        assert not failures(records), (node, failures(records)[:5])
        seen[node] = {entry["lladdr"] for entry in _neighbours(client)}
    assert seen["lb1"].isdisjoint(seen["lb2"])


def _rules(node: Node) -> list[str]:
    """Return the sorted sets, maps and chains of the node's table, without values of counters."""
    table = node.run(["nft", "--stateless", "list", "table", "inet", "evenflow"]).stdout
    head, body = table.split("\n\t", 2)[1:]
    assert head.startswith("comment ")
    return sorted(body.removesuffix("}\n").rstrip("\n").split("\n\n\t"))


def _counters(fleet: Fleet) -> dict[str, dict[str, int]]:
    listeners = fleet.module("lb1", "lb_info", gather=["counters"])["listeners"]
    return {entry["name"]: entry["counters"] for entry in listeners}


def _wait_for_flows(fleet: Fleet, counts: dict[str, int]) -> None:
    """Wait until the listeners have counted at least `counts` flows."""
    wait_until(
        lambda: {name: counted["flows"] for name, counted in _counters(fleet).items()},
        f"flows: {counts}",
        accepts=lambda seen: all(seen[name] >= count for name, count in counts.items()),
    )


def _neighbours(client: Node) -> list[dict[str, Any]]:
    entries = json.loads(client.run(["ip", "-j", "neighbour", "show", "dev", "front"]).stdout)
    return [entry for entry in entries if entry["dst"] in (on_link_vip4(247), on_link_vip6(247))]
