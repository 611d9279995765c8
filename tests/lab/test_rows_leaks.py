# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 10 and 53: packets that must not reach the client from a backend's address, or a backend from a client."""

from __future__ import annotations

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.observers import Sniffer
from lab.rows import FAMILIES, agent_stopped, backend_address, leaked, listener, sniffed, target, vip
from lab.topology import FRONT
from lab.traffic import Flow, failures, run_tuples
from lab.waiting import wait_until


@pytest.mark.parametrize("family", FAMILIES)
def test_row_10_no_leak(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 10: a backend's packets without an entry do not reach the client, whatever their TCP flags."""
    fleet.configure([listener(lab, "web", family, 10)])
    lab.route("lb1")
    source, nic = backend_address(lab, "b1", family), client.spec.nic(FRONT)
    destination = nic.v6 if family == 6 else nic.v4
    # Wide listeners of other tests leave elements in this set for some minutes.
    lab.node("lb1").run(["nft", "flush", "set", "inet", "evenflow", f"served{family}"])
    for port, is_guarded in ((80, True), (9999, False)):
        with Sniffer(
            client, FRONT.name, f"src host {source} and tcp src port {port}", beside=lab.node("lb1")
        ) as sniffer:
            lab.node("b1").run(["python3", "/opt/lab/odd_packets.py", "flags", source, str(port), destination, "0"])
            seen = sniffer.finish()
        assert bool(seen) != is_guarded, f"port {port}: {seen[:3]}"


@pytest.mark.parametrize("family", FAMILIES)
def test_invalid_packets(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Segments of a client that belong to no flow and cannot continue a lost flow are dropped by the node."""
    fleet.configure([listener(lab, "web", family, 54)])
    lab.route("lb1")
    nic = client.spec.nic(FRONT)
    flags = "tcp dst port 80 and tcp[13] & 7" if family == 4 else "tcp dst port 80 and ip6[53] & 7"
    # Checks of an earlier listener may still arrive.
    flags = f"src host {nic.v6 if family == 6 else nic.v4} and {flags}"
    with sniffed(lab, f"{flags} == 0") as passed, sniffed(lab, f"{flags} != 0") as seen:
        client.run(
            [
                "python3",
                "/opt/lab/odd_packets.py",
                "flags",
                nic.v6 if family == 6 else nic.v4,
                "0",
                vip(family, 54),
                "80",
            ]
        )
    assert all(text.strip() for text in passed.values())
    assert not any(text.strip() for text in seen.values()), seen


@pytest.mark.parametrize("family", FAMILIES)
def test_forged_datagrams_do_not_stop_what_backends_send(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Datagrams in the name of a server do not stop what a backend sends to it, and many of them fill no guard."""
    fleet.configure([listener(lab, "wide", family, 54, protocol="udp", ports=["all"], weights=(1,))])
    lab.route("lb1")
    balancer, address = lab.node("lb1"), vip(family, 54)
    server = _server(family)
    for port in range(30000, 30040):
        client.run(["python3", "/opt/lab/spoofed.py", "udp", address, str(port), server, "1"])
    assert _arrives(lab, family, "b1", 40000, server, 53)
    assert _arrives(lab, family, "b1", 40000, server, 7999)
    many = "198.18.120.0" if family == 4 else "2001:db8:f000::"
    client.run(["python3", "/opt/lab/spoofed.py", "udp", address, "30000", many, "70000"], timeout=300)
    # The guard still works for an endpoint that begins to answer now.
    source = client.spec.nic(FRONT)
    record = run_tuples(client, [("udp", source.v6 if family == 6 else source.v4, 23454, address, 8053)])[0]
    assert record.ok, record
    balancer.run(["conntrack", "-F"])
    assert not _arrives(lab, family, "b1", 8053, server, 23454)


@pytest.mark.parametrize("port", [53, 123])
@pytest.mark.parametrize("ports", [["53", "123"], ["all"]])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_backend_is_a_client_on_the_port_of_its_listener(
    fleet: Fleet, lab: Lab, client: Node, family: int, ports: list[str], port: int
) -> None:
    """A backend of NTP or DNS asks other servers from its own port; to its clients it is guarded as before."""
    fleet.configure([listener(lab, f"same{family}", family, 55, protocol="udp", ports=ports, weights=(1,))])
    lab.route("lb1")
    balancer, server = lab.node("lb1"), _server(family)
    for name in ("peers", "served"):
        balancer.run(["nft", "flush", "set", "inet", "evenflow", f"{name}{family}"], check=False)
    responder = lab.node("b1").start(["python3", "/opt/lab/udp_responder.py", "123"])
    try:
        assert _arrives(lab, family, "b1", port, server, port)
        # A client has a flow from the same port, and from another one. They are lost, and the server speaks on.
        nic = client.spec.nic(FRONT)
        source = nic.v6 if family == 6 else nic.v4
        flows: list[Flow] = [("udp", source, source_port, vip(family, 55), port) for source_port in (port, 40000)]
        wait_until(lambda: not failures(run_tuples(client, flows)), "the backend answers")
        balancer.run(["conntrack", "-F"])
        assert not _arrives(lab, family, "b1", port, source, port)
        assert not _arrives(lab, family, "b1", port, source, 40000)
    finally:
        responder.terminate()


def _server(family: int) -> str:
    """Return an address of the client that it uses for nothing else."""
    return FRONT.v6(19) if family == 6 else FRONT.v4(19)


def _arrives(lab: Lab, family: int, name: str, port: int, destination: str, destination_port: int) -> bool:
    """Return whether a datagram of a backend arrives at the client, untranslated."""
    source = backend_address(lab, name, family)
    expression = f"src host {source} and udp src port {port} and udp dst port {destination_port}"
    with Sniffer(lab.node("c1"), FRONT.name, expression, beside=lab.node("lb1")) as sniffer:
        # The kernel lets a raw socket send from a port that a server has.
        arguments = ["udp-from", source, str(port), destination, str(destination_port)]
        lab.node(name).run(["python3", "/opt/lab/odd_packets.py", *arguments])
        return bool(sniffer.finish())


@pytest.mark.usefixtures("no_streams")
@pytest.mark.parametrize(("protocol", "ports"), [("tcp", ["7000-7010"]), ("tcp", ["all"]), ("any", ["all"])])
@pytest.mark.parametrize("family", FAMILIES)
def test_row_53_wide_listeners_do_not_leak(
    fleet: Fleet, lab: Lab, family: int, protocol: str, ports: list[str]
) -> None:
    """Row 53: range, all-ports and any-protocol listeners: after a deletion no un-NATed packet reaches the client."""
    fleet.configure([])
    fleet.configure([listener(lab, "wide", family, 53, protocol=protocol, ports=ports, weights=(1,))])
    lab.route("lb1")
    targets = [target(vip(family, 53), 7000)]
    assert leaked(lab, targets, family, port=7000) == ""
    if protocol == "any":
        # Without the guard's elements the sniffer sees packets, so the sniffer works.
        learned = lab.node("lb1").run(["nft", "list", "set", "inet", "evenflow", "learned"]).stdout
        mark = learned.split("elements = {")[1].split("}")[0]
        with agent_stopped(lab.node("lb1")):
            lab.node("lb1").run(["nft", "delete", "element", "inet", "evenflow", "learned", f"{{ {mark} }}"])
            lab.node("lb1").run(["nft", "flush", "set", "inet", "evenflow", f"served{family}"])
            assert backend_address(lab, "b1", family) in leaked(lab, targets, family, port=7000)
