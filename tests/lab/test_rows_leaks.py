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


@pytest.mark.parametrize("family", FAMILIES)
def test_row_10_no_leak(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Row 10: a backend's packets without an entry do not reach the client, whatever their TCP flags."""
    fleet.configure([listener(lab, "web", family, 10)])
    lab.route("lb1")
    source, nic = backend_address(lab, "b1", family), client.spec.nic(FRONT)
    destination = nic.v6 if family == 6 else nic.v4
    # Wide listeners of other tests leave elements in this set for some minutes.
    lab.node("lb1").run(["nft", "flush", "set", "inet", "evenflow", f"peers{family}"])
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
        wide = lab.node("lb1").run(["nft", "list", "set", "inet", "evenflow", "wide"]).stdout
        mark = wide.split("elements = {")[1].split("}")[0]
        with agent_stopped(lab.node("lb1")):
            lab.node("lb1").run(["nft", "delete", "element", "inet", "evenflow", "wide", f"{{ {mark} }}"])
            lab.node("lb1").run(["nft", "flush", "set", "inet", "evenflow", f"peers{family}"])
            assert backend_address(lab, "b1", family) in leaked(lab, targets, family, port=7000)
