# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 41, 46 and 52, and VIPs on an interface: what changes and reboots do to traffic."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import FAMILIES, backend_address, leaked, listener, target, vip
from lab.steady import SteadyLoad
from lab.topology import on_link_vip4, on_link_vip6
from lab.traffic import failures, finish, run_load, shares, start_load

LIBRARY = "ansible_collections.evenflow.l4lb.plugins.module_utils"


@pytest.fixture
def client(lab: Lab) -> Node:
    return lab.node("c1")


@pytest.fixture
def vips_on_interfaces(fleet: Fleet) -> Iterator[Any]:
    """A function that deploys listeners with their VIPs on one node's front interface; undone at the end."""

    def deploy(node: str, listeners: list[dict[str, Any]], mode: str = "address") -> None:
        fleet.deploy(listeners, [node], lb_node_purge="all", lb_node_vip_mode=mode, lb_node_vip_interface="front")

    yield deploy
    for node in ("lb1", "lb2"):
        deploy(node, [], mode="none")


def test_row_41_slot_changes(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 41 (slots): 150 changes under load: 0 failed requests."""
    fleet.configure([
        listener(lab, f"{scheduler}{family}", family, host, scheduler=scheduler, weights=(2, 4, 1))
        for scheduler, host in (("wrr", 41), ("mh", 42)) for family in FAMILIES
    ])
    lab.route("lb1")
    node = lab.node("lb1")
    library = Path(str(import_module(f"{LIBRARY}._node").__file__)).parent
    for file in sorted(library.glob("_*.py")):
        node.put(f"/run/changes/library/{file.name}", file.read_text(encoding="utf-8"))
    targets = [target(vip(family, host), 80) for host in (41, 42) for family in FAMILIES]
    with SteadyLoad(client, targets, rate=100, seconds=20) as load:
        time.sleep(1)
        changed = node.run(["python3", "/opt/lab/changes.py", "/run/changes/library", "150", "0.1"], timeout=280)
        records = load.end()
    # Neighbouring weights differ, so each change was one transaction.
    assert int(changed.stdout) == 150
    assert len(records) > 1000
    assert not failures(records), failures(records)[:5]
    assert set(shares(records)) == {"b1", "b2", "b3"}


def test_row_46_reboot(fleet: Fleet, lab: Lab, client: Node, vips_on_interfaces: Any) -> None:
    """Row 46: a rebooted node forwards and has its VIPs before anything of ours runs on it, also after a power cut."""
    listeners = [listener(lab, f"web{family}", family, 46, scheduler="wrr") for family in FAMILIES]
    on_link = [
        {**listener(lab, f"on-link{family}", family, 46, port=80), "address": address, "ports": [8081]}
        for family, address in zip(FAMILIES, (on_link_vip4(246), on_link_vip6(246)))
    ]
    vips_on_interfaces("lb1", [*listeners, *on_link])
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


@pytest.mark.parametrize("family", FAMILIES)
def test_row_52_shared_endpoint(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 52: two listeners over one endpoint: removing one leaves the other's guard, counters and flows alone."""
    kept = listener(lab, "kept", family, 52, ports=[80], port=7000, weights=(1,))
    gone = listener(lab, "gone", family, 53, ports=[80], port=7000, weights=(1,))
    fleet.configure([kept, gone])
    lab.route("lb1")
    targets = [target(vip(family, host), 80) for host in (52, 53)]
    streams = start_load(client, "stream", targets, count=20, seconds=30)
    _wait_for_flows(fleet, {"kept": 10, "gone": 10})
    before = _counters(fleet)["kept"]
    fleet.configure([kept])
    assert _counters(fleet)["kept"]["flows"] == before["flows"]
    assert _counters(fleet)["kept"]["packets_out"] > before["packets_out"]
    more = run_load(client, "stream", targets[:1], count=5, seconds=1)
    assert not failures(more)
    assert _counters(fleet)["kept"]["flows"] == before["flows"] + 5
    held = [record for record in finish(streams) if record.kind == "stream"]
    assert len(held) == 20
    assert not failures(held)

    assert leaked(lab, targets[:1], family) == ""
    # The same without the guard, to see that the sniffer would have told.
    guard = f"{backend_address(lab, 'b1', family)} . tcp . 7000"
    lab.node("lb1").run(["nft", "delete", "element", "inet", "evenflow", f"endpoints{family}", f"{{ {guard} }}"])
    assert backend_address(lab, "b1", family) in leaked(lab, targets[:1], family)


def test_vips_are_announced(lab: Lab, client: Node, vips_on_interfaces: Any) -> None:
    """A VIP that moves to the other node is reached there at once: the neighbours are told."""
    listeners = [
        {**listener(lab, f"web{family}", family, 47), "address": address}
        for family, address in zip(FAMILIES, (on_link_vip4(247), on_link_vip6(247)))
    ]
    targets = [target(on_link_vip4(247), 80), target(on_link_vip6(247), 80)]
    seen = {}
    for node in ("lb1", "lb2", "lb1"):
        other = "lb2" if node == "lb1" else "lb1"
        vips_on_interfaces(other, [])
        vips_on_interfaces(node, listeners)
        records = run_load(client, "http", targets, count=40, timeout=2)
        assert not failures(records), (node, failures(records)[:5])
        seen[node] = {entry["lladdr"] for entry in _neighbours(client)}
    assert seen["lb1"].isdisjoint(seen["lb2"])


def _rules(node: Node) -> str:
    """The node's table without counters' values."""
    return node.run(["nft", "--stateless", "list", "table", "inet", "evenflow"]).stdout


def _counters(fleet: Fleet) -> dict[str, dict[str, int]]:
    told = fleet.module("lb1", "lb_info", gather=["counters"])["listeners"]
    return {entry["name"]: entry["counters"] for entry in told}


def _wait_for_flows(fleet: Fleet, wanted: dict[str, int]) -> None:
    """Wait until the listeners have counted so many flows."""
    deadline = time.monotonic() + 10
    while any(_counters(fleet)[name]["flows"] < count for name, count in wanted.items()):
        assert time.monotonic() < deadline, f"not {wanted} after 10 s: {_counters(fleet)}"


def _neighbours(client: Node) -> list[dict[str, Any]]:
    found = json.loads(client.run(["ip", "-j", "neighbour", "show", "dev", "front"]).stdout)
    return [entry for entry in found if entry["dst"] in (on_link_vip4(247), on_link_vip6(247))]
