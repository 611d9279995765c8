# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Row 40 and the counters: what a node reports about its flows."""

from __future__ import annotations

import re
import time
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import FAMILIES, backend_address, listener, target, vip
from lab.topology import FRONT
from lab.traffic import failures, run_load
from lab.waiting import wait_until

_LOG = "/var/log/evenflow/flows.log"


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
        lambda: lab.node("lb1").get(_LOG),
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


def test_a_flood_does_not_fill_the_disk(fleet: Fleet, lab: Lab, client: Node) -> None:
    """A listener logs 1,000 flows per second at most, and a log of 64 MiB is rotated; old logs go."""
    logged = listener(lab, "flooded", 4, 42, log_config={"enable": True})
    fleet.deploy([logged], ["lb1"], lb_node_purge="all")
    lab.route("lb1")
    node = lab.node("lb1")
    node.run(["truncate", "--size", "0", _LOG])
    began = time.monotonic()
    client.run(["python3", "/opt/lab/spoofed.py", "syn", vip(4, 42), "80", "198.18.120.0", "50000"], timeout=300)
    seconds = time.monotonic() - began
    # A flow that is logged after the flood: all of its records are written by then.
    ask = partial(run_load, client, "http", [target(vip(4, 42), 80)], count=1)
    own = f" SRC={client.spec.nic(FRONT).v4} "
    wait_until(lambda: (ask(), own in node.get(_LOG))[1], "a flow is logged after the flood")
    lines = node.get(_LOG).count(" evenflow flooded ")
    assert 1000 <= lines <= 1000 * (seconds + 2)

    assert node.run(["systemctl", "is-active", "evenflow-log-rotate.timer"]).stdout.strip() == "active"
    node.run(["bash", "-c", f"rm --force {_LOG}.*; systemctl start evenflow-log-rotate.service"])
    assert _logs(node) == ["flows.log"]
    for _round in range(7):
        node.run(["truncate", "--size", "64M", _LOG])
        node.run(["systemctl", "start", "evenflow-log-rotate.service"])
        wait_until(lambda: (ask(), own in node.run(["cat", _LOG], check=False).stdout)[1], "the new log has a flow")
    assert _logs(node) == ["flows.log", *(f"flows.log.{number}" for number in range(1, 5))]
    node.run(["bash", "-c", f"rm {_LOG}.*"])


def _logs(node: Node) -> list[str]:
    return sorted(node.run(["ls", "/var/log/evenflow"]).stdout.split())


@pytest.mark.nft
@pytest.mark.parametrize("family", FAMILIES)
def test_counters(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Counters have flows, packets and bytes of both directions, and continue when listeners change."""

    name = f"counted{family}"

    def counted() -> dict[str, Any]:
        report = fleet.module("lb1", "lb_info", gather=["counters"], listeners=[name])["listeners"][0]
        by_backend = {backend["name"]: backend["counters"] for backend in report["backends"]}
        return {"listener": report["counters"], **by_backend}

    dns = listener(lab, name, family, 45, protocol="udp", ports=[53, 54], port=8053, scheduler="wrr", weights=(1, 1))
    fleet.configure([])
    fleet.configure([dns])
    lab.route("lb1")
    assert not failures(run_load(client, "udp", [target(vip(family, 45), 53)], size=100, count=20))
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
    # another port, because a source port that the first flows had would continue one of these
    assert not failures(run_load(client, "udp", [target(vip(family, 45), 54)], size=100, count=10))
    assert counted()["b1"] == first["b1"]
    assert counted()["b2"]["flows"] == 20
