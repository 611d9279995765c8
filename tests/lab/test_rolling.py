# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook of rolling maintenance: order, refusals, failures, and how to continue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import FAMILIES, backend_address, heal, http_check, listener, target, vip, wait_for_states
from lab.steady import SteadyLoad
from lab.traffic import failures

HOSTS: dict[str, Any] = {"lb_hosts": "lb_nodes", "rolling_hosts": "backends"}


def _command(*arguments: str) -> dict[str, Any]:
    return {"ansible.builtin.command": {"argv": list(arguments)}}


RESTART = [
    {
        "name": "List the connections to the service",
        **_command("ss", "-Htn", "state", "established", "sport", "=", ":80"),
        "register": "connections",
        "when": "not ansible_check_mode",
    },
    {
        "name": "Check that there are none",
        "ansible.builtin.assert": {"that": "connections.stdout == ''"},
        "when": "not ansible_check_mode",
    },
    {"name": "Restart", **_command("systemctl", "restart", "lab-http")},
    {"name": "Record the restart", **_command("touch", "/run/maintained")},
]


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "restart.json"
    path.write_text(json.dumps(RESTART), encoding="utf-8")
    yield str(path)


@pytest.fixture
def served(fleet: Fleet, lab: Lab) -> Iterator[list[str]]:
    heal(lab)
    lab.route("both")
    for node in lab.nodes("backend"):
        node.run(["systemctl", "start", "lab-http"])
        node.run(["rm", "-f", "/run/maintained"])
    fleet.configure(
        [
            listener(
                lab,
                f"web{family}",
                family,
                80,
                scheduler="wrr",
                health_check=http_check("web", unhealthy_threshold=3),
                connection_draining_timeout_sec=20,
            )
            for family in FAMILIES
        ]
    )
    for family in FAMILIES:
        for name in ("lb1", "lb2"):
            wait_for_states(lab, f"web{family}", "healthy healthy healthy", node=name)
    yield [target(vip(family, 80), 80) for family in FAMILIES]
    heal(lab)


def _maintained(lab: Lab) -> list[str]:
    return [
        node.name
        for node in lab.nodes("backend")
        if node.run(["test", "-e", "/run/maintained"], check=False).returncode == 0
    ]


def _states(lab: Lab) -> dict[str, list[str]]:
    """Return the drained machines by load balancer."""
    drained = {}
    for node in lab.nodes("lb"):
        listeners = json.loads(node.get("/etc/evenflow/listeners.json"))["listeners"]
        drained[node.name] = sorted(
            {
                backend["name"]
                for entry in listeners.values()
                for backend in entry["backends"]
                if backend["admin_state"] == "drained"
            }
        )
    return drained


def test_all_backends_under_load(fleet: Fleet, lab: Lab, client: Node, served: list[str], tasks: str) -> None:
    """Every machine is restarted without connections, and no request fails; in check mode nothing happens."""
    dry = fleet.play("rolling_maintenance", "--check", rolling_tasks=tasks, **HOSTS)
    assert dry.returncode == 0, dry.stdout[-3000:]
    assert not _maintained(lab) and _states(lab) == {"lb1": [], "lb2": []}
    with SteadyLoad(client, served, rate=50) as load:
        done = fleet.play("rolling_maintenance", rolling_tasks=tasks, **HOSTS)
        records = load.end(least=1000)
    assert done.returncode == 0, done.stdout[-3000:]
    assert _maintained(lab) == ["b1", "b2", "b3"] and _states(lab) == {"lb1": [], "lb2": []}
    assert not failures(records), failures(records)[:5]


def test_a_machine_that_does_not_come_back(
    fleet: Fleet, lab: Lab, served: list[str], tmp_path: Path, tasks: str
) -> None:
    """The play stops with the machine drained and reports how to continue; after a repair it does the rest."""
    lame = tmp_path / "lame.json"
    stop = {"name": "Stop", **_command("systemctl", "stop", "lab-http"), "when": "inventory_hostname == 'b2'"}
    lame.write_text(json.dumps([*RESTART, stop]), encoding="utf-8")
    done = fleet.play("rolling_maintenance", rolling_tasks=str(lame), rolling_health_timeout=30, **HOSTS)
    assert done.returncode != 0
    assert "b2 stay drained on lb1, lb2" in done.stdout and "go on with --limit 'b2,b3'" in done.stdout
    assert _maintained(lab) == ["b1", "b2"] and _states(lab) == {"lb1": ["b2"], "lb2": ["b2"]}
    lab.node("b2").run(["systemctl", "start", "lab-http"])
    done = fleet.play("rolling_maintenance", "--limit", "b2,b3", rolling_tasks=tasks, **HOSTS)
    assert done.returncode == 0, done.stdout[-3000:]
    assert _maintained(lab) == ["b1", "b2", "b3"] and _states(lab) == {"lb1": [], "lb2": []}


def test_tasks_that_cannot_be_read(fleet: Fleet, lab: Lab, served: list[str], tmp_path: Path) -> None:
    """A file that does not exist, or has no tasks, is an error before any machine is drained."""
    wrong = tmp_path / "wrong.yml"
    for text in (None, "- name: No task\n  nothing.of.the.kind: {}\n"):
        if text:
            wrong.write_text(text, encoding="utf-8")
        assert fleet.play("rolling_maintenance", rolling_tasks=str(wrong), **HOSTS).returncode != 0
        assert _states(lab) == {"lb1": [], "lb2": []}


def test_what_is_out_on_another_node_does_not_count(fleet: Fleet, lab: Lab, served: list[str], tasks: str) -> None:
    """A drain that is safe on each node alone but not on all together is refused, and no machine is drained."""
    fleet.module("lb2", "lb_drain", backends=["b2"])
    fleet.module("lb1", "lb_drain", backends=["b3"])
    before = _states(lab)
    assert before == {"lb1": ["b3"], "lb2": ["b2"]}
    done = fleet.play("rolling_maintenance", "--limit", "b1", rolling_tasks=tasks, **HOSTS)
    assert done.returncode != 0 and "b1: not drained on any load balancer" in done.stdout
    assert "min_eligible: 1: web4 would keep 0" in done.stdout
    assert _states(lab) == before and not _maintained(lab)


def test_a_load_balancer_that_fails(fleet: Fleet, lab: Lab, served: list[str], tasks: str) -> None:
    """The machine that was drained on the first node is put back when the second cannot be changed."""
    in_the_way = "/etc/evenflow/listeners.json.previous.new"
    lab.node("lb2").run(["mkdir", in_the_way])
    try:
        done = fleet.play("rolling_maintenance", "--limit", "b1", rolling_tasks=tasks, **HOSTS)
    finally:
        lab.node("lb2").run(["rmdir", in_the_way])
    assert done.returncode != 0 and "Drain the batch on the other load balancers" in done.stdout
    assert "b1: not drained on any load balancer: lb2: " in done.stdout
    assert _states(lab) == {"lb1": [], "lb2": []} and not _maintained(lab)


def test_verify(fleet: Fleet, lab: Lab, served: list[str]) -> None:
    """The play succeeds if the nodes agree, otherwise it fails and names the differences."""
    done = fleet.play("verify", **HOSTS)
    assert done.returncode == 0, done.stdout[-3000:]
    fleet.module("lb2", "lb_backend", listener=["web4"], address=backend_address(lab, "b1", 4), weight=7)
    done = fleet.play("verify", **HOSTS)
    assert done.returncode != 0
    assert "web4" in done.stdout and "weight" in done.stdout and "100 on lb1, 7 on lb2" in done.stdout
