# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 43, 45, 46 and 49: the agent repairs damage, and traffic does not depend on the agent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet, ModuleFailed
from lab.observers import TableWatch
from lab.rows import (
    FAMILIES,
    agent_pid,
    forget_removed,
    heal,
    http_check,
    listener,
    runtime_state,
    target,
    vip,
    wait_for_connections,
    wait_for_states,
)
from lab.steady import SteadyLoad
from lab.topology import on_link_vip4, on_link_vip6
from lab.traffic import failures, finish, run_load, shares, start_load
from lab.waiting import wait_until

AGENT = "evenflow.service"

_FLUSHES = 40
"""Enough to hit the moment: with 80 flushes, 398 of 680,000 connections were refused."""


@pytest.fixture(scope="module")
def own_vips(fleet: Fleet, lab: Lab) -> Iterator[None]:
    """Set lb1 to add VIPs to its interface, and make sure that only these tests change its table."""
    role: dict[str, Any] = {"tags": ["configure", "listeners"], "lb_node_purge": "all"}
    fleet.deploy([], ["lb1"], **role, lb_node_vip_mode="address", lb_node_vip_interface="front")
    forget_removed(fleet, lab.node("lb1"))
    yield
    fleet.deploy([], ["lb1"], **role, lb_node_vip_mode="none")


@pytest.fixture
def served(fleet: Fleet, lab: Lab, own_vips: None) -> Iterator[list[str]]:
    """Configure listeners with health checks, on routed VIPs and on VIPs of lb1's interface, and yield the VIPs."""
    heal(lab)
    listeners = []
    for family, own in zip(FAMILIES, (on_link_vip4(243), on_link_vip6(243))):
        options: dict[str, Any] = {"scheduler": "wrr", "health_check": http_check("web", unhealthy_threshold=5)}
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
    for entry in listeners:
        wait_for_states(lab, entry["name"], "healthy healthy healthy")
    yield [*(vip(family, 43) for family in FAMILIES), on_link_vip4(243), on_link_vip6(243)]
    fleet.configure([])


@pytest.mark.quiet
@pytest.mark.usefixtures("no_streams")
@pytest.mark.parametrize("command", ["flush ruleset", "delete table inet evenflow"])
def test_row_43(fleet: Fleet, lab: Lab, client: Node, served: list[str], command: str) -> None:
    """Row 43: the table is back within a second; no established flow is lost and no request fails."""
    node = lab.node("lb1")
    held = start_load(client, "stream", [target(address, 81) for address in served], count=20, push=True)
    wait_for_connections(client, 81, 20)
    with SteadyLoad(client, [target(address, 80) for address in served], rate=100) as load:
        for _turn in range(3):
            script = f"nft {command}; date +%s.%N; until nft list chain inet evenflow dispatch; do :; done; date +%s.%N"
            lines = node.run(["bash", "-c", f"({script}) 2>/dev/null | grep -E '^[0-9.]+$'"]).stdout.split()
            assert float(lines[1]) - float(lines[0]) < 1
            time.sleep(1.5)
        records = load.end(least=500)
    ended = [record for record in finish(held) if record.kind == "stream"]
    assert len(ended) == 20 and not failures(ended), failures(ended)[:3]
    assert not failures(records), failures(records)[:5]
    wait_until(
        lambda: _repairs(fleet)[-3:],
        "the agent reports three repairs",
        accepts=lambda texts: texts == ["the table inet evenflow was gone; it is back"] * 3,
    )
    assert "the table inet evenflow was gone" in node.run(["journalctl", "-u", AGENT, "--no-pager"]).stdout


def test_row_43_no_connection_is_refused(fleet: Fleet, lab: Lab, client: Node, served: list[str]) -> None:
    """Row 43: of thousands of connections a second none is refused in the moment in which the table comes back.

    A packet may pass the hook for NAT before that moment, and the chains that reject after it.
    """
    node = lab.node("lb1")
    flood = client.start(["python3", "/opt/lab/connect_flood.py", served[0], "80"], stdin=True)
    try:
        for _turn in range(_FLUSHES):
            node.run(["nft", "flush", "ruleset"])
            wait_until(partial(_has_table, node), "the table is back")
            time.sleep(0.2)
        ends = json.loads(flood.communicate("end", timeout=60)[0])
    finally:
        flood.kill()
    assert "ECONNREFUSED" not in ends and ends["OK"] > 100 * _FLUSHES, ends


def test_an_anchor_that_hangs_is_replaced(fleet: Fleet, lab: Lab, served: list[str]) -> None:
    """A stopped nft that holds the anchor table blocks neither checks nor changes, and is replaced after a while."""
    node = lab.node("lb1")
    stopped = wait_until(lambda: _anchor_pid(node), "the anchor's nft runs")
    node.run(["kill", "-STOP", stopped])
    more = [
        listener(lab, f"more{number}", 4, 100 + number, health_check=http_check("web"), weights=(1,))
        for number in range(3)
    ]
    fleet.module("lb1", "lb_config", listeners=more)
    for entry in more:
        wait_for_states(lab, entry["name"], "healthy")
    wait_until(lambda: _anchor_pid(node), "another nft holds it", accepts=lambda pid: pid not in {"", stopped})
    wait_until(
        lambda: node.run(["nft", "list", "set", "inet", "evenflow_anchor", "listeners4"], check=False).stdout,
        "the anchor has the new listeners",
        accepts=lambda text: all(entry["address"] in text for entry in more),
    )
    assert "nft -i: no answer within" in node.run(["journalctl", "-u", AGENT, "--no-pager"]).stdout


def test_the_agent_ends_while_nft_hangs(fleet: Fleet, lab: Lab, served: list[str]) -> None:
    """An agent whose nft hangs ends at SIGTERM by itself, and the next one repairs what is left."""
    node = lab.node("lb1")
    before = _state(node)
    node.run(["mv", "/usr/sbin/nft", "/usr/sbin/nft.real"])
    try:
        node.put("/usr/sbin/nft", "#!/bin/sh\nexec sleep 4322\n", mode="0755")
        node.run(["nft.real", "add element inet evenflow vips4 { 203.0.113.9 }"])
        wait_until(lambda: node.run(["pgrep", "-f", "sleep 4322"], check=False).stdout, "nft hangs")
        node.run(["systemctl", "stop", AGENT])
        assert "Result=success" in node.run(["systemctl", "show", "--property", "Result", AGENT]).stdout
        assert "is cut off" in node.run(["journalctl", "-u", AGENT, "--no-pager"]).stdout
        assert not node.run(["pgrep", "-f", "sleep 4322"], check=False).stdout
    finally:
        node.run(["mv", "/usr/sbin/nft.real", "/usr/sbin/nft"])
        node.run(["systemctl", "start", AGENT])
    wait_until(lambda: _state(node), "the table is as before", accepts=lambda state: state == before)


@pytest.mark.nft
def test_what_is_changed_by_hand_is_put_right(fleet: Fleet, lab: Lab, served: list[str]) -> None:
    """Removed elements, rules and VIPs come back, and the agent reports the repair."""
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
        wait_until(lambda: _repairs(fleet)[-1], f"{change} is reported", accepts=partial(_contains, expected))
        assert _state(node) == before
    assert fleet.module("lb1", "lb_config", listeners=[])["changed"] is False


@pytest.mark.usefixtures("no_streams")
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("add table inet evenflow { flags dormant; }", "the table inet evenflow was dormant; it is awake"),
        (
            "add element inet evenflow ranges4 { 203.0.113.0/24 . tcp . 80-90 : drop }",
            "the table was changed; done: delete element inet evenflow ranges4 { 203.0.113.0/24 . tcp . 80-90 }",
        ),
    ],
)
def test_repairs_converge(fleet: Fleet, lab: Lab, client: Node, served: list[str], command: str, expected: str) -> None:
    """A table that another program has switched off, or put a network into, serves again; no flow is lost."""
    node = lab.node("lb1")
    before = _state(node)
    held = start_load(client, "stream", [target(address, 81) for address in served], count=20, push=True)
    wait_for_connections(client, 81, 20)
    node.run(["nft", command])
    wait_until(lambda: _repairs(fleet)[-1:], "it is reported", accepts=lambda texts: texts == [expected])
    assert _state(node) == before
    records = run_load(client, "http", [target(address, 80) for address in served], count=60)
    assert not failures(records), failures(records)[:3]
    ended = [record for record in finish(held) if record.kind == "stream"]
    assert len(ended) == 20 and not failures(ended), failures(ended)[:3]
    assert fleet.module("lb1", "lb_config", listeners=[])["changed"] is False


@pytest.mark.usefixtures("no_streams")
def test_row_45_the_agent_is_killed(fleet: Fleet, lab: Lab, client: Node, served: list[str]) -> None:
    """Row 45: killed 20 times under load: 0 failed requests, no health flap, no rule change."""
    node = lab.node("lb1")
    assert not runtime_state(node)["drains"], "time would change the table"
    before = _state(node)
    cursor = node.run(["journalctl", "-u", AGENT, "-n0", "--show-cursor", "-q"]).stdout.split("cursor: ")[1].strip()
    pids: set[str] = set()

    def wait_for_agent() -> str:
        return wait_until(lambda: agent_pid(node), "an agent runs", accepts=lambda pid: pid not in {"", *pids})

    def journal() -> str:
        return node.run(["journalctl", "-u", AGENT, f"--after-cursor={cursor}", "--no-pager"]).stdout

    with TableWatch(node) as watch:
        with SteadyLoad(client, [target(address, 80) for address in served], rate=100) as load:
            for _turn in range(20):
                pid = wait_for_agent()
                pids.add(pid)
                node.run(["kill", "-KILL", pid])
            wait_for_agent()
            records = load.end(least=1000)
        assert len(pids) == 20
        assert watch.lines() == []
        # Check that the agent works and that the watch sees changes.
        node.run(["nft", "add element inet evenflow vips4 { 203.0.113.9 }"])
        wait_until(journal, "the agent puts it right", accepts=lambda text: "put right" in text)
        seen = [line.split(" ", 1)[1] for line in watch.finish()]
    assert seen == ["add element inet evenflow vips4", "delete element inet evenflow vips4"]
    assert not failures(records), failures(records)[:5]
    assert _state(node) == before
    logged = journal()
    assert "healthy" not in logged and logged.count("put right") == 1, logged[-2000:]


def test_events_that_the_kernel_drops_are_no_loss(fleet: Fleet, lab: Lab, served: list[str]) -> None:
    """An agent that was too slow for the kernel's events repairs what it has not been shown."""
    node = lab.node("lb1")
    before = _state(node)
    pid = agent_pid(node)
    marks = ", ".join(map(str, range(30000)))
    node.put(
        "/run/lab-fill.nft", f"add table inet lab\nadd set inet lab m {{ type mark; elements = {{ {marks} }}; }}\n"
    )
    node.run(["kill", "-STOP", pid])
    try:
        for _turn in range(12):
            node.run(["nft", "-f", "/run/lab-fill.nft"])
            node.run(["nft", "delete table inet lab"])
        dropped = _dropped_events(node, pid)
        node.run(["nft", "add element inet evenflow vips4 { 203.0.113.9 }"])
    finally:
        node.run(["kill", "-CONT", pid])
        node.run(["nft", "delete table inet lab"], check=False)
    assert dropped > 0
    wait_until(lambda: _state(node), "the table is as before", accepts=lambda state: state == before)
    assert agent_pid(node) == pid


def test_a_second_agent_ends(lab: Lab, served: list[str]) -> None:
    """An agent that is started by hand beside the service says so and ends; the service goes on."""
    node = lab.node("lb1")
    pid = agent_pid(node)
    command = ["env", "PYTHONPATH=/usr/local/lib/evenflow/current", "python3", "-m", "evenflow_l4lb._agent.main"]
    second = node.run(command, check=False)
    assert (second.returncode, second.stderr) == (1, "<3>another agent is running for /etc/evenflow\n")
    assert agent_pid(node) == pid


def test_row_46_without_the_agent(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 46: a rebooted node without an agent forwards by the last health; a module reports that the agent is down."""
    heal(lab)
    fleet.configure(
        [
            listener(
                lab, f"web{family}", family, 46, scheduler="wrr", health_check=http_check("web", unhealthy_threshold=5)
            )
            for family in FAMILIES
        ]
    )
    lab.route("lb1")
    for family in FAMILIES:
        wait_for_states(lab, f"web{family}", "healthy healthy healthy")
    node = lab.node("lb1")
    # The boot files follow a change of health a few seconds later.
    parts = ["sh", "-c", "cat /var/lib/evenflow/restore/current/parts/*"]
    wait_until(
        lambda: node.run(parts).stdout,
        "the boot files have the slots of three backends",
        accepts=lambda text: all(f"mod 3 map @slots_web{family} " in text for family in FAMILIES),
    )
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
    """Row 49: the agent reports the error and continues with the last good state; the file is not changed."""
    node = lab.node("lb1")
    path = "/etc/evenflow/listeners.json"
    good, before = node.get(path), _state(node)
    node.put(path, text, mode="0640")
    try:
        wait_until(lambda: path in _agent_status(node)["error"], "the agent reports the error")
        assert node.get(path) == text
        assert _state(node) == before
        records = run_load(client, "http", [target(address, 80) for address in served], count=60)
        assert not failures(records), failures(records)[:3]
        with pytest.raises(ModuleFailed, match=path):
            fleet.module("lb1", "lb_info", gather=["status"])
    finally:
        node.put(path, good, mode="0640")
    wait_until(lambda: not _agent_status(node)["error"], "the agent reports no error any more")
    assert _state(node) == before


def _state(node: Node) -> list[str]:
    """Return the sorted node's table without counters, and the VIPs on its interface."""
    table = node.run(["nft", "--stateless", "list", "table", "inet", "evenflow"], check=False).stdout
    addresses = node.run(["ip", "-br", "address", "show", "dev", "front"]).stdout.split()
    return sorted(table.split("\n\n\t")) + sorted(addresses)


def _has_table(node: Node) -> bool:
    return not node.run(["nft", "list", "chain", "inet", "evenflow", "dispatch"], check=False).returncode


def _dropped_events(node: Node, pid: str) -> int:
    """Return how many messages of netfilter the kernel could not give to a process."""
    rows = [line.split() for line in node.get(f"/proc/{pid}/net/netlink").splitlines()]
    # Columns: sk, Eth (12 is netfilter), Pid, Groups, Rmem, Wmem, Dump, Locks, Drops, Inode.
    links = node.run(["sh", "-c", f"readlink /proc/{pid}/fd/*"]).stdout.split()
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    return sum(int(row[8]) for row in rows if row[1] == "12" and row[9] in inodes)


def _anchor_pid(node: Node) -> str:
    """Return the process id of the nft that holds the anchor table."""
    return node.run(["pgrep", "-f", "^/usr/sbin/nft -i$"], check=False).stdout.strip()


def _agent_status(node: Node) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(node.get("/run/evenflow/agent.json"))
    return status


def _repairs(fleet: Fleet) -> list[str]:
    """Return the texts of the repairs that the agent reports."""
    repairs = fleet.module("lb1", "lb_info", gather=["status"])["node"]["agent"]["repairs"]
    return [repair["found"] for repair in repairs]


def _contains(part: str, text: str) -> bool:
    return part in text
