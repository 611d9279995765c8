# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 8, 11 and 51: wide ports, errors and fragments, and unserved ports."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import FAMILIES, listener, sniffed, target, vip, wait_for_connections
from lab.topology import FRONT, on_link_vip4, on_link_vip6
from lab.traffic import failures, finish, run_load, run_tuples, shares, start_load, wait_for_records
from lab.waiting import wait_until

_TOO_BIG_SEEN = {4: "icmp[0] = 3 and icmp[1] = 4", 6: "icmp6 and ip6[40] = 2"}


@pytest.mark.nft
@pytest.mark.parametrize("family", FAMILIES)
def test_row_8_wide_ports(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 8 (ranges, all ports, any protocol): packets inside arrive, packets outside are refused."""
    fleet.configure(
        [
            listener(lab, "range", family, 80, ports=["8000-8080", "81"]),
            listener(lab, "all-tcp", family, 81, ports=["all"], scheduler="wrr"),
            listener(lab, "all-udp", family, 81, ports=["all"], protocol="udp"),
            listener(lab, "any", family, 82, ports=["all"], protocol="any", scheduler="wrr"),
        ]
    )
    lab.route("lb1")
    for host, port in ((80, 8080), (81, 80), (81, 8080), (82, 80)):
        records = run_load(client, "http", [target(vip(family, host), port)], count=60)
        assert not failures(records), (host, port, failures(records)[:3])
        assert set(shares(records)) == {"b1", "b2", "b3"}
    for host in (81, 82):
        assert not failures(run_load(client, "udp", [target(vip(family, host), 8053)], count=60))
    for port in (80, 8081):
        refused = run_load(client, "http", [target(vip(family, 80), port)], count=5)
        assert [record.error for record in refused] == ["Connection refused"] * 5

    before = _flows_of(fleet, "any")
    client.run(["ping", "-c", "3", "-i", "0.2", "-W", "2", vip(family, 82)])
    assert _flows_of(fleet, "any") == before + 1
    with sniffed(lab, "proto 47" if family == 4 else "ip6 proto 47") as seen:
        client.run(["python3", "/opt/lab/odd_packets.py", "gre", vip(family, 82)])
    assert sum("GRE" in text for text in seen.values()) == 1


@pytest.mark.nft
@pytest.mark.parametrize("family", FAMILIES)
def test_sctp(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """SCTP INITs reach the backends on the translated port. No node runs SCTP, so no association is established."""
    fleet.configure([listener(lab, "ss7", family, 83, protocol="sctp", ports=[2905], port=2906, scheduler="wrr")])
    lab.route("lb1")
    with sniffed(lab, "sctp dst port 2906" if family == 4 else "ip6 proto 132") as seen:
        client.run(["python3", "/opt/lab/odd_packets.py", "sctp", vip(family, 83), "2905"])
    assert {name: text.count(".2906: sctp") for name, text in seen.items()} == {"b1": 4, "b2": 4, "b3": 4}


@pytest.mark.nft
@pytest.mark.parametrize("family", FAMILIES)
def test_row_11_icmp_and_fragments(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 11: "too big" from the client's side reaches the right backend; datagrams of 4 kB arrive complete."""
    fleet.configure([listener(lab, "dns", family, 11, protocol="udp", ports=[53], port=8053)])
    lab.route("lb1")
    assert not failures(run_load(client, "udp", [target(vip(family, 11), 53)], count=50, size=4000))
    nic = client.spec.nic(FRONT)
    source = nic.v6 if family == 6 else nic.v4
    record = run_tuples(client, [("udp", source, 23456, vip(family, 11), 53)])[0]
    with sniffed(lab, _TOO_BIG_SEEN[family]) as seen:
        client.run(["python3", "/opt/lab/odd_packets.py", "too-big", vip(family, 11), source, "23456"])
    assert [name for name, text in seen.items() if text.strip()] == [record.backend]


@pytest.mark.usefixtures("no_streams")
@pytest.mark.parametrize("family", FAMILIES)
def test_row_11_path_mtu(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 11 (path MTU): large answers pass a narrow link: the node's own "too big" reaches the backend."""
    fleet.configure([listener(lab, "web", family, 12, scheduler="wrr")])
    lab.route("lb1")
    node = lab.node("lb1")
    # Remove what backends have learned about the path to the client.
    for backend in lab.nodes("backend"):
        backend.run(["ip", f"-{family}", "route", "flush", "cache"])
    node.run(["ip", "link", "set", "front", "mtu", "1280"])
    try:
        with sniffed(lab, _TOO_BIG_SEEN[family]) as seen:
            records = run_load(client, "http", [target(vip(family, 12), 80)], path="/large", count=12)
    finally:
        node.run(["ip", "link", "set", "front", "mtu", "1500"])
    assert not failures(records), failures(records)[:3]
    assert set(shares(records)) == {"b1", "b2", "b3"}
    assert all(text.strip() for text in seen.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_disabled_listener_rejects(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """A disabled listener, or a listener without eligible backends, rejects new flows and keeps live flows."""
    stream = listener(lab, "stream", family, 60, ports=[80], port=7000)
    dns = listener(lab, "dns", family, 60, protocol="udp", ports=[53], port=8053)
    fleet.configure([stream, dns])
    lab.route("lb1")
    held = start_load(client, "stream", [target(vip(family, 60), 80)], count=10)
    wait_for_connections(client, 80, 10)
    stream["admin_state"] = "disabled"
    for backend in dns["backends"]:
        backend["weight"] = 0
    fleet.configure([stream, dns])
    refused = run_load(client, "http", [target(vip(family, 60), 80)], count=5)
    assert [record.error for record in refused] == ["Connection refused"] * 5

    def refuse_datagrams() -> set[str | None]:
        return {record.error for record in run_load(client, "udp", [target(vip(family, 60), 53)], count=5, timeout=1)}

    # The kernel limits how many ICMP errors it sends to one client, so some datagrams get no answer.
    errors = wait_until(refuse_datagrams, "datagrams are refused", accepts=lambda seen: "Connection refused" in seen)
    assert errors <= {"Connection refused", "timeout"}
    assert not failures(finish(held))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flow_that_began_too_early(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """A client that never pauses and began before the listener existed gets answers once it exists."""
    nic = lab.node("lb1").spec.nic(FRONT)
    own = nic.v6 if family == 6 else nic.v4
    dns = {**listener(lab, "dns", family, 0, protocol="udp", ports=[53], port=8053), "address": own}
    fleet.configure([])
    asking = start_load(client, "udp", [target(own, 53)], fixed=True, concurrency=1, rate=20, timeout=1)
    early = wait_for_records(asking, lambda records: len(records) >= 3, "datagrams before there is a listener")
    tracked = (
        lab.node("lb1").run(["conntrack", "-L", "-f", f"ipv{family}", "-p", "udp", "-d", own, "--dport", "53"]).stdout
    )
    assert len(tracked.splitlines()) == 1
    # The kernel limits the number of its errors that no program listens.
    assert {record.error for record in early} <= {"Connection refused", "timeout"}
    assert "Connection refused" in {record.error for record in early}
    fleet.modules(["lb1"], [("lb_config", {"listeners": [dns]})])
    configured = time.time()
    wait_for_records(
        asking, lambda records: sum(record.t > configured for record in records) >= 20, "20 datagrams more"
    )
    records = finish(asking)
    assert len({record.sport for record in records}) == 1
    late = [record for record in records if record.t > configured]
    assert not failures(late), failures(late)[:3]


def test_row_51_unserved_ports(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 51: unserved ports are rejected on a dedicated VIP and untouched where the address is the node's own."""
    node = lab.node("lb1")
    nic = node.spec.nic(FRONT)
    own = {4: nic.v4, 6: nic.v6}
    dedicated = {4: on_link_vip4(251), 6: on_link_vip6(251)}

    def listeners(addresses: dict[int, str]) -> list[dict[str, Any]]:
        return [{**listener(lab, f"web{family}", family, 51), "address": addresses[family]} for family in FAMILIES]

    deploy = partial(fleet.deploy, nodes=["lb1"], tags=["configure", "listeners"], lb_node_purge="all")
    deploy(listeners(dedicated), lb_node_vip_mode="address", lb_node_vip_interface="front")
    server = node.start(["python3", "-m", "http.server", "8000", "--bind", "::"])
    try:
        wait_until(lambda: node.run(["ss", "-Htln", "sport", "=", ":8000"]).stdout, "the server listens")
        for address in dedicated.values():
            assert not failures(run_load(client, "http", [target(address, 80)], count=5))
            for port in (8000, 81):
                refused = run_load(client, "http", [target(address, port)], count=3)
                assert [record.error for record in refused] == ["Connection refused"] * 3
            client.run(["ping", "-c", "1", "-W", "2", address])
        deploy(listeners(own))
        for address in own.values():
            assert not failures(run_load(client, "http", [target(address, 80)], count=5))
            answer = client.run(
                [
                    "curl",
                    "-sS",
                    "--max-time",
                    "5",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    f"http://{target(address, 8000)}/",
                ]
            )
            assert answer.stdout == "200"
    finally:
        server.terminate()
        server.communicate()
        deploy([])


def _flows_of(fleet: Fleet, name: str) -> int:
    listeners = fleet.module("lb1", "lb_info", gather=["counters"], listeners=[name])["listeners"]
    flows: int = listeners[0]["counters"]["flows"]
    return flows
