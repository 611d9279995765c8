# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 55 and 56: which clients a listener admits, and how many flows of each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import FAMILIES, held_connections, listener, target, vip, wait_for_connections
from lab.topology import FRONT
from lab.traffic import Flow, Record, failures, finish, run_load, run_tuples, start_load
from lab.waiting import wait_until

_SOURCES = {4: "198.18.120.0", 6: "2001:db8:f000::"}
"""The first of the forged addresses, which belong to no node."""

_SPOOFED = 100_000


@pytest.mark.nft
@pytest.mark.parametrize("scheduler", ["mh", "wrr", "sh"])
@pytest.mark.parametrize("family", FAMILIES)
def test_row_55_source_ranges(fleet: Fleet, lab: Lab, client: Node, family: int, scheduler: str) -> None:
    """Row 55: a client outside of the ranges is rejected without an entry; one inside is served; live flows stay."""
    inside, outside = _source(family, 11), _source(family, 12)
    ranges = _others(family) + [f"{inside}/{_bits(family)}", f"{_source(family, 10)}/{_bits(family)}"]
    web = listener(lab, "web", family, 55, scheduler=scheduler, ports=["80", "7000"], source_ranges=ranges)
    dns = listener(lab, "dns", family, 55, scheduler=scheduler, protocol="udp", ports=[8053], source_ranges=ranges)
    fleet.configure([web, dns])
    lab.route("lb1")
    before = _refused(fleet, "web")
    assert not failures(_ask(client, family, inside))
    refused = _ask(client, family, outside)
    # The kernel limits the errors that it sends to a client, so some datagrams get no answer.
    assert {record.error for record in refused if record.kind == "tcp"} == {"Connection refused"}
    assert "Connection refused" in {record.error for record in refused if record.kind == "udp"}
    assert len(failures(refused)) == len(refused) == 10
    assert outside not in lab.node("lb1").run(["conntrack", "-L", "-f", f"ipv{family}"]).stdout
    assert _refused(fleet, "web") == {"source_ranges": before["source_ranges"] + 5}

    # The client's flow is established from an address that is taken out of the ranges afterwards.
    held = start_load(client, "stream", [target(vip(family, 55), 7000)], count=3)
    wait_for_connections(client, 7000, 3)
    web["source_ranges"] = [network for network in ranges if not network.startswith(f"{_source(family, 10)}/")]
    changed = fleet.module("lb1", "lb_config", listeners=[web])
    statements = [line for line in changed["commands"] if " sources" in line]
    assert statements and all(" element " in line and len(line) < 300 for line in changed["commands"])
    assert not fleet.module("lb1", "lb_config", listeners=[web])["changed"]
    asked = _ask(client, family, _source(family, 10))
    assert {record.error for record in asked if record.kind == "tcp"} == {"Connection refused"}
    assert not failures(finish(held))


@pytest.mark.nft
@pytest.mark.parametrize("family", FAMILIES)
def test_row_56_rate_of_the_listener(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 56: below the rate no flow is refused; above rate and burst TCP is rejected and datagrams are dropped."""
    # A rate of one flow in a second gives nothing back to speak of while the test sends.
    few: dict[str, Any] = {"max_connection_rate": {"rate": 1, "burst": 20}}
    fleet.configure(
        [
            listener(lab, f"few{family}", family, 56, **few),
            listener(lab, f"dns{family}", family, 56, protocol="udp", ports=[8053], **few),
            listener(lab, f"many{family}", family, 57, max_connection_rate={"rate": 100, "burst": 80}),
        ]
    )
    lab.route("lb1")
    assert not failures(run_load(client, "http", [target(vip(family, 57), 80)], count=120, rate=20, concurrency=1))
    assert _refused(fleet, f"many{family}") == {"max_connection_rate": 0}

    records = run_load(client, "http", [target(vip(family, 56), 80)], count=200, concurrency=8)
    served = len(records) - len(failures(records))
    assert 20 <= served <= 20 + _seconds(records) + 1
    assert {record.error for record in failures(records)} == {"Connection refused"}
    assert _refused(fleet, f"few{family}") == {"max_connection_rate": len(failures(records))}

    records = run_load(client, "udp", [target(vip(family, 56), 8053)], count=60, timeout=1, concurrency=60)
    served = len(records) - len(failures(records))
    assert 20 <= served <= 20 + _seconds(records) + 1
    assert {record.error for record in failures(records)} == {"timeout"}


@pytest.mark.nft
@pytest.mark.parametrize("family", FAMILIES)
def test_row_56_rate_of_a_client(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 56 (per client): a greedy client is refused above its share, and takes nothing from another one."""
    options: dict[str, Any] = {
        "max_connection_rate": {"rate": 1, "burst": 60},
        "max_connection_rate_per_client": {"rate": 1, "burst": 20},
    }
    fleet.configure([listener(lab, f"client58-{family}", family, 58, **options)])
    lab.route("lb1")
    greedy, modest = _source(family, 11), _source(family, 12)
    records = run_tuples(client, _flows(family, 58, greedy, 200))
    served = len(records) - len(failures(records))
    assert 20 <= served <= 20 + _seconds(records) + 1
    assert not failures(run_tuples(client, _flows(family, 58, modest, 20)))
    assert _refused(fleet, f"client58-{family}") == {
        "max_connection_rate_per_client": len(failures(records)),
        "max_connection_rate": 0,
    }
    # With a shorter prefix both are one client.
    options["max_connection_rate_per_client"]["prefix"] = 24 if family == 4 else 64
    fleet.configure([listener(lab, f"client58-{family}", family, 58, **options)])
    for source in (greedy, modest):
        records = run_tuples(client, _flows(family, 58, source, 20, first_port=30000))
        assert bool(failures(records)) == (source == modest)


@pytest.mark.nft
@pytest.mark.usefixtures("no_streams")
@pytest.mark.parametrize("family", FAMILIES)
def test_row_56_connections_of_a_client(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 56 (connections per client): the flow above the limit is rejected, another client is served."""
    limit: dict[str, Any] = {"max_connections_per_client": {"limit": 5}}
    fleet.configure([listener(lab, f"client59-{family}", family, 59, ports=["80", "7000"], **limit)])
    lab.route("lb1")
    held = start_load(client, "stream", [target(vip(family, 59), 7000)], count=5)
    wait_for_connections(client, 7000, 5)
    records = run_load(client, "http", [target(vip(family, 59), 80)], count=10)
    assert [record.error for record in records] == ["Connection refused"] * 10
    assert _refused(fleet, f"client59-{family}") == {"max_connections_per_client": 10}
    assert not failures(run_tuples(client, _flows(family, 59, _source(family, 11), 5), concurrency=1))
    assert sum(held_connections(lab).values()) == 5
    assert not failures(finish(held))
    address = [target(vip(family, 59), 80)]
    wait_until(lambda: not failures(run_load(client, "http", address, count=1)), "a place is free")


@pytest.mark.nft
@pytest.mark.parametrize("family", FAMILIES)
def test_row_56_spoofed_sources(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Rows 56 and 57 (100,000 spoofed sources): sets stay within their size; a client beside them loses no request."""
    options: dict[str, Any] = {
        "max_connection_rate_per_client": {"rate": 100},
        "max_connections_per_client": {"limit": 100},
    }
    fleet.configure([listener(lab, f"client60-{family}", family, 60, **options)])
    lab.route("lb1")
    balancer = lab.node("lb1")
    before = _slab(balancer)
    beside = start_load(client, "http", [target(vip(family, 60), 80)], rate=20, concurrency=4, timeout=30)
    command = ["python3", "/opt/lab/spoofed.py", "syn", vip(family, 60), "80", _SOURCES[family], str(_SPOOFED)]
    client.run(command, timeout=300)
    sizes = {name: _elements(balancer, name) for name in _sets(balancer, f"client60-{family}")}
    records = finish(beside, least=60)
    print(f"after {_SPOOFED} spoofed sources: {sizes}, kernel memory {_slab(balancer) - before:+} kB, "
          f"{len(failures(records))} of {len(records)} requests lost")  # fmt: skip
    assert set(map(bool, sizes.values())) == {True}
    assert all(size <= 65536 for size in sizes.values())
    assert not failures(records), failures(records)[:3]
    assert not failures(run_load(client, "http", [target(vip(family, 60), 80)], count=20))
    balancer.run(["conntrack", "-D", "-f", f"ipv{family}", "-d", vip(family, 60)], check=False)
    wait_until(
        lambda: [_elements(balancer, name) for name in sizes],
        "the clients are forgotten",
        accepts=lambda seen: max(seen) < 100,
    )


def _source(family: int, host: int) -> str:
    return FRONT.v6(host) if family == 6 else FRONT.v4(host)


def _bits(family: int) -> int:
    return 128 if family == 6 else 32


def _others(family: int) -> list[str]:
    """Return 10,000 ranges, of which none touches another."""
    if family == 6:
        return [f"2001:db8:e000:{2 * number:x}::/64" for number in range(10_000)]
    return [f"198.19.{number // 128}.{number % 128 * 2}/32" for number in range(10_000)]


def _flows(family: int, host: int, source: str, count: int, *, first_port: int = 28000) -> list[Flow]:
    return [("tcp", source, first_port + number, vip(family, host), 80) for number in range(count)]


def _ask(client: Node, family: int, source: str) -> list[Record]:
    """Ask from five ports of a source, in TCP and in UDP."""
    tcp: list[Flow] = [("tcp", source, port, vip(family, 55), 80) for port in range(29000, 29005)]
    return run_tuples(client, [*tcp, *(("udp", *flow[1:4], 8053) for flow in tcp)])


def _refused(fleet: Fleet, name: str) -> dict[str, int]:
    info = fleet.module("lb1", "lb_info", listeners=[name], gather=["counters"])
    refused: dict[str, int] = info["listeners"][0]["counters"]["refused"]
    return refused


def _seconds(records: list[Record]) -> float:
    """Return the time from the start of the first record to the end of the last."""
    return max(record.t + record.seconds for record in records) - min(record.t for record in records)


def _sets(node: Node, name: str) -> list[str]:
    """Return the names of the sets that count the clients of a listener."""
    listed: list[dict[str, Any]] = json.loads(node.run(["nft", "-j", "list", "sets", "inet"]).stdout)["nftables"]
    names = [entry["set"]["name"] for entry in listed if "set" in entry]
    kinds = ("rates4", "rates6", "counts4", "counts6")
    return [each for each in names if each.startswith(tuple(f"{kind}_{name}_" for kind in kinds))]


def _elements(node: Node, name: str) -> int:
    listed = node.run(["nft", "-j", "list", "set", "inet", "evenflow", name]).stdout
    return sum(len(entry["set"].get("elem", ())) for entry in json.loads(listed)["nftables"] if "set" in entry)


def _slab(node: Node) -> int:
    """Return the kernel's unreclaimable memory in kB."""
    return next(
        int(line.split()[1]) for line in node.get("/proc/meminfo").splitlines() if line.startswith("SUnreclaim")
    )
