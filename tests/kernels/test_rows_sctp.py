# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""SCTP with real sockets, which only the kernels of the virtual machines have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryFile
from typing import Any

import pytest
from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import FAMILIES, listener, vip
from lab.waiting import wait_until

_PORT = 2905


class Associations:
    """The events of a client's associations so far."""

    def __init__(self, node: Node, address: str, count: int) -> None:
        self._output = TemporaryFile("w+", encoding="utf-8")
        arguments = ["python3", "/opt/lab/sctp_client.py", address, str(_PORT), str(count)]
        self._process = node.start(arguments, stdin=True, output=self._output)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the events of these kinds."""
        self._output.flush()
        with open(f"/proc/self/fd/{self._output.fileno()}", encoding="utf-8") as file:
            lines = [json.loads(line) for line in file.read().split("\n")[:-1]]
        return [line for line in lines if line["event"] in kinds]

    def wait(self, count: int, *kinds: str) -> list[dict[str, Any]]:
        """Wait for a number of events of these kinds and return them."""
        return wait_until(lambda: self.events(*kinds), f"{count} {kinds}", accepts=lambda seen: len(seen) >= count)

    def finish(self) -> list[dict[str, Any]]:
        """End the associations in order, and return the events of those that lived."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(120)
        return self.events("kept")

    def abandon(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def associations(node: Node, address: str, count: int) -> Iterator[Associations]:
    opened = Associations(node, address, count)
    try:
        yield opened
    finally:
        opened.abandon()


def _ss7(lab: Lab, family: int, **options: Any) -> dict[str, Any]:
    return listener(lab, f"ss7{family}", family, 83, protocol="sctp", ports=[_PORT], scheduler="wrr", **options)


def _served(node: Node) -> int:
    """Return the number of associations that a backend has."""
    return len(node.run(["ss", "-HnA", "sctp", "state", "established"]).stdout.splitlines())


@pytest.mark.parametrize("family", FAMILIES)
def test_sctp_shares(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Associations are established through the load balancer, shared by weight, carry data and end in order."""
    fleet.configure([_ss7(lab, family, weights=(3, 2, 1))])
    with associations(client, vip(family, 83), 12) as opened:
        backends = [event["backend"] for event in opened.wait(12, "open")]
        assert sorted(backends) == ["b1"] * 6 + ["b2"] * 4 + ["b3"] * 2
        assert len(opened.finish()) == 12 and not opened.events("ended", "refused")


@pytest.mark.parametrize("family", FAMILIES)
def test_sctp_refused(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """A client of a listener without an eligible backend, or of a port that no listener serves, is refused at once."""
    fleet.configure([_ss7(lab, family, weights=(0, 0, 0))])
    with associations(client, vip(family, 83), 3) as opened:
        refused = opened.wait(3, "refused", "open")
    assert {event.get("error") for event in refused} == {"ENOPROTOOPT"}, refused
    fleet.configure([_ss7(lab, family) | {"ports": [_PORT + 1]}])
    with associations(client, vip(family, 83), 3) as opened:
        refused = opened.wait(3, "refused", "open")
    assert {event.get("error") for event in refused} == {"ENOPROTOOPT"}, refused


@pytest.mark.parametrize("family", FAMILIES)
def test_sctp_ended(fleet: Fleet, lab: Lab, client: Node, family: int) -> None:
    """Both sides of an association learn that its backend was disabled, or that its drain has ended."""
    entry = _ss7(lab, family)
    fleet.configure([entry])
    with associations(client, vip(family, 83), 9) as opened:
        opened.wait(9, "open")
        entry["connection_draining_timeout_sec"] = 1
        entry["backends"][0]["admin_state"] = "drained"
        entry["backends"][1]["admin_state"] = "disabled"
        fleet.configure([entry])
        ended = opened.wait(6, "ended")
        assert sorted(event["backend"] for event in ended) == ["b1"] * 3 + ["b2"] * 3
        assert {event["error"] for event in ended} == {"ECONNRESET"}
        for name in ("b1", "b2"):
            wait_until(partial(_served, lab.node(name)), f"{name} has no association", accepts=lambda seen: seen == 0)
        assert [event["backend"] for event in opened.finish()] == ["b3"] * 3


def test_sctp_limit(fleet: Fleet, lab: Lab, client: Node) -> None:
    """Row 39: a limit of 2 for each backend holds for associations, until the kernel forgets those that have ended."""
    entry = _ss7(lab, 4)
    for backend in entry["backends"]:
        backend["max_connections"] = 2
    fleet.configure([entry])
    with associations(client, vip(4, 83), 6) as opened:
        assert sorted(event["backend"] for event in opened.wait(6, "open")) == ["b1", "b1", "b2", "b2", "b3", "b3"]
        with associations(client, vip(4, 83), 3) as more:
            assert [event["event"] for event in more.wait(3, "refused", "open")] == ["refused"] * 3
        assert len(opened.finish()) == 6
    listed = ["conntrack", "-L", "-p", "sctp"]
    wait_until(lambda: not lab.node("lb1").run(listed, check=False).stdout, "no association is tracked")
    with associations(client, vip(4, 83), 6) as again:
        assert [event["event"] for event in again.wait(6, "refused", "open")] == ["open"] * 6
