# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 43, 45, 46 and 49 with the agent: what others destroy comes back, and nobody misses the agent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet, ModuleFailed
from lab.rows import FAMILIES, checked, heal, listener, target, vip, wait_for_connections, wait_for_states
from lab.steady import SteadyLoad
from lab.topology import on_link_vip4, on_link_vip6
from lab.traffic import failures, finish, run_load, shares, start_load

AGENT = "evenflow.service"
RUNTIME = "/var/lib/evenflow/runtime.json"


@pytest.fixture(scope="module")
def own_vips(fleet: Fleet, lab: Lab) -> Iterator[None]:
    """The load balancer lb1 puts VIPs on its interface, and only what these tests do changes its table."""
    role: dict[str, Any] = {"tags": ["configure", "listeners"], "lb_node_purge": "all"}
    fleet.deploy([], ["lb1"], **role, lb_node_vip_mode="address", lb_node_vip_interface="front")
    _forget_removed(fleet, lab.node("lb1"))
    yield
    fleet.deploy([], ["lb1"], **role, lb_node_vip_mode="none")


@pytest.fixture
def served(fleet: Fleet, lab: Lab, own_vips: None) -> Iterator[list[str]]:
    """Listeners, checked, with routed VIPs and VIPs on the interface of lb1; the VIPs."""
    heal(lab)
    listeners = []
    for family, own in zip(FAMILIES, (on_link_vip4(243), on_link_vip6(243))):
        options: dict[str, Any] = {"scheduler": "wrr", "health_check": checked("web")}
        listeners += [
            listener(lab, f"web{family}", family, 43, **options),
            listener(lab, f"stream{family}", family, 43, **{**options, "ports": [81], "port": 7000}),
            {**listener(lab, f"own{family}", family, 43, **options), "address": own},
            {
                **listener(lab, f"own-stream{family}", family, 43, **{**options, "ports": [81], "port": 7000}),
                "address": own,
            },
        ]
    fleet.configure(listeners)
    lab.route("lb1")
    for one in listeners:
        wait_for_states(lab, one["name"], "healthy healthy healthy")
    yield [*(vip(family, 43) for family in FAMILIES), on_link_vip4(243), on_link_vip6(243)]
    fleet.configure([])


@pytest.mark.usefixtures("no_streams")
@pytest.mark.parametrize("command", ["flush ruleset", "delete table inet evenflow"])
def test_row_43(fleet: Fleet, lab: Lab, client: Node, served: list[str], command: str) -> None:
    """Row 43: the table is back within a second; no established flow is lost and no request fails."""
    node = lab.node("lb1")
    held = start_load(client, "stream", [target(address, 81) for address in served], count=20, seconds=14, push=True)
    wait_for_connections(client, 81, 20)
    with SteadyLoad(client, [target(address, 80) for address in served], rate=100, seconds=10) as load:
        time.sleep(1)
        for _turn in range(3):
            script = f"nft {command}; date +%s.%N; until nft list chain inet evenflow dispatch; do :; done; date +%s.%N"
            lines = node.run(["bash", "-c", f"({script}) 2>/dev/null | grep -E '^[0-9.]+$'"]).stdout.split()
            assert float(lines[1]) - float(lines[0]) < 1
            time.sleep(1.5)
        records = load.end()
    ended = [record for record in finish(held) if record.kind == "stream"]
    assert len(ended) == 20 and not failures(ended), failures(ended)[:3]
    assert len(records) > 500
    assert not failures(records), failures(records)[:5]
    repairs = fleet.module("lb1", "lb_info", gather=["status"])["node"]["agent"]["repairs"]
    assert [one["found"] for one in repairs[-3:]] == ["the table inet evenflow was gone; it is back"] * 3
    assert "the table inet evenflow was gone" in node.run(["journalctl", "-u", AGENT, "--no-pager"]).stdout


def test_what_is_changed_by_hand_is_put_right(fleet: Fleet, lab: Lab, served: list[str]) -> None:
    """An element, a rule, a VIP that somebody takes away come back, and the repair is told."""
    node = lab.node("lb1")
    fleet.module("lb1", "lb_config", listeners=[])
    for change, expected in (
        (["nft", "delete element inet evenflow slots_web4 { 1 }"], "add element inet evenflow slots_web4"),
        (["nft", "add element inet evenflow vips4 { 203.0.113.9 }"], "delete element inet evenflow vips4"),
        (["nft", "flush chain inet evenflow l_web4"], "add rule inet evenflow l_web4"),
        (["nft", "insert rule inet evenflow dispatch drop"], "had other rules"),
        (["ip", "address", "delete", f"{served[2]}/32", "dev", "front"], f"{served[2]}/32 was gone from front"),
        (["ip", "address", "delete", f"{served[3]}/128", "dev", "front"], f"{served[3]}/128 was gone from front"),
    ):
        before = _state(node)
        node.run(change)
        deadline = time.monotonic() + 2
        while (after := _state(node)) != before:
            assert time.monotonic() < deadline, (change, set(before) ^ set(after))
            time.sleep(0.05)
        time.sleep(0.2)
        told = fleet.module("lb1", "lb_info", gather=["status"])["node"]["agent"]["repairs"][-1]["found"]
        assert expected in told, told
    assert fleet.module("lb1", "lb_config", listeners=[])["changed"] is False


@pytest.mark.usefixtures("no_streams")
def test_row_45_the_agent_is_killed(fleet: Fleet, lab: Lab, client: Node, served: list[str]) -> None:
    """Row 45: killed 20 times under load: 0 failed requests, no health flap, no rule change."""
    node = lab.node("lb1")
    assert not json.loads(node.get(RUNTIME))["drains"], "time would change the table"
    before = _state(node)
    cursor = node.run(["journalctl", "-u", AGENT, "-n0", "--show-cursor", "-q"]).stdout.split("cursor: ")[1].strip()
    watch = node.start(["python3", "-u", "/opt/lab/watch_table.py", "120"])
    pids: set[str] = set()
    with SteadyLoad(client, [target(address, 80) for address in served], rate=100, seconds=25) as load:
        for _turn in range(20):
            pid = _agent_pid(node, pids)
            pids.add(pid)
            node.run(["kill", "-KILL", pid])
            time.sleep(0.3)
        _agent_pid(node, pids)
        records = load.end()
    assert len(pids) == 20
    # The watch would have told: it tells of this.
    node.run(["nft", "add element inet evenflow vips4 { 203.0.113.9 }"])
    time.sleep(1)
    watch.terminate()
    seen = watch.communicate(timeout=10)[0].splitlines()
    assert seen and all("203.0.113.9" in line for line in seen), seen[:5]
    assert len(records) > 1000
    assert not failures(records), failures(records)[:5]
    assert _state(node) == before
    told = node.run(["journalctl", "-u", AGENT, f"--after-cursor={cursor}", "--no-pager"]).stdout
    assert "healthy" not in told and told.count("put right") == 1, told[-2000:]


def test_row_46_without_the_agent(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 46: a rebooted node forwards when no agent is there at all, as health was; a module says that it is down."""
    heal(lab)
    fleet.configure(
        [listener(lab, f"web{family}", family, 46, scheduler="wrr", health_check=checked("web")) for family in FAMILIES]
    )
    lab.route("lb1")
    for family in FAMILIES:
        wait_for_states(lab, f"web{family}", "healthy healthy healthy")
    node = lab.node("lb1")
    # The files that boot follow a change of health a few seconds later.
    time.sleep(7)
    node.run(["systemctl", "disable", AGENT])
    try:
        node.reboot()
        records = run_load(client, "http", [target(vip(family, 46), 80) for family in FAMILIES], count=120)
        assert not failures(records), failures(records)[:5]
        assert set(shares(records)) == {"b1", "b2", "b3"}
        assert fleet.module("lb1", "lb_info", gather=["status"])["node"]["agent"]["running"] is False
    finally:
        node.run(["systemctl", "enable", "--now", AGENT])
    assert fleet.module("lb1", "lb_info", gather=["status"])["node"]["agent"]["running"] is True


@pytest.mark.parametrize("text", ["", '{"format": 1, "listeners": {"web4"', '{"format": 2, "listeners": {}}', "[]"])
def test_row_49_a_configuration_that_cannot_be_read(
    fleet: Fleet, lab: Lab, client: Node, served: list[str], text: str
) -> None:
    """Row 49: the agent says what is wrong and goes on with the last good state; the file is left as it is."""
    node = lab.node("lb1")
    path = "/etc/evenflow/listeners.json"
    good, before = node.get(path), _state(node)
    node.put(path, text, mode="0640")
    try:
        _until(lambda: path in _told(node)["error"], "the agent says what is wrong")
        assert node.get(path) == text
        assert _state(node) == before
        records = run_load(client, "http", [target(address, 80) for address in served], count=60)
        assert not failures(records), failures(records)[:3]
        with pytest.raises(ModuleFailed, match=path):
            fleet.module("lb1", "lb_info", gather=["status"])
    finally:
        node.put(path, good, mode="0640")
    _until(lambda: _told(node)["error"] == "", "the agent is content again")
    assert _state(node) == before


def _forget_removed(fleet: Fleet, node: Node) -> None:
    """Forget what earlier tests removed: it is guarded for five minutes, and then leaves the table."""
    node.run(["systemctl", "stop", AGENT])
    node.run(["rm", "-f", RUNTIME])
    fleet.module(node.name, "lb_config", listeners=[])
    node.run(["systemctl", "start", AGENT])


def _state(node: Node) -> list[str]:
    """The node's table without counters and the VIPs on its interface, in an order that tells nothing."""
    table = node.run(["nft", "--stateless", "list", "table", "inet", "evenflow"], check=False).stdout
    addresses = node.run(["ip", "-br", "address", "show", "dev", "front"]).stdout.split()
    return sorted(table.split("\n\n\t")) + sorted(addresses)


def _told(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node.get("/run/evenflow/agent.json"))
    return found


def _agent_pid(node: Node, other_than: set[str]) -> str:
    found = [""]

    def is_new() -> bool:
        found[0] = node.run(["systemctl", "show", "--property", "MainPID", "--value", AGENT]).stdout.strip()
        state = node.run(["systemctl", "is-active", AGENT], check=False).stdout.strip()
        return state == "active" and found[0] not in {"0", *other_than}

    _until(is_new, "an agent runs")
    return found[0]


def _until(is_so: Callable[[], bool], what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
