# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Row 40 and the counters: what a node reports about its flows."""

from __future__ import annotations

import re
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import FAMILIES, backend_address, listener, target, vip
from lab.traffic import failures, run_load
from lab.waiting import wait_until


def test_row_40_log(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 40: 1,000 flows at a sample rate of 0.1: 60 to 140 records, with listener and backend."""
    fleet.deploy(
        [
            *(
                listener(
                    lab, f"logged{family}", family, 40, scheduler="wrr", log_config={"enable": True, "sample_rate": 0.1}
                )
                for family in FAMILIES
            ),
            listener(lab, "last", 4, 41, log_config={"enable": True, "sample_rate": 1}),
        ],
        ["lb1"],
        lb_node_purge="all",
    )
    lab.route("lb1")
    for family in FAMILIES:
        assert not failures(run_load(client, "http", [target(vip(family, 40), 80)], count=1000))
    # This flow is always logged: when its record is there, all earlier records are there too.
    assert not failures(run_load(client, "http", [target(vip(4, 41), 80)], count=1))
    log = wait_until(
        lambda: lab.node("lb1").get("/var/log/evenflow/flows.log"),
        "the last flow is logged",
        accepts=lambda text: " evenflow last " in text,
    )
    lines = log.splitlines()
    for family in FAMILIES:
        records = [line for line in lines if f" evenflow logged{family} " in line]
        assert 60 <= len(records) <= 140
        logged = {re.search(r" DST=(\S+) ", line)[1] for line in records}  # type: ignore[index]
        backends = {backend_address(lab, backend, family) for backend in ("b1", "b2", "b3")}
        assert {str(ip_address(address)) for address in logged} == backends


@pytest.mark.nft
@pytest.mark.parametrize("family", FAMILIES)
def test_counters(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Counters have flows, packets and bytes of both directions, and continue when listeners change."""

    name = f"counted{family}"

    def counted() -> dict[str, Any]:
        report = fleet.module("lb1", "lb_info", gather=["counters"], listeners=[name])["listeners"][0]
        by_backend = {backend["name"]: backend["counters"] for backend in report["backends"]}
        return {"listener": report["counters"], **by_backend}

    dns = listener(lab, name, family, 45, protocol="udp", ports=[53], port=8053, scheduler="wrr", weights=(1, 1))
    fleet.configure([])
    fleet.configure([dns])
    lab.route("lb1")
    ask = partial(run_load, client, "udp", [target(vip(family, 45), 53)], size=100)
    assert not failures(ask(count=20))
    first = counted()
    assert first["b1"]["flows"] == first["b2"]["flows"] == 10
    header = 28 if family == 4 else 48
    for part, flows in (("listener", 20), ("b1", 10), ("b2", 10)):
        assert first[part]["packets_in"] == first[part]["packets_out"] == flows
        assert first[part]["bytes_in"] == flows * (header + 100)
        assert first[part]["bytes_out"] > flows * (header + 100)
    dns["backends"][0]["weight"] = 0
    other = listener(lab, "other", family, 44)
    for change in ([dns], [dns, other], [{**dns, "scheduler": "mh"}, other]):
        fleet.configure(change)
        assert counted() == first
    assert not failures(ask(count=10))
    assert counted()["b1"] == first["b1"]
    assert counted()["b2"]["flows"] == 20
