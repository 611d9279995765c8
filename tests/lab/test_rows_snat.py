# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backends whose answers would miss the node: source translation, and the preflight that finds such backends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import FAMILIES, listener, target, vip
from lab.topology import BACK, FRONT, VIP_PREFIX4, VIP_PREFIX6
from lab.traffic import failures, run_load


@pytest.fixture
def neighbour(lab: Lab) -> Iterator[Node]:
    """Yield a client on the backends' network, which they answer directly; it reaches VIPs through lb1."""
    node, gateway = lab.node("b3"), lab.node("lb1").spec.nic(BACK)
    routes = ((VIP_PREFIX4, gateway.v4), (VIP_PREFIX6, gateway.v6))
    for prefix, via in routes:
        node.run(["ip", "route", "replace", prefix, "via", via])
    yield node
    for prefix, via in routes:
        node.run(["ip", "route", "delete", prefix, "via", via])


@pytest.fixture
def astray(lab: Lab) -> Iterator[str]:
    """Yield the name of a backend that sends every answer through lb2."""
    node, other = lab.node("b2"), lab.node("lb2").spec.nic(BACK)
    own = lab.node("lb1").spec.nic(BACK)
    rules = node.run(["nft", "list", "table", "inet", "lab"]).stdout
    node.run(["nft", "delete", "table", "inet", "lab"])
    for via in (other.v4, other.v6):
        node.run(["ip", "route", "replace", "default", "via", via])
    yield node.name
    for via in (own.v4, own.v6):
        node.run(["ip", "route", "replace", "default", "via", via])
    node.run(["nft", "-f", "-"], input=rules)


@pytest.mark.nft
@pytest.mark.parametrize("family", FAMILIES)
def test_masquerade(fleet: Fleet, lab: Lab, client: Node, neighbour: Node, family: int) -> None:
    """snat masquerade: backends see the node's address, whatever the client."""
    fleet.configure([listener(lab, "web", family, 30, snat="masquerade", scheduler="wrr")])
    lab.route("lb1")
    own = lab.node("lb1").spec.nic(BACK)
    for asking in (client, neighbour):
        records = run_load(asking, "http", [target(vip(family, 30), 80)], count=30)
        assert not failures(records), failures(records)[:3]
        assert {record.peer for record in records} == {own.v6 if family == 6 else own.v4}
        assert {record.backend for record in records} == {"b1", "b2", "b3"}


@pytest.mark.parametrize("family", FAMILIES)
def test_hairpin(fleet: Fleet, lab: Lab, client: Node, neighbour: Node, family: int) -> None:
    """snat hairpin: clients on the backends' network are masqueraded, others are not."""
    address = [target(vip(family, 31), 80)]
    own, far = lab.node("lb1").spec.nic(BACK), client.spec.nic(FRONT)
    fleet.configure([listener(lab, "web", family, 31, scheduler="wrr", snat="hairpin")])
    lab.route("lb1")
    for asking, seen in ((neighbour, own), (client, far)):
        records = run_load(asking, "http", address, count=30)
        assert not failures(records), failures(records)[:3]
        assert {record.peer for record in records} == {seen.v6 if family == 6 else seen.v4}
        assert {record.backend for record in records} == {"b1", "b2", "b3"}


def test_preflight_finds_a_backend_whose_answers_miss_the_node(fleet: Fleet, lab: Lab, astray: str) -> None:
    """The role warns of the backend that answers by another way, in both families, and of no other."""
    listeners = [listener(lab, f"web{family}", family, 32) for family in FAMILIES]
    output = fleet.deploy(listeners, ["lb1"], lb_node_purge="all").output
    warnings = [line for line in output.splitlines() if "come back through this node" in line]
    addresses = lab.node(astray).spec.nic(BACK)
    assert len(warnings) == 1
    assert f"WARNING: {addresses.v4}, {addresses.v6}: " in warnings[0]
    masqueraded = [{**entry, "snat": "masquerade"} for entry in listeners]
    assert "come back through" not in fleet.deploy(masqueraded, ["lb1"], lb_node_purge="all").output
