# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Row 61: what crosses a node with a forward policy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.observers import Sniffer
from lab.rows import FAMILIES, backend_address, listener, sniffed, target, vip, wait_for_connections
from lab.topology import BACK, FRONT
from lab.traffic import failures, finish, run_load, run_tuples, start_load
from lab.waiting import wait_until

_SSH = 22
"""A server of the lab's own answers on this port, because the nodes run no ssh."""


@pytest.fixture
def routed(deployed: Fleet, lab: Lab, client: Node) -> Iterator[None]:
    """Route the backends' network through lb1, with a server on port 22 of a backend and of the client."""
    front, servers = lab.node("lb1").spec.nic(FRONT), [lab.node("b1"), client]
    lab.route("lb1")
    for prefix, via in ((BACK.prefix4, front.v4), (BACK.prefix6, front.v6)):
        client.run(["ip", "route", "replace", prefix, "via", via])
    running = [node.start(["python3", "/opt/lab/stream_server.py", str(_SSH)]) for node in servers]
    yield
    for server in running:
        server.terminate()
    for prefix in (BACK.prefix4, BACK.prefix6):
        client.run(["ip", "route", "del", prefix])
    _deploy(deployed, "none")


@pytest.mark.nft
@pytest.mark.usefixtures("routed", "no_streams")
def test_row_61_forward_policy(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 61: under `vips` a client reaches no port of a backend; listeners and what backends start work on."""
    fleet.configure(
        [
            *(listener(lab, f"web{family}", family, 61, ports=["80", "7000"]) for family in FAMILIES),
            *(listener(lab, f"dns{family}", family, 61, protocol="udp", ports=[8053]) for family in FAMILIES),
        ]
    )
    backend = lab.node("b1")
    ssh = [target(backend_address(lab, "b1", family), _SSH) for family in FAMILIES]
    home = [target(_address(client, family), _SSH) for family in FAMILIES]
    pairs = [*((client, server) for server in ssh), *((backend, server) for server in home)]
    wait_until(lambda: all(_reaches(*pair) for pair in pairs), "the servers on port 22 answer")
    assert all(_forged_arrives(lab, family, "b2") for family in FAMILIES)
    # Flows that are alive when the policy is switched on: of listeners, of a backend, of a client.
    ours = start_load(client, "stream", [target(vip(family, 61), 7000) for family in FAMILIES], count=4, timeout=30)
    started = start_load(backend, "stream", home, count=2, timeout=30)
    foreign = start_load(client, "stream", ssh, count=2, timeout=5)
    wait_for_connections(client, 7000, 4)
    wait_for_connections(backend, _SSH, 2)
    wait_for_connections(client, _SSH, 2)

    assert _deploy(fleet, "vips") > 0
    assert _deploy(fleet, "vips") == 0
    for family, blocked, reached in zip(FAMILIES, ssh, home):
        assert not _reaches(client, blocked)
        assert not _reaches(client, target(backend_address(lab, "b1", family), 80))
        # Of another backend: the entry of the first one lives on.
        assert not _forged_arrives(lab, family, "b3")
        assert _reaches(backend, reached)
        assert not failures(run_load(client, "http", [target(vip(family, 61), 80)], count=20, timeout=10))
        # Larger than a packet: the fragments are forwarded in both directions.
        assert not failures(run_load(client, "udp", [target(vip(family, 61), 8053)], count=20, size=4000, timeout=10))
        backend.run(["ping", "-c", "1", "-W", "5", _address(client, family)])
        assert client.run(["ping", "-c", "1", "-W", "1", backend_address(lab, "b1", family)], check=False).returncode
    wait_until(lambda: len(failures(foreign.records())) == 2, "the client's own flows have ended")
    foreign.abandon()
    for load in (ours, started):
        assert not failures(finish(load))

    _deploy(fleet, "none")
    assert _reaches(client, ssh[0])


@pytest.mark.usefixtures("routed")
@pytest.mark.parametrize("family", FAMILIES)
def test_row_61_errors(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 61 (ICMP): the error "too big" from the client's side still reaches the backend of its flow."""
    fleet.configure([listener(lab, "dns", family, 61, protocol="udp", ports=[53], port=8053)])
    _deploy(fleet, "vips")
    source = _address(client, family)
    record = run_tuples(client, [("udp", source, 23461, vip(family, 61), 53)])[0]
    assert record.ok, record
    too_big = "icmp[0] = 3 and icmp[1] = 4" if family == 4 else "icmp6 and ip6[40] = 2"
    with sniffed(lab, too_big) as seen:
        client.run(["python3", "/opt/lab/odd_packets.py", "too-big", vip(family, 61), source, "23461"])
    assert [name for name, text in seen.items() if text.strip()] == [record.backend]


def _deploy(fleet: Fleet, policy: str) -> int:
    """Deploy the nodes' settings with a policy, and return the number of tasks that changed something."""
    listeners: list[dict[str, object]] = []
    return fleet.deploy(listeners, tags=["configure", "listeners"], lb_node_forward_policy=policy).changed


def _address(node: Node, family: int) -> str:
    nic = node.spec.nic(FRONT)
    return nic.v6 if family == 6 else nic.v4


def _reaches(node: Node, server: str) -> bool:
    records = run_load(node, "stream", [server], count=1, seconds=0.2, timeout=2)
    return not failures(records)


def _forged_arrives(lab: Lab, family: int, name: str) -> bool:
    """Return whether a SYN of the client with the address of another backend as its source arrives at b1."""
    forged, victim = backend_address(lab, name, family), backend_address(lab, "b1", family)
    expression = f"{'ip6' if family == 6 else 'ip'} src host {forged} and tcp dst port {_SSH}"
    with Sniffer(lab.node("b1"), BACK.name, expression, beside=lab.node("lb1")) as sniffer:
        lab.node("c1").run(["python3", "/opt/lab/spoofed.py", "syn", victim, str(_SSH), forged, "1"])
        return bool(sniffer.finish())
