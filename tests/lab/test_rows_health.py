# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 9, 22, 23, 26 to 29, 31 and 59: which backends get new flows as checks succeed and fail."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.observers import TableWatch
from lab.rows import (
    FAMILIES,
    agent_pid,
    cure,
    heal,
    http_check,
    listener,
    runtime_state,
    sicken,
    states,
    target,
    vip,
    wait_for_states,
)
from lab.topology import BACK
from lab.traffic import Record, failures, finish, run_load, shares, start_load, wait_for_records
from lab.waiting import wait_until

DATAGRAMS = 20

ONE_CHANGE_SECONDS = 0.5

EXPECTED_BOUND = "unhealthy_threshold x interval + timeout + 0.1 s"


@pytest.fixture(autouse=True)
def healthy(lab: Lab) -> Iterator[None]:
    heal(lab)
    lab.route("lb1")
    yield
    heal(lab)


def _web(lab: Lab, name: str, host: int, **options: Any) -> dict[str, Any]:
    return listener(lab, name, 4, host, **{"scheduler": "wrr", "health_check": http_check(name), **options})


def _served(client: Node, host: int, count: int = 60, family: int = 4) -> dict[str, int]:
    records = run_load(client, "http", [target(vip(family, host), 80)], count=count, concurrency=4)
    assert not failures(records), failures(records)[:3]
    return dict(shares(records))


def test_row_9_pools_are_independent(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 9: a backend that is unhealthy in one listener keeps its share in another."""
    fleet.configure([_web(lab, "one", 20), _web(lab, "other", 21)])
    wait_for_states(lab, "one", "healthy healthy healthy")
    wait_for_states(lab, "other", "healthy healthy healthy")
    sicken(lab.node("b1"), "one")
    wait_for_states(lab, "one", "unhealthy healthy healthy")
    assert _served(client, 20) == {"b2": 30, "b3": 30}
    assert _served(client, 21) == {"b1": 20, "b2": 20, "b3": 20}


def test_row_22_a_new_backend_waits_for_its_first_success(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 22: with a check a backend gets no flow until the first success; without a check it gets flows at once."""
    joins, free = _web(lab, "joins", 22), _web(lab, "free", 23, health_check=None)
    few = [{**entry, "backends": entry["backends"][:2]} for entry in (joins, free)]
    fleet.configure(few)
    wait_for_states(lab, "joins", "healthy healthy")
    sicken(lab.node("b3"), "joins")
    fleet.configure([joins, free])
    assert _served(client, 22) == {"b1": 30, "b2": 30}
    assert _served(client, 23) == {"b1": 20, "b2": 20, "b3": 20}
    cure(lab.node("b3"), "joins")
    wait_for_states(lab, "joins", "healthy healthy healthy")
    assert _served(client, 22) == {"b1": 20, "b2": 20, "b3": 20}


def test_row_23_thresholds(fleet: Fleet, lab: Lab) -> None:
    """Row 23: fewer failures than the threshold change nothing, as many do; the same for successes.

    The backend counts the checks that it has answered, so that the test assumes no times.
    """
    threshold = 10
    check = http_check("counted", unhealthy_threshold=threshold, healthy_threshold=threshold)
    fleet.configure([_web(lab, "slow", 24, health_check=check)])
    wait_for_states(lab, "slow", "healthy healthy healthy")
    node, fine, failing = lab.node("b1"), "healthy healthy healthy", "unhealthy healthy healthy"
    for _turn in range(2):
        before = _answered(node, 503)
        sicken(node, "counted")
        _wait_for_answered(node, 503, before + 3)
        # The state is read first: later failures cannot have changed it.
        seen, failed = states(lab, "slow"), _answered(node, 503) - before
        assert seen == fine and failed < threshold, (seen, failed)
        cure(node, "counted")
        _wait_for_answered(node, 200, _answered(node, 200) + 1)
    before = _answered(node, 503)
    sicken(node, "counted")
    wait_for_states(lab, "slow", failing)
    assert _answered(node, 503) - before >= threshold
    before = _answered(node, 200)
    cure(node, "counted")
    _wait_for_answered(node, 200, before + 3)
    seen, succeeded = states(lab, "slow"), _answered(node, 200) - before
    assert seen == failing and succeeded < threshold, (seen, succeeded)
    wait_for_states(lab, "slow", fine)
    assert _answered(node, 200) - before >= threshold


def test_row_26_what_gets_no_flows_is_checked_too(fleet: Fleet, lab: Lab) -> None:
    """Row 26: backends with weight 0, drained, disabled or of a disabled listener are checked and reported."""
    idle = _web(lab, "idle", 26)
    idle["backends"][0]["weight"] = 0
    idle["backends"][1]["admin_state"] = "drained"
    idle["backends"][2]["admin_state"] = "disabled"
    off = _web(lab, "off", 27, admin_state="disabled")
    fleet.configure([idle, off])
    sicken(lab.node("b1"), "idle", "off")
    sicken(lab.node("b2"), "idle")
    wait_for_states(lab, "idle", "unhealthy unhealthy healthy")
    wait_for_states(lab, "off", "unhealthy healthy healthy")
    report = {entry["name"]: entry for entry in fleet.module("lb1", "lb_info", gather=["status"])["listeners"]}
    health = {name: [backend["health"]["state"] for backend in report[name]["backends"]] for name in ("idle", "off")}
    assert health == {"idle": ["unhealthy", "unhealthy", "healthy"], "off": ["unhealthy", "healthy", "healthy"]}
    assert [backend["status"] for backend in report["idle"]["backends"]] == ["unhealthy", "drained", "disabled"]
    assert report["idle"]["backends"][0]["health"]["last_check"] == "status 503, expected 200"
    assert report["off"]["status"] == "disabled"


@pytest.mark.parametrize("family", FAMILIES)
def test_row_27_all_checks_fail(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 27: flows reach all primaries; with drop a SYN gets no answer and leaves no entry."""
    drop: dict[str, Any] = {"failover_policy": {"drop_traffic_if_unhealthy": True}}
    options: dict[str, Any] = {"scheduler": "wrr", "health_check": http_check("all")}
    fleet.configure(
        [listener(lab, "open", family, 28, **options), listener(lab, "shut", family, 29, **options, **drop)]
    )
    for name in ("open", "shut"):
        wait_for_states(lab, name, "healthy healthy healthy")
    for node in lab.nodes("backend"):
        sicken(node, "all")
    for name in ("open", "shut"):
        wait_for_states(lab, name, "unhealthy unhealthy unhealthy")
    assert _served(client, 28, family=family) == {"b1": 20, "b2": 20, "b3": 20}
    records = run_load(client, "http", [target(vip(family, 29), 80)], count=5, concurrency=5, timeout=2)
    assert [record.error for record in records] == ["timeout"] * 5
    listed = lab.node("lb1").run(["conntrack", "-L", "-f", f"ipv{family}", "-d", vip(family, 29)], check=False)
    assert not listed.stdout.strip()
    status = {
        entry["name"]: entry["status"] for entry in fleet.module("lb1", "lb_info", gather=["status"])["listeners"]
    }
    assert status == {"open": "degraded", "shut": "offline"}


def test_rows_28_29_failover(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Rows 28 and 29: ratio 0 and a ratio; failback moves new flows only; no healthy failover, all dead."""
    zero, ratio = _web(lab, "zero", 30), _web(lab, "ratio", 31, failover_policy={"failover_ratio": 1})
    for entry in (zero, ratio):
        entry["backends"][2]["failover"] = True
    fleet.configure([zero, ratio])
    for name in ("zero", "ratio"):
        wait_for_states(lab, name, "healthy healthy healthy")
    assert _served(client, 30) == _served(client, 31) == {"b1": 30, "b2": 30}

    sicken(lab.node("b1"), "zero", "ratio")
    for name in ("zero", "ratio"):
        wait_for_states(lab, name, "unhealthy healthy healthy")
    assert _served(client, 30) == {"b2": 60}
    assert _served(client, 31) == {"b3": 60}

    sicken(lab.node("b3"), "ratio")
    wait_for_states(lab, "ratio", "unhealthy healthy unhealthy")
    # Row 29: there is no healthy failover backend, so the healthy primaries get the flows.
    assert _served(client, 31) == {"b2": 60}

    sicken(lab.node("b2"), "zero", "ratio")
    wait_for_states(lab, "zero", "unhealthy unhealthy healthy")
    wait_for_states(lab, "ratio", "unhealthy unhealthy unhealthy")
    assert _served(client, 30) == {"b3": 60}
    assert _served(client, 31) == {"b1": 30, "b2": 30}
    pools = {entry["name"]: entry["pool"] for entry in fleet.module("lb1", "lb_info", gather=["status"])["listeners"]}
    assert pools == {"zero": "failover", "ratio": "primary"}

    cure(lab.node("b1"), "zero")
    wait_for_states(lab, "zero", "healthy unhealthy healthy")
    assert _served(client, 30) == {"b1": 60}


@pytest.mark.parametrize("family", FAMILIES)
def test_row_31_datagrams_of_a_client_that_never_pauses(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 31: the next datagram reaches another backend, or none without another backend or the listener."""
    options: dict[str, Any] = {
        "protocol": "udp",
        "ports": [53],
        "scheduler": "wrr",
        "health_check": http_check("dns"),
        "connection_draining_timeout_sec": 0,
    }
    names = ("sick", "gone", "empty")
    listeners = [
        listener(lab, name, family, host, weights=(1, 1), **options) for name, host in zip(names, (33, 34, 35))
    ]
    listeners[2]["backends"] = listeners[2]["backends"][:1]
    fleet.configure(listeners)
    wait_for_states(lab, "sick", "healthy healthy")
    wait_for_states(lab, "empty", "healthy")
    targets = {name: target(vip(family, host), 53) for name, host in zip(names, (33, 34, 35))}
    asking = start_load(client, "udp", list(targets.values()), fixed=True, concurrency=2, rate=60, timeout=0.5)

    def by_target(records: list[Record]) -> dict[str, list[Record]]:
        return {name: [record for record in records if record.target == where] for name, where in targets.items()}

    wait_for_records(
        asking,
        lambda records: all("b1" in shares(own) for own in by_target(records).values()),
        "b1 answers for all",
    )
    fleet.configure([listeners[0], {**listeners[2], "backends": []}])
    sicken(lab.node("b1"), "dns")
    wait_for_states(lab, "sick", "unhealthy healthy")
    changed = time.time()
    wait_for_records(
        asking,
        lambda records: all(
            sum(record.t > changed for record in own) >= 2 * DATAGRAMS for own in by_target(records).values()
        ),
        f"{2 * DATAGRAMS} more datagrams to each listener",
    )
    late = {name: [record for record in own if record.t > changed] for name, own in by_target(finish(asking)).items()}
    assert not failures(late["sick"]) and set(shares(late["sick"])) == {"b2"}
    # The datagrams are refused, but the kernel limits the number of its errors.
    assert not shares(late["empty"])
    # No listener has the VIP any more.
    assert not shares(late["gone"])


@contextmanager
def _without_descriptors(node: Node) -> Iterator[None]:
    """Let the node's agent open no file and no socket for the length of the block."""
    pid = agent_pid(node)
    limits = node.run(["prlimit", "--pid", pid, "--nofile", "--noheadings", "--raw", "--output", "SOFT,HARD"]).stdout
    node.run(["prlimit", "--pid", pid, f"--nofile=3:{limits.split()[1]}"])
    try:
        yield
    finally:
        assert agent_pid(node) == pid, "the agent has not lived through it"
        node.run(["prlimit", "--pid", pid, f"--nofile={':'.join(limits.split())}"])


@contextmanager
def _without_backend_network(node: Node) -> Iterator[None]:
    """Take the node's interface on the backends' network down for the length of the block."""
    keeps_addresses = f"net.ipv6.conf.{BACK.name}.keep_addr_on_down"
    node.run(["sysctl", "-qw", f"{keeps_addresses}=1"])
    node.run(["ip", "link", "set", BACK.name, "down"])
    try:
        yield
    finally:
        node.run(["ip", "link", "set", BACK.name, "up"])
        node.run(["sysctl", "-qw", f"{keeps_addresses}=0"])


@pytest.mark.parametrize("trouble", [_without_descriptors, _without_backend_network])
def test_row_59_trouble_on_the_node(
    fleet: Fleet, lab: Lab, trouble: Callable[[Node], AbstractContextManager[None]]
) -> None:
    """Row 59: checks that the node cannot make change no state, and go on when it can."""
    node = lab.node("lb1")
    fleet.configure([_web(lab, "local", 29)])
    wait_for_states(lab, "local", "healthy healthy healthy")
    sicken(lab.node("b1"), "local")
    wait_for_states(lab, "local", "unhealthy healthy healthy")
    with trouble(node):
        cure(lab.node("b1"), "local")
        # Three times as long as it takes to make backends unhealthy.
        time.sleep(6)
        assert states(lab, "local") == "unhealthy healthy healthy"
    sicken(lab.node("b2"), "local")
    wait_for_states(lab, "local", "healthy unhealthy healthy")


def test_slow_start(fleet: Fleet, lab: Lab, client: Node) -> None:
    """A backend that joins begins with a small share, which rises to the full share and never falls.

    The bound of each measured share follows from the time that has passed.
    """
    rises = _web(lab, "rises", 34, slow_start_sec=10)
    fleet.configure([rises])
    wait_for_states(lab, "rises", "healthy healthy healthy")
    sicken(lab.node("b3"), "rises")
    wait_for_states(lab, "rises", "healthy healthy unhealthy")
    # The other backends joined when the listener was added, and rise as well.
    balancer = lab.node("lb1")
    wait_until(lambda: not runtime_state(balancer)["ramps"], "the others have risen")
    cured = time.time()
    cure(lab.node("b3"), "rises")
    wait_for_states(lab, "rises", "healthy healthy healthy")
    looks: list[tuple[float, int]] = []

    def look() -> int:
        shared = _served(client, 34).get("b3", 0)
        looks.append((time.time() - cured, shared))
        return shared

    wait_until(look, "b3 has its share", accepts=lambda shared: shared >= 20)
    # While the share rises, 60 flows are not a whole number of cycles.
    falls = [(earlier, later) for (_then, earlier), (_now, later) in zip(looks, looks[1:]) if later < earlier - 1]
    assert not falls, looks
    # The weight grows in proportion to the time; allow one more step of the clock and of the table.
    early = [(passed, shared) for passed, shared in looks if passed < 8]
    assert early, f"the first look came too late to see a rise: {looks}"
    for passed, shared in early:
        part = min(1.0, (passed + 1) / 10)
        assert shared <= 60 * part / (2 + part) + 2, looks


def test_weight_by_header(fleet: Fleet, lab: Lab, client: Node) -> None:
    """With `dynamic_weight` a backend has the weight in its answer to an http check."""
    fleet.configure([_web(lab, "asks", 35, health_check=http_check("asks", dynamic_weight=True))])
    wait_for_states(lab, "asks", "healthy healthy healthy")
    assert _served(client, 35) == {"b1": 30, "b2": 20, "b3": 10}


def test_detection(fleet: Fleet, lab: Lab) -> None:
    """50 failures, half of them silent: each backend loses and regains its slots; the longest times are printed."""
    names = [f"fails{number}" for number in range(10)]
    blackholed = [{**http_check(name, unhealthy_threshold=2, healthy_threshold=2), "port": 8080} for name in names[5:]]
    checks = [http_check(name, unhealthy_threshold=2, healthy_threshold=2) for name in names[:5]] + blackholed
    fleet.configure(
        [_web(lab, name, 60 + number, health_check=check) for number, (name, check) in enumerate(zip(names, checks))]
    )
    for name in names:
        wait_for_states(lab, name, "healthy healthy healthy")
    node, balancer = lab.node("b1"), lab.node("lb1")
    dropping = [
        "nft",
        "add table inet hole; add chain inet hole in { type filter hook input priority 0; }; "
        "add rule inet hole in tcp dport 8080 drop",
    ]
    begun: dict[str, list[float]] = {name: [] for name in names}
    dice = random.Random(5)

    def wait_for_change(number: int) -> None:
        """Wait until the slots of each listener have changed `number` times."""
        wait_until(
            lambda: {name: len(_slot_changes(watch.lines()).get(name, [])) for name in names},
            f"{number} changes of each",
            accepts=lambda seen: min(seen.values()) >= number,
        )

    with TableWatch(balancer) as watch:
        for round_number in range(5):
            for name in names[:5]:
                time.sleep(dice.random() / 5)
                begun[name].append(time.time())
                sicken(node, name)
            for name in names[5:]:
                begun[name].append(time.time())
            node.run(dropping)
            wait_for_change(2 * round_number + 1)
            for name in names[:5]:
                begun[name].append(time.time())
                cure(node, name)
            for name in names[5:]:
                begun[name].append(time.time())
            node.run(["nft", "delete", "table", "inet", "hole"])
            wait_for_change(2 * round_number + 2)
        seen = _slot_changes(watch.finish())
    took: dict[str, list[float]] = {"out": [], "in": []}
    for name in names:
        assert len(seen[name]) == 10, (name, seen[name], begun[name])
        for number, (began, changed) in enumerate(zip(begun[name], seen[name])):
            took["in" if number % 2 else "out"].append(changed - began)
    print(
        f"\n50 failures, 25 of them silent: out after at most {max(took['out']):.2f} s, "
        f"in after at most {max(took['in']):.2f} s; bound {EXPECTED_BOUND} = 3.1 s"
    )


def _answered(node: Node, status: int) -> int:
    """Return the number of checks of the counted path that a backend has answered with a status."""
    return node.get("/run/lab-http/counted.log").count(f'/health/counted HTTP/1.1" {status} ')


def _wait_for_answered(node: Node, status: int, count: int) -> None:
    wait_until(lambda: _answered(node, status), f"{count} checks answered", accepts=lambda seen: seen >= count)


def _slot_changes(lines: Iterable[str]) -> dict[str, list[float]]:
    """Return the times when the number of slots of each listener changed, by the changes of its chain."""
    changes: dict[str, list[float]] = {}
    for line in lines:
        match = re.match(r"([0-9.]+) add rule inet evenflow l_(\S+)", line)
        if not match:
            continue
        when, times = match[1], changes.setdefault(match[2], [])
        # Several lines of the same transaction are one change.
        if not times or float(when) - times[-1] > ONE_CHANGE_SECONDS:
            times.append(float(when))
    return changes
