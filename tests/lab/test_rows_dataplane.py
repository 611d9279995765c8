# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 8, 10, 11, 17, 19 to 21, 39, 51 and 53: port forms, affinity, sessions, limits and what may not leak."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import (
    FAMILIES,
    backend_address,
    leaked,
    listener,
    target,
    vip,
    wait_for_connections,
)
from lab.topology import BACK, CLIENT_MORE_HOSTS, FRONT, on_link_vip4
from lab.traffic import Flow, failures, finish, run_load, run_tuples, shares, start_load

# What a backend sends on its own: source and destination, and every set of TCP flags but a lone SYN, which begins one.
_FLAGS = """
import socket, struct, sys
source, destination, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in source else socket.AF_INET
raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
raw.bind((source, 0))
if family == socket.AF_INET6:
    raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 16) if False else None
for flags in range(256):
    if flags & 0x12 == 0x02:
        continue
    segment = struct.pack("!HHIIBBHHH", port, 20000 + flags, 1, 1, 0x50, flags, 1024, 0, 0)
    packed = [socket.inet_pton(family, address) for address in (source, destination)]
    pseudo = b"".join(packed) + (struct.pack("!II", len(segment), 6) if family == socket.AF_INET6
                                 else struct.pack("!HH", 6, len(segment)))
    words = struct.unpack(f"!{len(pseudo + segment) // 2}H", pseudo + segment)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    raw.sendto(segment[:16] + struct.pack("!H", checksum) + segment[18:], (destination, 0))
"""

# An error that tells the sender of a flow's answers that they are too long: for UDP from the VIP's port 53.
_FRAGMENTATION_NEEDED = """
import socket, struct, sys
vip, client, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
inner = struct.pack("!BBHHHBBH", 0x45, 0, 1400, 7, 0x4000, 60, 17, 0)
inner += socket.inet_aton(vip) + socket.inet_aton(client) + struct.pack("!HHHH", 53, port, 1380, 0)
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
inner = inner[:10] + struct.pack("!H", checksum(inner[:20])) + inner[12:]
message = struct.pack("!BBHHH", 3, 4, 0, 0, 1200) + inner
message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(message, (vip, 0))
"""


@pytest.fixture
def client(lab: Lab) -> Node:
    return lab.node("c1")


@pytest.mark.parametrize("family", FAMILIES)
def test_row_8_wide_ports(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 8 (ranges, all ports, any protocol): what is inside arrives, what is outside is refused."""
    fleet.configure([
        listener(lab, "range", family, 80, ports=["8000-8080", "81"]),
        listener(lab, "all", family, 81, ports=["all"], scheduler="wrr"),
        listener(lab, "all-udp", family, 81, ports=["all"], protocol="udp"),
        listener(lab, "any", family, 82, ports=["all"], protocol="any", scheduler="wrr"),
    ])
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
    sniffers = [lab.node(f"b{n}").start(["tcpdump", "-i", "back", "-nn", "-l", "-c", "1", "proto 47" if family == 4
                                         else "ip6 proto 47"]) for n in (1, 2, 3)]
    time.sleep(1)
    gre = "import socket,sys; f=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET; " \
          "[socket.socket(f, socket.SOCK_RAW, 47).sendto(bytes(4) + b'data', (sys.argv[1], 0)) for n in range(3)]"
    client.run(["python3", "-c", gre, vip(family, 82)])
    time.sleep(1)
    for sniffer in sniffers:
        sniffer.terminate()
    seen = "".join(sniffer.communicate(timeout=10)[0] for sniffer in sniffers)
    assert "GRE" in seen


@pytest.mark.parametrize("family", FAMILIES)
def test_row_10_no_leak(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 10: a backend's packets without an entry do not reach the client, whatever their TCP flags."""
    fleet.configure([listener(lab, "web", family, 10)])
    lab.route("lb1")
    source, nic = backend_address(lab, "b1", family), client.spec.nic(FRONT)
    destination = nic.v6 if family == 6 else nic.v4
    for port, is_guarded in ((80, True), (9999, False)):
        sniffer = client.start(["tcpdump", "-i", "front", "-nn", "-l", "src", "host", source, "and", "tcp"])
        time.sleep(1)
        lab.node("b1").run(["python3", "-c", _FLAGS, source, destination, str(port)])
        time.sleep(1)
        sniffer.terminate()
        seen, _errors = sniffer.communicate(timeout=10)
        assert bool(seen.strip()) != is_guarded, f"port {port}: {seen[:300]}"


def test_row_11_icmp_and_fragments(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 11: "fragmentation needed" from C's side reaches the right backend; 4 kB datagrams arrive whole."""
    fleet.configure([
        listener(lab, f"dns{family}", family, 11, protocol="udp", ports=[53], port=8053) for family in FAMILIES
    ])
    lab.route("lb1")
    for family in FAMILIES:
        assert not failures(run_load(client, "udp", [target(vip(family, 11), 53)], count=50, size=4000))
    source = client.spec.nic(FRONT).v4
    record = run_tuples(client, [("udp", source, 23456, vip(4, 11), 53)])[0]
    names = ("b1", "b2", "b3")
    sniffers = {
        name: lab.node(name).start(["tcpdump", "-i", "back", "-nn", "-l", "icmp[0] = 3 and icmp[1] = 4"])
        for name in names
    }
    time.sleep(1)
    client.run(["python3", "-c", _FRAGMENTATION_NEEDED, vip(4, 11), source, "23456"])
    time.sleep(1)
    for sniffer in sniffers.values():
        sniffer.terminate()
    told = {name for name, sniffer in sniffers.items() if "need to frag" in sniffer.communicate(timeout=10)[0]}
    assert told == {record.backend}


@pytest.mark.parametrize("family", FAMILIES)
def test_row_17_sh_dh(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 17: under sh one source sticks over many ports, under dh one destination does over many sources."""
    fleet.configure([
        listener(lab, "source", family, 17, scheduler="sh"),
        *(listener(lab, f"destination{host}", family, host, scheduler="dh") for host in range(170, 182)),
    ])
    lab.route("lb1")
    by_source = _backends(client, [("tcp", source, port, vip(family, 17), 80)
                                   for source in _sources(family) for port in range(21000, 21012)], key=1)
    assert all(len(found) == 1 for found in by_source.values())
    assert len(set.union(*by_source.values())) > 1
    by_destination = _backends(client, [("tcp", source, 22000 + host, vip(family, host), 80)
                                        for source in _sources(family) for host in range(170, 182)], key=3)
    assert all(len(found) == 1 for found in by_destination.values())
    assert len(set.union(*by_destination.values())) > 1


@pytest.mark.parametrize(("affinity", "protocols_meet", "vips_meet", "ports_meet"), [
    ("none", False, False, False),
    ("client_ip_port_proto", False, False, False),
    ("client_ip_proto", False, False, True),
    ("client_ip", True, False, True),
    ("client_ip_no_destination", True, True, True),
])
@pytest.mark.parametrize("tracking", ["per_connection", "per_session"])
def test_row_19_affinity(fleet: Fleet, lab: Lab, client: Node, affinity: str, tracking: str, protocols_meet: bool,
                         vips_meet: bool, ports_meet: bool) -> None:
    """Row 19: which flows of a client meet on one backend, and which may part."""
    options: dict[str, Any] = {"session_affinity": affinity, "tracking_mode": tracking, "port": 8080}
    fleet.configure([
        listener(lab, "one", 4, 190, **options), listener(lab, "two", 4, 191, **options),
        listener(lab, "dns", 4, 190, protocol="udp", ports=[53], **{**options, "port": 8053}),
    ])
    lab.route("lb1")
    first, second = vip(4, 190), vip(4, 191)
    ports = range(24000, 24006)
    sources = _sources(4)
    flows = [(protocol, source, port, address, 53 if protocol == "udp" else 80)
             for source in sources for port in ports
             for protocol, address in (("tcp", first), ("tcp", second), ("udp", first))]
    found = dict(zip(flows, [record.backend for record in _in_order(client, flows)]))

    def met(*kinds: tuple[str, str]) -> bool:
        return all(
            len({found[flow] for flow in flows if flow[1] == source and (flow[0], flow[3]) in kinds}) == 1
            for source in sources
        )

    assert met(("tcp", first)) is ports_meet
    assert met(("tcp", first), ("udp", first)) is protocols_meet
    assert met(("tcp", first), ("tcp", second)) is vips_meet


def test_row_20_sessions(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 20: per_session: a backend comes and known clients stay; one that leaves gives its clients to others."""
    def wanted(*weights: int) -> list[dict[str, Any]]:
        return [listener(lab, "web", 4, 20, scheduler="wrr", tracking_mode="per_session", session_affinity="client_ip",
                         idle_timeout_sec=60, weights=weights)]

    fleet.configure(wanted(1, 1))
    lab.route("lb1")
    flows = [("tcp", source, 25000, vip(4, 20), 80) for source in _sources(4)]
    first = [record.backend for record in _in_order(client, flows)]
    assert set(first) == {"b1", "b2"}
    fleet.configure(wanted(1, 1, 1))
    again = [(*flow[:2], 25001, *flow[3:]) for flow in flows]
    assert [record.backend for record in _in_order(client, again)] == first
    fleet.configure(wanted(0, 1, 1))
    third = [(*flow[:2], 25002, *flow[3:]) for flow in flows]
    moved = [record.backend for record in _in_order(client, third)]
    assert "b1" not in moved
    assert [new for old, new in zip(first, moved) if old == "b2"] == ["b2"] * first.count("b2")
    time.sleep(62)
    sessions = lab.node("lb1").run(["nft", "list", "map", "inet", "evenflow", "sess_web"]).stdout
    assert "elements" not in sessions


@pytest.mark.parametrize("tracking", ["per_connection", "per_session"])
def test_row_21_mid_stream(fleet: Fleet, lab: Lab, client: Node, tracking: str) -> None:
    """Row 21: a packet in mid-stream without an entry reaches the same backend under mh or a session hit."""
    scheduler = "mh" if tracking == "per_connection" else "wrr"
    affinity = "none" if tracking == "per_connection" else "client_ip"
    fleet.configure([
        listener(lab, f"stream{family}", family, 21, ports=[80], port=7000, scheduler=scheduler,
                 tracking_mode=tracking, session_affinity=affinity) for family in FAMILIES
    ])
    lab.route("lb1")
    streams = start_load(client, "stream", [target(vip(family, 21), 80) for family in FAMILIES], count=40, seconds=8)
    wait_for_connections(client, 80, 40)
    for family in FAMILIES:
        lab.node("lb1").run(["conntrack", "-D", "-f", f"ipv{family}", "-p", "tcp", "--dport", "80"])
    held = [record for record in finish(streams) if record.kind == "stream"]
    assert len(held) == 40
    assert not failures(held), failures(held)[:3]


@pytest.mark.parametrize("scheduler", ["wrr", "mh"])
def test_row_39_backend_limits(fleet: Fleet, lab: Lab, client: Node, scheduler: str) -> None:
    """Row 39: limits of 2, 4 and 6 are never exceeded; all full rejects; room comes back, counts outlive a change."""
    wanted = listener(lab, "stream", 4, 39, ports=[80], port=7000, scheduler=scheduler)
    for backend, limit in zip(wanted["backends"], (2, 4, 6)):
        backend["max_connections"] = limit
    fleet.configure([wanted])
    lab.route("lb1")
    address = [target(vip(4, 39), 80)]
    held = start_load(client, "stream", address, count=12, seconds=25, timeout=8)
    wait_for_connections(client, 80, 12)
    assert _held(lab, 4) == {"b1": 2, "b2": 4, "b3": 6}
    more = run_load(client, "stream", address, count=6, seconds=1)
    assert len(failures(more)) == 6
    wanted["backends"][0]["weight"] = 50
    fleet.configure([wanted])
    assert len(failures(run_load(client, "stream", address, count=6, seconds=1))) == 6
    assert _held(lab, 4) == {"b1": 2, "b2": 4, "b3": 6}
    ended = [record for record in finish(held) if record.kind == "stream"]
    assert not failures(ended), failures(ended)[:3]
    time.sleep(3)
    again = [record for record in run_load(client, "stream", address, count=12, seconds=3, timeout=8)
             if record.kind == "stream"]
    assert not failures(again), failures(again)[:3]
    assert shares(again) == {"b1": 2, "b2": 4, "b3": 6}


def test_row_39_listener_limit(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 39 (listener): the flow above the listener's limit is rejected, until one closes."""
    fleet.configure([listener(lab, "stream", 4, 38, ports=[80], port=7000, scheduler="wrr", max_connections=5)])
    lab.route("lb1")
    address = [target(vip(4, 38), 80)]
    held = start_load(client, "stream", address, count=5, seconds=6)
    wait_for_connections(client, 80, 5)
    refused = failures(run_load(client, "stream", address, count=5, seconds=1))
    assert [record.error for record in refused] == ["Connection refused"] * 5
    assert not failures(finish(held))
    time.sleep(1)
    assert not failures(run_load(client, "stream", address, count=5, seconds=1))


@pytest.mark.parametrize("family", FAMILIES)
def test_disabled_listener_rejects(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """A disabled listener, or one without an eligible backend, rejects new flows and keeps those that live."""
    stream = listener(lab, "stream", family, 60, ports=[80], port=7000)
    dns = listener(lab, "dns", family, 60, protocol="udp", ports=[53], port=8053)
    fleet.configure([stream, dns])
    lab.route("lb1")
    held = start_load(client, "stream", [target(vip(family, 60), 80)], count=10, seconds=12)
    wait_for_connections(client, 80, 10)
    stream["admin_state"] = "disabled"
    for backend in dns["backends"]:
        backend["weight"] = 0
    fleet.configure([stream, dns])
    for mode, port in (("http", 80), ("udp", 53)):
        refused = run_load(client, mode, [target(vip(family, 60), port)], count=5)
        assert [record.error for record in refused] == ["Connection refused"] * 5, mode
    assert not failures(finish(held))


def test_row_51_unserved_ports(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 51: unserved ports are rejected on a dedicated VIP and untouched where the address is the node's own."""
    node = lab.node("lb1")
    own = node.spec.nic(FRONT).v4
    dedicated = on_link_vip4(251)
    wanted = [{**listener(lab, "web", 4, 51), "address": dedicated}]
    fleet.deploy(wanted, ["lb1"], lb_node_purge="all", lb_node_vip_mode="address", lb_node_vip_interface="front")
    server = node.start(["python3", "-m", "http.server", "8000"])
    try:
        time.sleep(1)
        assert not failures(run_load(client, "http", [target(dedicated, 80)], count=5))
        for port in (8000, 81):
            refused = run_load(client, "http", [target(dedicated, port)], count=3)
            assert [record.error for record in refused] == ["Connection refused"] * 3
        client.run(["ping", "-c", "1", "-W", "2", dedicated])
        fleet.deploy([{**wanted[0], "address": own}], ["lb1"], lb_node_purge="all")
        assert not failures(run_load(client, "http", [target(own, 80)], count=5))
        answer = client.run(["curl", "-sS", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}",
                             f"http://{own}:8000/"])
        assert answer.stdout == "200"
    finally:
        server.terminate()
        server.communicate()
        fleet.deploy([], ["lb1"], lb_node_purge="all")


@pytest.mark.parametrize(("protocol", "ports"), [("tcp", ["70-90"]), ("tcp", ["all"]), ("any", ["all"])])
@pytest.mark.parametrize("family", FAMILIES)
def test_row_53_wide_listeners_do_not_leak(fleet: Fleet, lab: Lab, family: int, protocol: str,
                                           ports: list[str]) -> None:
    """Row 53: range, all-ports and any-protocol listeners: after a deletion no un-NATed packet reaches the client."""
    wanted = listener(lab, "wide", family, 53, protocol=protocol, ports=ports, weights=(1,))
    fleet.configure([wanted])
    lab.route("lb1")
    assert leaked(lab, [target(vip(family, 53), 80)], family, mode="http") == ""


def _sources(family: int) -> list[str]:
    return [FRONT.v6(host) if family == 6 else FRONT.v4(host) for host in CLIENT_MORE_HOSTS]


def _in_order(client: Node, flows: list[Flow]) -> list[Any]:
    """Send the flows and return their records in the same order."""
    records = run_tuples(client, flows)
    assert not failures(records), failures(records)[:3]
    kinds = {"http": "tcp"}
    found = {(kinds.get(record.kind, record.kind), record.source, record.sport, record.target): record
             for record in records}
    return [found[(*flow[:3], target(flow[3], flow[4]))] for flow in flows]


def _backends(client: Node, flows: list[Flow], key: int) -> dict[Any, set[str]]:
    """Send the flows and return the backends that each value of one field of the tuple reached."""
    found: dict[Any, set[str]] = {}
    for flow, record in zip(flows, _in_order(client, flows)):
        found.setdefault(flow[key], set()).add(record.backend)
    return found


def _flows_of(fleet: Fleet, name: str) -> int:
    told = fleet.module("lb1", "lb_info", gather=["counters"], listeners=[name])["listeners"]
    flows: int = told[0]["counters"]["flows"]
    return flows


def _held(lab: Lab, family: int) -> dict[str, int]:
    """Count the connections to the stream service on each backend."""
    counts = Counter({
        name: len(lab.node(name).run(["ss", "-Htn", "state", "established", "sport", "=", ":7000"]).stdout.splitlines())
        for name in ("b1", "b2", "b3")
    })
    return dict(counts)
