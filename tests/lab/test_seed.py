# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The seed of a fleet: a random one that all nodes have and keep."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab import Lab
from lab.fleet import DeployFailed, Fleet

_FILE = "/etc/evenflow/node.json"
_NODES = ("lb1", "lb2")


@pytest.fixture
def seeds(deployed: Fleet, lab: Lab) -> Iterator[None]:
    """Give the nodes the seeds back that they had before the test."""
    before = {name: lab.node(name).get(_FILE) for name in _NODES}
    yield
    for name, text in before.items():
        lab.node(name).put(_FILE, text, "0640")
    deployed.configure([])


@pytest.mark.usefixtures("seeds")
def test_the_nodes_of_a_fleet_have_one_seed_and_keep_it(fleet: Fleet, lab: Lab) -> None:
    """A new fleet gets a random seed once; a node that lost its own or is new takes it from the others."""
    for name in _NODES:
        lab.node(name).run(["rm", _FILE])
    assert _deploy(fleet) > 0
    first, second = _seeds(lab)
    assert first == second != 24301
    assert _deploy(fleet) == 0
    # A node alone, as with --limit.
    lab.node("lb2").run(["rm", _FILE])
    assert _deploy(fleet, "lb2") > 0
    assert _seeds(lab) == [first, first]
    checked = fleet.play("site", "--check", "--tags", "configure", "--limit", "localhost,lb1", lb_node_purge="none")
    assert checked.returncode == 0, checked.stdout
    assert "changed=0" in checked.stdout and "WARNING: the seed" not in checked.stdout
    # The next new fleet has another one.
    for name in _NODES:
        lab.node(name).run(["rm", _FILE])
    _deploy(fleet)
    third, fourth = _seeds(lab)
    assert third == fourth != first


@pytest.mark.usefixtures("seeds")
def test_a_fleet_keeps_a_seed_that_it_has(fleet: Fleet, lab: Lab) -> None:
    """The former default stays, a seed that is given is taken, and different seeds are refused with their values."""
    _write(lab, "lb1", 24301)
    _write(lab, "lb2", 24301)
    output = fleet.deploy([], tags=["configure"]).output
    assert _seeds(lab) == [24301, 24301]
    assert "WARNING: the seed of the fleet is 24301" in output
    fleet.deploy([], tags=["configure"], lb_node_hash_seed=7)
    assert _seeds(lab) == [7, 7]
    _write(lab, "lb2", 8)
    with pytest.raises(DeployFailed, match="The nodes of the fleet have different seeds: 7, 8"):
        _deploy(fleet)
    assert _seeds(lab) == [7, 8]


def _deploy(fleet: Fleet, *nodes: str) -> int:
    """Deploy the settings of nodes and return the number of tasks that changed something."""
    return fleet.deploy([], nodes, tags=["configure"]).changed


def _seeds(lab: Lab) -> list[int]:
    return [json.loads(lab.node(name).get(_FILE))["hash_seed"] for name in _NODES]


def _write(lab: Lab, name: str, seed: int) -> None:
    settings = json.loads(lab.node(name).get(_FILE))
    lab.node(name).put(_FILE, json.dumps({**settings, "hash_seed": seed}), "0640")
