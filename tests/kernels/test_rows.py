# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows of the behaviour that depend on the kernel; most are tests of the lab, for one family, because this is slow."""

from __future__ import annotations

import time
from typing import Any

import pytest
from lab import Lab, Node, test_rows_affinity, test_rows_changes, test_rows_leaks, test_rows_limits, test_rows_selection
from lab.fleet import Fleet
from lab.model import Flow, Model
from lab.process import SLOWNESS, run
from lab.rows import (
    FAMILIES,
    backend_address,
    cure,
    http_check,
    listener,
    runtime_state,
    sicken,
    states,
    target,
    vip,
    wait_for_connections,
    wait_for_states,
)
from lab.topology import CLIENT_MORE_HOSTS, FRONT
from lab.traffic import failures, finish, run_tuples, start_load, wait_for_answers, wait_for_records
from lab.waiting import wait_until

_CONNTRACK_MAX = "net.netfilter.nf_conntrack_max"
_LISTED = ["nft", "list", "chain", "inet", "evenflow", "dispatch"]


@pytest.mark.parametrize("family", FAMILIES)
def test_row_13_wrr(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 13: 600 flows with wrr at 3:2:1: 300, 200 and 100 exactly, interleaved."""
    test_rows_selection.test_row_13_wrr(fleet, lab, client, family)


def test_row_15_mh(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 15: with mh the kernel chooses the backend that the model of the slot table predicts."""
    listeners: list[dict[str, Any]] = []
    flows: list[Any] = []
    for family in FAMILIES:
        weights, address = (5, 3, 2), vip(family, 15)
        listeners += [
            listener(lab, f"web{family}", family, 15, weights=weights),
            listener(lab, f"dns{family}", family, 15, protocol="udp", ports=[53], port=8053, weights=weights),
        ]
        for host in CLIENT_MORE_HOSTS:
            source = FRONT.v6(host) if family == 6 else FRONT.v4(host)
            flows += [("tcp", source, port, address, 80) for port in range(20000, 20005)]
            flows += [("udp", source, port, address, 53) for port in range(20000, 20020)]
    fleet.configure(listeners)
    names = {backend_address(lab, name, family): name for name in ("b1", "b2", "b3") for family in FAMILIES}
    model = Model(test_rows_selection.document(fleet), test_rows_selection.fleet_seed(lab))
    expected = {(flow[0], flow[1], flow[2]): names[model.backend(Flow(*flow))] for flow in flows}
    records = run_tuples(client, flows)
    assert not failures(records), failures(records)[:3]
    kinds = {"http": "tcp"}
    chosen = {(kinds.get(each.kind, each.kind), each.source, each.sport): each.backend for each in records}
    assert chosen == expected
    assert set(expected.values()) == {"b1", "b2", "b3"}


def test_row_20_sessions(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 20: per_session: clients with a session keep it, also when the table is replaced."""
    test_rows_affinity.test_row_20_sessions(fleet, lab, client, 6)


@pytest.mark.usefixtures("no_streams")
def test_row_39_backend_limits(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 39: limits of 2, 4 and 6 hold; full backends reject; ended flows make room, and counts outlive a change."""
    test_rows_limits.test_row_39_backend_limits(fleet, lab, client, 4, "wrr", "rr")


@pytest.mark.usefixtures("no_streams")
def test_row_39_listener_limit(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 39: the flow above the listener's limit is rejected, until one closes."""
    test_rows_limits.test_row_39_listener_limit(fleet, lab, client, 6)


@pytest.mark.usefixtures("no_streams")
def test_row_30_drained_and_disabled(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 30: drained at the deadline, and disabled: streams end, datagram flows move, other flows stay."""
    streams = [
        listener(lab, f"held{family}", family, 30, ports=[81], port=7000, scheduler="wrr") for family in FAMILIES
    ]
    dns = [
        listener(lab, f"dns{family}", family, 30, protocol="udp", ports=[53], port=8053, scheduler="wrr")
        for family in FAMILIES
    ]
    fleet.configure([*streams, *dns])
    held = start_load(
        client, "stream", [target(vip(family, 30), 81) for family in FAMILIES], count=12, interval=0.5, timeout=60
    )
    wait_for_connections(client, 81, 12)
    asked = start_load(
        client, "udp", [target(vip(family, 30), 53) for family in FAMILIES], concurrency=6, rate=12, fixed=True
    )
    wait_for_records(asked, lambda seen: {each.backend for each in seen} == {"b1", "b2", "b3"}, "each backend answers")
    for entry in (*streams, *dns):
        entry["connection_draining_timeout_sec"] = 1
        entry["backends"][0]["admin_state"] = "drained"
        entry["backends"][1]["admin_state"] = "disabled"
    fleet.configure([*streams, *dns])
    wait_for_records(held, lambda seen: sum(each.kind == "stream" for each in seen) >= 8, "eight streams end")
    before = len(asked.records())
    late = finish(asked, least=before + 24)[before + 12 :]
    assert {record.backend for record in late} == {"b3"} and not failures(late), late
    ended = [record for record in finish(held) if record.kind == "stream"]
    assert {record.error for record in ended if record.backend in ("b1", "b2")} == {"Connection reset by peer"}
    kept = [record for record in ended if record.backend == "b3"]
    assert len(kept) == 4 and not failures(kept)


def test_row_43_flush(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 43: after a flush of all tables the agent restores ours; no request fails and no stream ends."""
    listeners = [listener(lab, f"web{family}", family, 43, scheduler="wrr") for family in FAMILIES]
    listeners += [listener(lab, f"held{family}", family, 43, ports=[81], port=7000) for family in FAMILIES]
    fleet.configure(listeners)
    node = lab.node("lb1")
    held = start_load(
        client, "stream", [target(vip(family, 43), 81) for family in FAMILIES], count=6, push=True, timeout=60
    )
    wait_for_connections(client, 81, 6)
    load = start_load(client, "http", [target(vip(family, 43), 80) for family in FAMILIES], rate=10, timeout=60)
    for command in ("flush ruleset", "delete table inet evenflow"):
        wait_for_answers(load, 4)
        node.run(["nft", command])
        wait_until(lambda: node.run(_LISTED, check=False).returncode == 0, f"the table is back after {command}")
    records = finish(load, least=len(load.records()) + 8)
    assert not failures(records), failures(records)[:3]
    ended = [record for record in finish(held) if record.kind == "stream"]
    assert len(ended) == 6 and not failures(ended), failures(ended)[:3]


def test_a_module_run_restores_a_lost_table(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Without the agent a module run restores a lost table; flows that were idle meanwhile continue."""
    test_rows_changes.test_a_module_run_restores_a_lost_table(fleet, lab, client)


@pytest.mark.usefixtures("no_streams")
def test_deadlines_follow_the_clock(fleet: Fleet, lab: Lab, client: Node) -> None:
    """A drain lasts no longer when the clock is set back, and ends when it is set past the deadline."""
    stream = listener(lab, "stream", 4, 34, ports=[80], port=7000, scheduler="wrr")
    fleet.configure([stream])
    held = start_load(client, "stream", [target(vip(4, 34), 80)], count=3, interval=1, timeout=120)
    wait_for_connections(client, 80, 3)

    def ended(number: int) -> None:
        wait_for_records(held, lambda seen: sum(each.kind == "stream" for each in seen) == number, f"{number} ended")

    def drain(number: int, seconds: int) -> None:
        stream["connection_draining_timeout_sec"] = seconds
        stream["backends"][number]["admin_state"] = "drained"
        fleet.configure([stream])

    began, started = time.time(), time.monotonic()
    try:
        drain(0, 60)
        time.clock_settime(time.CLOCK_REALTIME, time.time() - 86400)
        ended(1)
        drain(1, 3600)
        time.clock_settime(time.CLOCK_REALTIME, time.time() + 3600)
        ended(2)
    finally:
        time.clock_settime(time.CLOCK_REALTIME, began + time.monotonic() - started)
    assert [record.error for record in finish(held) if record.kind == "stream"].count(None) == 1


@pytest.mark.usefixtures("no_streams")
def test_row_59_full_conntrack_table(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 59: while the node's conntrack table is full, checks change no state, and go on when there is room."""
    web = listener(lab, "web", 4, 59, health_check=http_check("web", check_interval_sec=2, timeout_sec=2))
    fleet.configure([web, listener(lab, "held", 4, 59, ports=[81], port=7000, scheduler="wrr")])
    wait_for_states(lab, "web", "healthy healthy healthy")
    sicken(lab.node("b1"), "web")
    wait_for_states(lab, "web", "unhealthy healthy healthy")
    held = start_load(client, "stream", [target(vip(4, 59), 81)], count=30, interval=1, timeout=120)
    wait_for_connections(client, 81, 30)
    node = lab.node("lb1")
    # Nodes have tables of their own and share their maximum. Established flows are not dropped to make room.
    maximum = run(["sysctl", "-n", _CONNTRACK_MAX]).stdout.strip()
    run(["sysctl", "-qw", f"{_CONNTRACK_MAX}=20"])
    try:
        cure(lab.node("b1"), "web")
        wait_until(
            lambda: {state["message"] for state in runtime_state(node)["health"].values()},
            "no check can be made",
            accepts=lambda seen: seen == {"not checked: the conntrack table of the node is full"},
        )
        # As long as it takes to make backends unhealthy.
        time.sleep(8 * SLOWNESS)
        assert states(lab, "web") == "unhealthy healthy healthy"
    finally:
        run(["sysctl", "-qw", f"{_CONNTRACK_MAX}={maximum}"])
    wait_for_states(lab, "web", "healthy healthy healthy")
    assert not failures([record for record in finish(held) if record.kind == "stream"])


@pytest.mark.parametrize("family", FAMILIES)
def test_row_10_no_leak(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 10: a backend's packets without an entry do not reach the client, whatever their TCP flags."""
    test_rows_leaks.test_row_10_no_leak(fleet, lab, client, family)


@pytest.mark.usefixtures("no_streams")
def test_row_53_wide_listeners_do_not_leak(fleet: Fleet, lab: Lab) -> None:
    """Row 53: a listener for ranges: after a deletion no untranslated packet of the flow reaches the client."""
    test_rows_leaks.test_row_53_wide_listeners_do_not_leak(fleet, lab, 6, "tcp", ["7000-7010"])


@pytest.mark.long
def test_row_41_first_datagrams(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 41: 1,000 replacements of the table lose no datagram."""
    test_rows_changes.replace_under_datagrams(fleet, lab, client, replacements=1000, rate=60)
