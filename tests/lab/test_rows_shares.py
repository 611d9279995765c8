# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Row 16: lc and wlc, whose shares the agent sets."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import FAMILIES, held_connections, listener, target, vip, wait_for_connections
from lab.traffic import failures, finish, run_load, shares, start_load
from lab.waiting import wait_until


@pytest.mark.usefixtures("no_streams")
@pytest.mark.parametrize("family", FAMILIES)
def test_row_16_lc(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 16: with 30 flows on b1 and lc the next 30 flows reach other backends."""
    stream = listener(lab, "stream", family, 16, ports=[80], port=7000, scheduler="lc", weights=(1, 0, 0))
    fleet.configure([stream])
    lab.route("lb1")
    address = [target(vip(family, 16), 80)]
    held = start_load(client, "stream", address, count=30)
    wait_for_connections(client, 80, 30)
    for backend in stream["backends"]:
        backend["weight"] = 1
    fleet.configure([stream])
    _wait_for_slots(fleet, "stream", lambda slots: slots["b1"] == 0 and slots["b2"] == slots["b3"])
    more = run_load(client, "stream", address, count=30, seconds=2)
    assert not failures(more)
    assert shares([record for record in more if record.kind == "stream"]) == {"b2": 15, "b3": 15}
    assert shares([record for record in finish(held) if record.kind == "stream"]) == {"b1": 30}


@pytest.mark.usefixtures("no_streams")
def test_row_16_wlc(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 16: held flows reach 3:2:1 within 10 %, from a start where one backend has all."""
    stream = listener(lab, "stream", 4, 17, ports=[80], port=7000, scheduler="wlc", weights=(0, 0, 1))
    http = listener(lab, "http", 4, 18, scheduler="wlc", weights=(1, 1, 0))
    fleet.configure([stream, http])
    lab.route("lb1")
    address = [target(vip(4, 17), 80)]
    loads = [start_load(client, "stream", address, count=200, interval=5, timeout=30)]
    wait_for_connections(client, 80, 200)
    for backend, weight in zip(stream["backends"], (3, 2, 1)):
        backend["weight"] = weight
    fleet.configure([stream, http])
    for batch in range(1, 8):
        loads.append(start_load(client, "stream", address, count=400, interval=5, timeout=30))
        wait_for_connections(client, 80, 200 + 400 * batch)
        # The agent sets shares several times a second.
        time.sleep(0.6)
    held = held_connections(lab)
    assert sum(held.values()) == 3000
    assert {name: count / 3000 for name, count in held.items()} == {
        name: pytest.approx(share / 6, rel=0.1) for name, share in zip(("b1", "b2", "b3"), (3, 2, 1))
    }
    for load in loads:
        assert not failures(finish(load))


@pytest.mark.usefixtures("no_streams")
def test_row_16_joiner(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 16: a backend that joins gets more than its fair share of new flows, and no more than twice that."""
    stream = listener(lab, "stream", 4, 19, ports=[80], port=7000, scheduler="lc", weights=(0, 1, 1))
    fleet.configure([stream])
    lab.route("lb1")
    address = [target(vip(4, 19), 80)]
    held = start_load(client, "stream", address, count=600, interval=5, timeout=30)
    wait_for_connections(client, 80, 600)
    stream["backends"][0]["weight"] = 1
    fleet.configure([stream])
    _wait_for_slots(fleet, "stream", lambda slots: slots["b1"] > slots["b2"])
    more = run_load(client, "stream", address, count=150, seconds=1)
    joined = shares([record for record in more if record.kind == "stream"])
    assert 150 / 3 < joined["b1"] <= 2 * 150 / 3 + 1
    assert not failures(finish(held))


def _wait_for_slots(fleet: Fleet, name: str, accepts: Callable[[dict[str, int]], bool]) -> None:
    """Wait until the agent has set the slots of a listener so that `accepts` accepts them, by backend."""

    def slots() -> dict[str, int]:
        report = fleet.module("lb1", "lb_info", gather=["tables"], listeners=[name])["listeners"][0]
        return {backend["name"]: backend["slots"] for backend in report["backends"]}

    wait_until(slots, "the agent sets the shares", accepts=accepts)
