# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Row 30: every cell of the table of flow fates, on live flows.

All events happen at once, each to different listeners; the fates of the flows are then compared cell by cell.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from lab import Lab
from lab.fleet import Fleet
from lab.rows import FAMILIES, cure, heal, http_check, listener, sicken, target, vip, wait_for_states
from lab.traffic import Record, finish, start_load, wait_for_answers, wait_for_records
from lab.waiting import PATIENCE

# A class of flows: protocol, the VIP's port, the listener's options.
CLASSES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "TCP-p": ("tcp", 7001, {}),
    "TCP-n": ("tcp", 7002, {"connection_persistence_on_unhealthy_backends": "never_persist"}),
    "TCP-always": ("tcp", 7003, {"connection_persistence_on_unhealthy_backends": "always_persist"}),
    "UDP": ("udp", 5301, {}),
    "UDP-always": ("udp", 5302, {"connection_persistence_on_unhealthy_backends": "always_persist"}),
}

DROP = {"failover_policy": {"drop_traffic_if_unhealthy": True}}
NO_DRAIN = {"failover_policy": {"disable_connection_drain_on_failover": True}}
RATIO = {"failover_policy": {"failover_ratio": 1}}
LATER, SOON, NOW = ({"connection_draining_timeout_sec": seconds} for seconds in (300, 3, 0))


@dataclass(frozen=True)
class Event:
    """An event of backend b1 of the event's listeners, unless `subject` names another backend.

    `cells`: fates by class, K D E, or - where the class is not allowed. `before`, `after`: options of backends by name
    that differ from the defaults; None removes a backend, and `after` None removes the listener. `sick`: the backends
    whose checks fail before, and after.
    """

    cells: str
    options: dict[str, Any] = field(default_factory=dict)
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    after: dict[str, dict[str, Any] | None] | None = field(default_factory=dict)
    sick: tuple[str, str] = ("", "")
    changed: dict[str, Any] = field(default_factory=dict)
    subject: str = "b1"


EVENTS = {
    "unhealthy, others healthy": Event("KDKDK", sick=("", "b1")),
    # The event is that the last backend fails: flows of backends that failed before could move.
    "all unhealthy, fail open": Event("KKKKK", sick=("b2", "b1 b2")),
    "all unhealthy, drop": Event("KEKEK", DROP, sick=("b2", "b1 b2")),
    "recovers": Event("KKKKK", sick=("b1", ""), subject="b2"),
    "weight 0": Event("KKKKK", after={"b1": {"weight": 0}}),
    "scaler 0": Event("KKKKK", after={"b1": {"capacity_scaler": 0}}),
    "drained, before its deadline": Event("KKKKK", LATER, after={"b1": {"admin_state": "drained"}}),
    "removed, before its deadline": Event("KKKKK", LATER, after={"b1": None}),
    "drained, at the deadline": Event("EEEDD", SOON, after={"b1": {"admin_state": "drained"}}),
    "removed, at the deadline": Event("EEEDD", SOON, after={"b1": None}),
    "drained, timeout 0": Event("EEEDD", NOW, after={"b1": {"admin_state": "drained"}}),
    "removed, timeout 0": Event("EEEDD", NOW, after={"b1": None}),
    "drained, natural": Event("KKKKK", {**NOW, "drain_mode": "natural"}, after={"b1": {"admin_state": "drained"}}),
    "removed, natural": Event("KKKKK", {**NOW, "drain_mode": "natural"}, after={"b1": None}),
    "becomes unhealthy while draining": Event(
        "KDKDK", LATER, after={"b1": {"admin_state": "drained"}}, sick=("", "b1")
    ),
    "disabled": Event("EEEDD", LATER, after={"b1": {"admin_state": "disabled"}}),
    "port changed, before its deadline": Event("KKKKK", LATER, after={"b1": {"port": 8, "weight": 0}}),
    "port changed, timeout 0": Event("EEEDD", NOW, after={"b1": {"port": 8, "weight": 0}}),
    "failover": Event("KKKKK", {**LATER, **RATIO}, before={"b2": {"failover": True}, "b3": {}}, sick=("", "b3")),
    "failover, past the timeout": Event(
        "EKKDK", {**SOON, **RATIO}, before={"b2": {"failover": True}, "b3": {}}, sick=("", "b3")
    ),
    "failback": Event("KKKKK", LATER, before={"b1": {"failover": True}}, sick=("b2", "")),
    "failback, past the timeout": Event("EKKDK", SOON, before={"b1": {"failover": True}}, sick=("b2", "")),
    "failback, not drained": Event("EEE--", {**LATER, **NO_DRAIN}, before={"b1": {"failover": True}}, sick=("b2", "")),
    "scheduler edited": Event("KKKKK", changed={"scheduler": "mh"}),
    "affinity edited": Event(
        "KKKKK", changed={"session_affinity": "client_ip", "tracking_mode": "per_connection", "scheduler": "mh"}
    ),
    "weight edited": Event("KKKKK", after={"b1": {"weight": 1}}),
    "listener removed, before its deadline": Event("KKKKK", LATER, after=None),
    "listener removed, timeout 0": Event("EEEDD", NOW, after=None),
}

SERVED = ["ss", "-Htn", "state", "established", "sport", "=", ":7000"]
"""The command that lists the streams that a backend serves."""

LETTERS = {"K": "keep", "D": "move", "E": "end"}


def _name(event: str, kind: str, family: int) -> str:
    return f"e{list(EVENTS).index(event)}-{list(CLASSES).index(kind)}-{family}"


def _cells() -> Iterator[tuple[str, str, int]]:
    for event, entry in EVENTS.items():
        for kind, cell in zip(CLASSES, entry.cells):
            for family in FAMILIES:
                if cell != "-":
                    yield event, kind, family


def _address(event: str, kind: str, family: int) -> str:
    return target(vip(family, 100 + list(EVENTS).index(event)), CLASSES[kind][1])


def _listener(lab: Lab, event: str, kind: str, family: int, is_after: bool) -> dict[str, Any] | None:
    entry, (protocol, port, more) = EVENTS[event], CLASSES[kind]
    if is_after and entry.after is None:
        return None
    served = 7000 if protocol == "tcp" else 53
    number = list(EVENTS).index(event)
    # Late checks on a busy machine must not make a backend unhealthy.
    check = http_check(f"{number}", check_interval_sec=2, timeout_sec=2, unhealthy_threshold=4)
    required = listener(
        lab,
        _name(event, kind, family),
        family,
        100 + number,
        protocol=protocol,
        ports=[port],
        port=served,
        scheduler="wrr",
        health_check=check,
        **{**more, **entry.options},
    )
    backends = {backend["name"]: backend for backend in required["backends"]}
    names = {"b1", "b2", *entry.before}
    for options in (entry.before, (entry.after or {}) if is_after else {}):
        for name, changes in options.items():
            if changes is None:
                names.discard(name)
            else:
                backends[name] = {**backends[name], **changes}
    return {**required, **(entry.changed if is_after else {}), "backends": [backends[name] for name in sorted(names)]}


def _configure(fleet: Fleet, lab: Lab, *, is_after: bool) -> None:
    # Configure only one node, because the health checks keep a small machine busy.
    listeners = [entry for cell in _cells() if (entry := _listener(lab, *cell, is_after=is_after))]
    fleet.module("lb1", "lb_config", listeners=listeners, state="replaced", purge="all")


@pytest.fixture(scope="module")
def fates(fleet: Fleet, lab: Lab) -> Iterator[dict[tuple[str, str, int], str]]:
    """Yield the fates of the flows by event, class and family."""
    client = lab.node("c1")
    for node in lab.nodes("backend"):
        node.run(["systemctl", "restart", "lab-stream"])
    lab.route("lb1")
    paths = {
        name: [str(number) for number, entry in enumerate(EVENTS.values()) if name in entry.sick[0].split()]
        for name in ("b1", "b2", "b3")
    }
    heal(lab)
    for name, sick in paths.items():
        if sick:
            sicken(lab.node(name), *sick)
    _configure(fleet, lab, is_after=False)
    wait_for_states(lab, _name("recovers", "UDP-always", 6), "unhealthy healthy")
    streams = [_address(*cell) for cell in _cells() if CLASSES[cell[1]][0] == "tcp"]
    datagrams = [_address(*cell) for cell in _cells() if CLASSES[cell[1]][0] == "udp"]
    # Open two flows each, one after the other, so that each backend gets one in turn.
    held = start_load(client, "stream", streams, count=2 * len(streams), timeout=10, push=True)
    sending = start_load(client, "udp", datagrams, fixed=True, concurrency=2, rate=2 * len(datagrams), timeout=0.4)
    wait_for_records(held, lambda records: len(records) >= 2 * len(streams), "all streams are open")
    wait_for_records(sending, _is_on_subjects, "datagrams reach every subject")
    began = time.time()
    for name in ("b1", "b2", "b3"):
        now = [str(number) for number, entry in enumerate(EVENTS.values()) if name in entry.sick[1].split()]
        if now:
            sicken(lab.node(name), *now)
        cure(lab.node(name), *sorted(set(paths[name]) - set(now)))
    _configure(fleet, lab, is_after=True)
    # Wait for detection and the earliest deadline, so that flows that must be kept have had the time to end.
    time.sleep(max(0.0, began + 20 - time.time()))

    def fates_of(records: list[Record], answers: list[Record]) -> dict[tuple[str, str, int], str]:
        return {
            cell: _stream_fate(cell, records, alive)
            if CLASSES[cell[1]][0] == "tcp"
            else _datagram_fate(cell, answers, began, settled)
            for cell in _cells()
        }

    # On a busy machine flows may move or end later. A flow that never does fails in the test of its cell.
    due = {cell: LETTERS[EVENTS[cell[0]].cells[list(CLASSES).index(cell[1])]] for cell in _cells()}
    deadline = time.monotonic() + PATIENCE
    seen: dict[tuple[str, str, int], str] = {}
    while seen != due and time.monotonic() < deadline:
        settled = time.time()
        wait_for_answers(sending, 6 * len(datagrams))
        alive = {node.name: _peers(node.run(SERVED).stdout) for node in lab.nodes("backend")}
        seen = fates_of(held.records(), sending.records())
    yield fates_of(finish(held), finish(sending))
    heal(lab)
    fleet.configure([])


def _peers(listing: str) -> set[tuple[str, int]]:
    """Return the peers as address and port, because a client may use a port in both families."""
    peers = set()
    for line in listing.splitlines():
        address, _colon, port = line.split()[3].rpartition(":")
        peers.add((address.strip("[]").removeprefix("::ffff:"), int(port)))
    return peers


def _stream_fate(cell: tuple[str, str, int], records: list[Record], alive: dict[str, set[tuple[str, int]]]) -> str:
    subject = EVENTS[cell[0]].subject
    own = [record for record in records if record.target == _address(*cell) and record.backend == subject]
    if not own:
        return "no flow"
    # Open streams and ended streams have records.
    failed = [record for record in own if not record.ok]
    if not failed:
        return "keep"
    # The server of a flow that was ended is reset; the server of a flow that was only moved is not.
    return "move" if any((record.peer, record.peer_port) in alive[subject] for record in failed) else "end"


def _is_on_subjects(records: list[Record]) -> bool:
    """Return whether each event's backend has answered datagrams."""
    answered = {(record.target, record.backend) for record in records if record.ok}
    return all(
        (_address(*cell), EVENTS[cell[0]].subject) in answered for cell in _cells() if CLASSES[cell[1]][0] == "udp"
    )


def _datagram_fate(cell: tuple[str, str, int], records: list[Record], began: float, settled: float) -> str:
    subject = EVENTS[cell[0]].subject
    own = [record for record in records if record.target == _address(*cell)]
    sports = {record.sport for record in own if record.t < began and record.backend == subject}
    late = [record for record in own if record.sport in sports and record.t > settled]
    if not late:
        return "no flow"
    if all(record.ok and record.backend == subject for record in late):
        return "keep"
    # Without a listener a flow that moves is refused.
    is_gone = EVENTS[cell[0]].after is None
    return "move" if all(record.ok and record.backend != subject for record in late) or is_gone else "end"


@pytest.mark.parametrize(("event", "kind", "family"), list(_cells()))
def test_row_30(fates: dict[tuple[str, str, int], str], event: str, kind: str, family: int) -> None:
    """Row 30: a cell of the table."""
    cell = EVENTS[event].cells[list(CLASSES).index(kind)]
    assert fates[event, kind, family] == LETTERS[cell]
