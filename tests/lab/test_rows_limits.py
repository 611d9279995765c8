# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Row 39: limits of backends and listeners."""

from __future__ import annotations

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import FAMILIES, held_connections, listener, target, vip, wait_for_connections
from lab.traffic import failures, finish, run_load, shares, start_load
from lab.waiting import wait_until


@pytest.mark.nft
@pytest.mark.usefixtures("no_streams")
@pytest.mark.parametrize(("family", "scheduler", "other"), [(4, "wrr", "rr"), (6, "mh", "wrr")])
def test_row_39_backend_limits(fleet: Fleet, lab: Lab, client: Node, family: int, scheduler: str, other: str) -> None:
    """Row 39: limits of 2, 4 and 6 hold; full backends reject; ended flows make room, and counts outlive a change."""
    stream = listener(lab, "stream", family, 39, ports=[80], port=7000, scheduler=scheduler)
    for backend, limit in zip(stream["backends"], (2, 4, 6)):
        backend["max_connections"] = limit
    fleet.configure([stream])
    lab.route("lb1")
    address = [target(vip(family, 39), 80)]
    held = start_load(client, "stream", address, count=12, timeout=8)
    wait_for_connections(client, 80, 12)
    assert held_connections(lab) == {"b1": 2, "b2": 4, "b3": 6}
    more = run_load(client, "stream", address, count=6, seconds=1)
    assert len(failures(more)) == 6
    for change in (
        {"backends": [{**stream["backends"][0], "weight": 50}, *stream["backends"][1:]]},
        {"scheduler": other},
    ):
        stream.update(change)
        fleet.configure([stream])
        assert len(failures(run_load(client, "stream", address, count=6, seconds=1))) == 6
    # b1 has two live flows, so an edited limit of 3 has room for another one.
    stream["backends"][0]["max_connections"] = 3
    fleet.configure([stream])
    more = [
        record
        for record in run_load(client, "stream", address, count=4, seconds=1, timeout=8)
        if record.kind == "stream"
    ]
    assert shares(more) == {"b1": 1}
    stream["backends"][0]["max_connections"] = 2
    fleet.configure([stream])
    assert held_connections(lab) == {"b1": 2, "b2": 4, "b3": 6}
    ended = [record for record in finish(held) if record.kind == "stream"]
    assert not failures(ended), failures(ended)[:3]
    _wait_for_no_flows(lab.node("lb1"), family, vip(family, 39))
    # Flows that existed before their limit was edited are subtracted by a run after they have ended.
    fleet.configure([stream])
    again = [
        record
        for record in run_load(client, "stream", address, count=12, seconds=3, timeout=8)
        if record.kind == "stream"
    ]
    assert not failures(again), failures(again)[:3]
    assert shares(again) == {"b1": 2, "b2": 4, "b3": 6}


@pytest.mark.nft
@pytest.mark.usefixtures("no_streams")
@pytest.mark.parametrize("family", FAMILIES)
def test_row_39_listener_limit(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 39 (listener): the flow above the listener's limit is rejected, until one closes."""
    fleet.configure([listener(lab, "stream", family, 38, ports=[80], port=7000, scheduler="wrr", max_connections=5)])
    lab.route("lb1")
    address = [target(vip(family, 38), 80)]
    held = start_load(client, "stream", address, count=5)
    wait_for_connections(client, 80, 5)
    refused = failures(run_load(client, "stream", address, count=5, seconds=1))
    assert [record.error for record in refused] == ["Connection refused"] * 5
    assert not failures(finish(held))
    _wait_for_no_flows(lab.node("lb1"), family, vip(family, 38))
    assert not failures(run_load(client, "stream", address, count=5, seconds=1))


def _wait_for_no_flows(node: Node, family: int, address: str) -> None:
    """Wait until the node tracks no open flow to an address, because a limit counts these."""
    command = ["conntrack", "-L", "-f", f"ipv{family}", "-p", "tcp", "-d", address]

    def count_open() -> int:
        listed = node.run(command, check=False).stdout.splitlines()
        return sum(line.split()[3] not in ("TIME_WAIT", "CLOSE") for line in listed if line)

    wait_until(count_open, f"no flow to {address} is open", accepts=lambda seen: seen == 0)
