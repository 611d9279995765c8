# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 32 to 38: machines that are drained and put back under traffic."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet, ModuleFailed
from lab.rows import (
    FAMILIES,
    agent_pid,
    cure,
    forget_flows,
    heal,
    http_check,
    listener,
    runtime_state,
    sicken,
    target,
    vip,
    wait_for_connections,
    wait_for_states,
)
from lab.topology import FRONT
from lab.traffic import (
    Flow,
    Load,
    Record,
    failures,
    finish,
    run_load,
    run_tuples,
    shares,
    start_load,
    wait_for_records,
)
from lab.waiting import wait_until

STREAMS = 12


@pytest.fixture(autouse=True)
def fresh(lab: Lab, no_streams: None) -> None:
    heal(lab)
    forget_flows(lab)
    lab.route("lb1")


def _streams(lab: Lab, name: str, family: int, host: int, **options: Any) -> dict[str, Any]:
    return listener(lab, name, family, host, **{"ports": [81], "port": 7000, "scheduler": "wrr", **options})


def _pair(lab: Lab, host: int, **options: Any) -> list[dict[str, Any]]:
    return [_streams(lab, f"held{family}", family, host, **options) for family in FAMILIES]


@contextmanager
def _held(client: Node, targets: Sequence[str], records: list[Record]) -> Iterator[Load]:
    """Hold streams with messages and answers for the length of the block; afterwards `records` has their records."""
    load = start_load(client, "stream", targets, count=STREAMS, interval=0.1)
    wait_for_connections(client, 81, STREAMS)
    yield load
    records += _ended(finish(load))


def _ended(records: list[Record]) -> list[Record]:
    return [record for record in records if record.kind == "stream"]


def _wait_for_ends(load: Load, count: int) -> None:
    """Wait until `count` of the held streams have ended."""
    wait_for_records(load, lambda records: len(_ended(records)) >= count, f"{count} streams end")


def _opened(load: Load, name: str) -> int:
    """Return the number of held streams to a backend."""
    return sum(record.kind == "stream-open" and record.backend == name for record in load.records())


def _sleep_past(moment: float) -> None:
    """Sleep until some seconds after a moment at which nothing is to happen."""
    time.sleep(max(0.0, moment + 2 - time.time()))


def _of(records: list[Record], name: str) -> list[Record]:
    of_backend = [record for record in records if record.backend == name]
    assert of_backend
    return of_backend


def _deadlines(node: Node) -> dict[str, float]:
    """Return the deadline of each drained backend, in seconds since the epoch, from the node's runtime state."""
    drains = runtime_state(node)["drains"]
    return {key: drain["deadline"] for key, drain in drains.items() if drain["cause"] == "drained"}


@pytest.mark.quiet
@pytest.mark.parametrize("family", FAMILIES)
def test_row_32_drain(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 32: a drained machine gets no new flow; its streams last to the deadline and end within 2 s after it."""
    fleet.configure([_streams(lab, "held", family, 60), listener(lab, "web", family, 60, scheduler="wrr")])
    records: list[Record] = []
    with _held(client, [target(vip(family, 60), 81)], records) as load:
        fleet.module("lb1", "lb_drain", backends=["b1"], timeout=12, wait=False)
        deadline = max(_deadlines(lab.node("lb1")).values())
        requests = run_load(client, "http", [target(vip(family, 60), 80)], count=500)
        served = shares(requests)
        assert sum(served.values()) == 500 and "b1" not in served
        assert requests[0].t < deadline, "no request was made before the deadline"
        _wait_for_ends(load, _opened(load, "b1"))
    for record in _of(records, "b1"):
        assert record.error == "Connection reset by peer"
        assert deadline <= record.t + record.seconds <= deadline + 2
    assert not failures([*_of(records, "b2"), *_of(records, "b3")])
    report = fleet.module("lb1", "lb_info", gather=["status"])["listeners"]
    assert [entry["backends"][0]["status"] for entry in report] == ["drained", "drained"]


def test_row_33_the_largest_timeout_wins(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 33: a machine in two listeners with 3 s and 9 s has 9 s in both."""
    fleet.configure(
        [
            _streams(lab, "short", 4, 62, connection_draining_timeout_sec=3),
            _streams(lab, "long", 6, 62, connection_draining_timeout_sec=9),
        ]
    )
    records: list[Record] = []
    with _held(client, [target(vip(family, 62), 81) for family in FAMILIES], records) as load:
        began = time.time()
        fleet.module("lb1", "lb_drain", backends=["b1"], wait=False)
        deadlines = set(_deadlines(lab.node("lb1")).values())
        assert len(deadlines) == 1
        assert began + 9 < max(deadlines) < time.time() + 9
        _wait_for_ends(load, _opened(load, "b1"))
    assert {record.target for record in _of(records, "b1")} == {target(vip(family, 62), 81) for family in FAMILIES}
    assert min(record.t + record.seconds for record in _of(records, "b1")) >= max(deadlines)


@pytest.mark.parametrize("family", FAMILIES)
def test_row_34_a_drain_beats_sessions(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 34: a client whose session or hash belongs to a drained backend gets another backend for new flows."""
    options: dict[str, Any] = {"session_affinity": "client_ip", "port": 8080}
    fleet.configure(
        [
            listener(lab, "session", family, 64, tracking_mode="per_session", **options),
            listener(lab, "hash", family, 65, **options),
        ]
    )
    nic = client.spec.nic(FRONT)
    own = nic.v6 if family == 6 else nic.v4
    flows: list[Flow] = [("tcp", own, port, vip(family, host), 80) for host in (64, 65) for port in range(23000, 23010)]
    before = run_tuples(client, flows)
    assert not failures(before) and len({(record.target, record.backend) for record in before}) == 2
    reached = {record.backend for record in before}
    fleet.module("lb1", "lb_drain", backends=sorted(filter(None, reached)), wait=False)
    after = run_tuples(
        client,
        [(protocol, source, port + 100, address, vip_port) for protocol, source, port, address, vip_port in flows],
    )
    assert not failures(after) and not reached & {record.backend for record in after}


def test_row_35_cancel(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 35: put back before the deadline: flows continue after it, and new flows arrive again."""
    fleet.configure(_pair(lab, 66))
    records: list[Record] = []
    with _held(client, [target(vip(family, 66), 81) for family in FAMILIES], records):
        fleet.module("lb1", "lb_drain", backends=["b1"], timeout=12, wait=False)
        deadline = max(_deadlines(lab.node("lb1")).values())
        fleet.module("lb1", "lb_drain", backends=["b1"], state="active")
        assert not _deadlines(lab.node("lb1"))
        _sleep_past(deadline)
    assert len(records) == STREAMS and not failures(records), failures(records)
    fresh_ones = run_load(client, "stream", [target(vip(4, 66), 81)], count=9, seconds=1)
    assert "b1" in shares(record for record in fresh_ones if record.kind == "stream")


@pytest.mark.quiet
def test_row_36_the_deadline_stays(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 36: agent killed, agent restarted, node rebooted in mid-drain: the same point in time."""
    fleet.configure(_pair(lab, 67))
    node = lab.node("lb1")
    records: list[Record] = []
    with _held(client, [target(vip(family, 67), 81) for family in FAMILIES], records) as load:
        fleet.module("lb1", "lb_drain", backends=["b1"], timeout=12, wait=False)
        deadlines = _deadlines(node)
        assert len(deadlines) == 2
        killed = agent_pid(node)
        node.run(["kill", "-KILL", killed])
        wait_until(lambda: agent_pid(node), "another agent runs", accepts=lambda pid: pid not in ("", killed))
        node.run(["systemctl", "restart", "evenflow.service"])
        assert _deadlines(node) == deadlines
        _wait_for_ends(load, _opened(load, "b1"))
    for record in _of(records, "b1"):
        assert max(deadlines.values()) <= record.t + record.seconds <= max(deadlines.values()) + 2
    assert not failures([*_of(records, "b2"), *_of(records, "b3")])
    fleet.module("lb1", "lb_drain", backends=["b2"], timeout=600, wait=False)
    deadlines = _deadlines(node)
    node.reboot()
    assert _deadlines(node) == deadlines
    report = fleet.module("lb1", "lb_info", gather=["status"])["listeners"]
    assert [entry["backends"][1]["status"] for entry in report] == ["drained", "drained"]


def test_row_37_wait_until_none_is_left(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 37: the module returns when the last flow has ended, at once without flows, and reports what happened."""
    fleet.configure(_pair(lab, 68))
    records: list[Record] = []
    drain = partial(fleet.module, "lb1", "lb_drain", backends=["b1"], timeout=600, progress_interval=2)
    with ThreadPoolExecutor(max_workers=1) as pool:
        with _held(client, [target(vip(family, 68), 81) for family in FAMILIES], records):
            waiting = pool.submit(drain)
            wait_until(lambda: _deadlines(lab.node("lb1")), "the drain has begun")
            time.sleep(2)
            assert not waiting.done(), waiting.result()
        done = waiting.result()
    assert not failures(records)
    assert done["changed"] and done["drained"] and not done["timed_out"] and 1 < done["elapsed"] < 600
    assert done["connections_ended"] == 0 and not any(
        backend["connections"] for backend in done["connections_remaining"]
    )
    again = drain()
    assert not again["changed"] and again["drained"] and not again["timed_out"]
    assert again["elapsed"] < done["elapsed"]


@pytest.mark.parametrize("on_timeout", ["terminate", "fail", "continue"])
def test_row_37_on_timeout(fleet: Fleet, lab: Lab, client: Node, on_timeout: str) -> None:
    """Row 37: at the timeout flows are ended, or they continue and the module fails or succeeds."""
    fleet.configure(_pair(lab, 69))
    records: list[Record] = []
    with _held(client, [target(vip(family, 69), 81) for family in FAMILIES], records):
        done = fleet.module("lb1", "lb_drain", check=False, backends=["b1"], timeout=4, on_timeout=on_timeout)
    drained = _of(records, "b1")
    assert done["timed_out"] and done["elapsed"] >= 4
    if on_timeout == "terminate":
        assert done["drained"] and done["connections_ended"] == len(drained) == len(failures(drained))
    else:
        assert not done["drained"] and not failures(records)
        assert sum(backend["connections"] for backend in done["connections_remaining"]) == len(drained)
        assert done.get("failed", False) == (on_timeout == "fail")
        assert on_timeout == "continue" or "held4 b1" in done["msg"]


def test_row_37_nothing_to_wait_for(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 37: the module does not wait for a dead machine with flows, but for an unhealthy machine that answers."""
    fleet.configure(_pair(lab, 70, health_check=http_check("held")))
    for family in FAMILIES:
        wait_for_states(lab, f"held{family}", "healthy healthy healthy")
    dead = lab.node("b1")
    records: list[Record] = []
    with _held(client, [target(vip(family, 70), 81) for family in FAMILIES], records):
        sicken(lab.node("b2"), "held")
        dead.run(
            [
                "nft",
                "add table inet dead; add chain inet dead in { type filter hook input priority -300; policy "
                "drop; }; add chain inet dead out { type filter hook output priority -300; policy drop; }",
            ]
        )
        try:
            for family in FAMILIES:
                wait_for_states(lab, f"held{family}", "unhealthy unhealthy healthy")
            done = fleet.module("lb1", "lb_drain", backends=["b1"], timeout=600)
            assert done["drained"] and not done["timed_out"]
            assert sum(backend["connections"] for backend in done["connections_remaining"]) > 0
            with pytest.raises(ModuleFailed, match="flows are left"):
                fleet.module("lb1", "lb_drain", backends=["b2"], timeout=3, on_timeout="fail")
        finally:
            dead.run(["nft", "delete", "table", "inet", "dead"])
            cure(lab.node("b2"), "held")


def test_row_38_min_eligible(fleet: Fleet, lab: Lab) -> None:
    """Row 38: a drain that would leave too few healthy backends is refused, and nothing changes."""
    fleet.configure([listener(lab, "web", 4, 72, health_check=http_check("web")), listener(lab, "api", 4, 73)])
    wait_for_states(lab, "web", "healthy healthy healthy")
    sicken(lab.node("b1"), "web")
    wait_for_states(lab, "web", "unhealthy healthy healthy")
    node = lab.node("lb1")
    before = _state(node)
    with pytest.raises(ModuleFailed, match=r"min_eligible: 2: web would keep 1 eligible backends \(b3\) of 2"):
        fleet.module("lb1", "lb_drain", backends=["b2"], min_eligible=2)
    with pytest.raises(ModuleFailed, match="min_eligible: 1: web would keep 0"):
        fleet.module("lb1", "lb_drain", backends=["b2", "b3"])
    with pytest.raises(ModuleFailed, match="min_eligible: 1: web would keep 0"):
        fleet.module("lb1", "lb_drain", backends=["b2"], out_elsewhere=["b3"])
    assert _state(node) == before
    # Draining the unhealthy backend leaves as many eligible backends, and one of these may be drained too.
    assert fleet.module("lb1", "lb_drain", backends=["b1"], min_eligible=2)["drained"]
    assert fleet.module("lb1", "lb_drain", backends=["b2"])["drained"]


def _state(node: Node) -> tuple[str, str, str]:
    table = node.run(["nft", "--stateless", "list", "table", "inet", "evenflow"]).stdout
    return table, node.get("/etc/evenflow/listeners.json"), json.dumps(_deadlines(node))
