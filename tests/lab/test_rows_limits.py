# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 39 and 57: limits of backends and listeners, also while clients attack."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import (
    FAMILIES,
    agent_pid,
    agent_stopped,
    forget_flows,
    held_connections,
    listener,
    target,
    vip,
    wait_for_connections,
)
from lab.topology import CLIENT_HOST, FRONT
from lab.traffic import Record, failures, finish, run_load, run_tuples, shares, start_load
from lab.waiting import wait_until

EXACT = 16
"""The agent deals the places of limits above this."""

_UDP_TIMEOUT = "net.netfilter.nf_conntrack_udp_timeout"


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
        # They outlast the repeated SYNs of the others, so that no place becomes free for these.
        for record in run_load(client, "stream", address, count=4, seconds=8, timeout=6)
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


@pytest.mark.nft
@pytest.mark.parametrize("limit", [2, 20])
def test_row_39_datagram_flows(fleet: Fleet, lab: Lab, client: Node, limit: int) -> None:
    """Row 39: datagram flows count until they time out, by the kernel's count and by places that the agent deals."""
    dns = listener(lab, "dns", 4, 36, protocol="udp", ports=[53], port=8053, scheduler="wrr")
    for backend in dns["backends"]:
        backend["max_connections"] = limit
    fleet.configure([dns])
    lab.route("lb1")
    node, count = lab.node("lb1"), 3 * limit

    def ask(first_port: int, number: int) -> list[Record]:
        ports = range(first_port, first_port + number)
        return run_tuples(client, [("udp", FRONT.v4(CLIENT_HOST), port, vip(4, 36), 53) for port in ports])

    timeout = node.run(["sysctl", "-n", _UDP_TIMEOUT]).stdout.strip()
    node.run(["sysctl", "-qw", f"{_UDP_TIMEOUT}=20"])
    try:
        if limit > EXACT:
            _wait_for_places(node, count)
        answered = ask(20000, count)
        assert not failures(answered), failures(answered)[:3]
        assert shares(answered) == {"b1": limit, "b2": limit, "b3": limit}
        assert len(failures(ask(21000, 5))) == 5
        _wait_for_no_flows(node, 4, vip(4, 36), "udp")
        if limit > EXACT:
            _wait_for_places(node, count)
        answered = ask(22000, count)
        assert not failures(answered), failures(answered)[:3]
    finally:
        node.run(["sysctl", "-qw", f"{_UDP_TIMEOUT}={timeout}"])


@pytest.mark.nft
@pytest.mark.usefixtures("no_streams")
@pytest.mark.parametrize(("family", "scheduler"), [(4, "mh"), (6, "wrr")])
def test_row_39_dealt_places(fleet: Fleet, lab: Lab, client: Node, family: int, scheduler: str) -> None:
    """Row 39: limits of 40, 50 and 60, whose places the agent deals, hold as those that the kernel counts."""
    stream = listener(lab, "stream", family, 37, ports=[80], port=7000, scheduler=scheduler)
    for backend, limit in zip(stream["backends"], (40, 50, 60)):
        backend["max_connections"] = limit
    fleet.configure([stream])
    lab.route("lb1")
    node, address = lab.node("lb1"), [target(vip(family, 37), 80)]
    _wait_for_places(node, 150)
    held = start_load(client, "stream", address, count=150, timeout=20)
    wait_for_connections(client, 80, 150)
    full = {"b1": 40, "b2": 50, "b3": 60}
    assert held_connections(lab) == full
    assert len(failures(run_load(client, "stream", address, count=10, seconds=1, timeout=5))) == 10
    # A change, a lost table, and an agent that is killed, or stopped and started: no limit is exceeded, none forgotten.
    stream["backends"][0]["weight"] = 50
    fleet.configure([stream])
    assert len(failures(run_load(client, "stream", address, count=10, seconds=1, timeout=5))) == 10
    node.run(["nft", "delete", "table", "inet", "evenflow"])
    _wait_for_no_place(node)
    assert len(failures(run_load(client, "stream", address, count=10, seconds=1, timeout=5))) == 10
    node.run(["systemctl", "kill", "--signal=KILL", "evenflow.service"])
    assert len(failures(run_load(client, "stream", address, count=10, seconds=1, timeout=5))) == 10
    wait_until(lambda: agent_pid(node), "the agent is back")
    with agent_stopped(node):
        assert len(failures(run_load(client, "stream", address, count=10, seconds=1, timeout=5))) == 10
    assert held_connections(lab) == full
    ended = [record for record in finish(held) if record.kind == "stream"]
    assert not failures(ended), failures(ended)[:3]
    _wait_for_no_flows(node, family, vip(family, 37))
    _wait_for_places(node, 150)
    again = start_load(client, "stream", address, count=150, timeout=20)
    wait_for_connections(client, 80, 150)
    assert held_connections(lab) == full
    ended = [record for record in finish(again) if record.kind == "stream"]
    assert not failures(ended), failures(ended)[:3]


@pytest.mark.nft
@pytest.mark.usefixtures("no_streams")
@pytest.mark.parametrize("family", FAMILIES)
def test_row_39_dealt_listener_limit(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 39 (listener): the same for a listener's limit whose places the agent deals."""
    fleet.configure([listener(lab, "stream", family, 36, ports=[80], port=7000, scheduler="wrr", max_connections=50)])
    lab.route("lb1")
    node, address = lab.node("lb1"), [target(vip(family, 36), 80)]
    _wait_for_places(node, 50, "stream")
    held = start_load(client, "stream", address, count=50)
    wait_for_connections(client, 80, 50)
    refused = failures(run_load(client, "stream", address, count=5, seconds=1))
    assert [record.error for record in refused] == ["Connection refused"] * 5
    assert not failures(finish(held))
    _wait_for_no_flows(node, family, vip(family, 36))
    _wait_for_places(node, 50, "stream")
    assert not failures(run_load(client, "stream", address, count=50, seconds=3))


def _dealt(node: Node, listener: str = "") -> list[str]:
    """Return the chains that take places of backends' limits, or of a listener's."""
    name = f"dealt_{listener}" if listener else "dealt"
    listed = node.run(["nft", "list", "map", "inet", "evenflow", name], check=False).stdout
    return re.findall(r": goto (\w+)", listed)


def _wait_for_no_place(node: Node) -> None:
    """Wait until the agent has seen that the backends have no place."""
    wait_until(lambda: _dealt(node), "no place", accepts=lambda seen: seen and set(seen) == {"places_none"})


def _wait_for_places(node: Node, number: int, listener: str = "") -> None:
    """Wait until so many places of backends' limits, or of a listener's, are left, and the kernel counts no more."""

    def left() -> int:
        names = [f"{name}_{listener}" if listener else name for name in ("bucket", "spare")]
        listed = [node.run(["nft", "list", "set", "inet", "evenflow", name], check=False).stdout for name in names]
        buckets = re.findall(r"packets (\d+) bytes \d+ limit rate over 1/week burst (\d+)", " ".join(listed))
        # Looked at after the buckets, because places are there before the kernel ceases to count.
        if any("first" in chain for chain in _dealt(node, listener)):
            return 0
        return sum(max(0, int(places) - int(asked)) for asked, places in buckets)

    wait_until(left, f"{number} places are left", accepts=lambda seen: seen == number)


@pytest.mark.quiet
@pytest.mark.nft
@pytest.mark.usefixtures("no_streams")
@pytest.mark.parametrize(
    ("family", "kind", "count", "limited"),
    [
        (4, "syn", 110, "listener"),
        (6, "syn", 110, "backends"),
        (4, "ack", 250, "backends"),
        (6, "ack", 250, "listener"),
    ],
)
def test_row_57_half_open_flows(
    fleet: Fleet, lab: Lab, client: Node, family: int, kind: str, count: int, limited: str
) -> None:
    """Row 57: a limit of 100 has room for 100 flows at once 10 s after the end of spoofed SYNs, or of bare ACKs."""
    stream = listener(lab, "stream", family, 57, ports=[80], port=7000, scheduler="wrr")
    if limited == "listener":
        stream["max_connections"] = 100
    else:
        for backend, limit in zip(stream["backends"], (34, 33, 33)):
            backend["max_connections"] = limit
    fleet.configure([stream])
    lab.route("lb1")
    forget_flows(lab)
    address = vip(family, 57)
    network = FRONT.prefix6 if family == 6 else FRONT.prefix4
    with ExitStack() as silenced:
        for node in lab.nodes("backend"):
            silenced.enter_context(_without_resets(node))
        client.run(["python3", "/opt/lab/attack.py", kind, network, address, "80", str(count)])
        end = time.monotonic() + 10
        refused = failures(run_load(client, "stream", [target(address, 80)], count=1, seconds=0.1, timeout=1))
        assert refused, "the attack did not fill the limit"
        time.sleep(max(0.0, end - time.monotonic()))
        held = run_load(client, "stream", [target(address, 80)], count=100, seconds=3, timeout=5)
    assert not failures(held), [record.error for record in failures(held)][:3]


@contextmanager
def _without_resets(node: Node) -> Iterator[None]:
    """Let a backend send no resets, as one that drops unexpected segments does, for the length of the block."""
    table = "table inet lab_silent"
    chain = "{ type filter hook output priority 0; tcp flags & rst != 0 drop; }"
    node.run(["nft", f"{table} {{ chain output {chain}; }}"])
    try:
        yield
    finally:
        node.run(["nft", f"delete {table}"])


def _wait_for_no_flows(node: Node, family: int, address: str, protocol: str = "tcp") -> None:
    """Wait until the node tracks no open flow to an address, because a limit counts these."""
    command = ["conntrack", "-L", "-f", f"ipv{family}", "-p", protocol, "-d", address]

    def count_open() -> int:
        listed = node.run(command, check=False).stdout.splitlines()
        return sum(line.split()[3] not in ("TIME_WAIT", "CLOSE") for line in listed if line)

    wait_until(count_open, f"no flow to {address} is open", accepts=lambda seen: seen == 0)
