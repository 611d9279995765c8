# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A night of maintenance: every backend is restarted in its turn, under three kinds of traffic of both families."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from threading import Event
from typing import Any

from .fleet import Fleet
from .lab import Lab
from .nodes import Node
from .rows import FAMILIES, checked, heal, listener, target, vip, wait_for_states
from .traffic import Record, run_load

HOST = 90
DRAIN_SECONDS = 8
STREAM_SECONDS = 4.0
STREAMS = 12
HTTP_RATE, UDP_RATE = 60, 60
SERVICES = ("lab-http", "lab-stream", "lab-udp")
CONNECTIONS = "/run/connections-at-restart"

_TURN_SECONDS = 5.0
_LOOK_SECONDS = 0.25


@dataclass
class Night:
    """What happened. Times in seconds since the epoch.

    `drained`: when each backend was out on the first load balancer. `restarted`: when its services were restarted, and
    how many connections were on them at that moment.
    """

    play: CompletedProcess[str]
    requests: list[Record] = field(default_factory=list)
    datagrams: list[Record] = field(default_factory=list)
    streams: list[Record] = field(default_factory=list)
    drained: dict[str, tuple[float, float]] = field(default_factory=dict)
    restarted: dict[str, tuple[float, int]] = field(default_factory=dict)

    @property
    def records(self) -> list[Record]:
        """All flows of all kinds."""
        return [*self.requests, *self.datagrams, *self.streams]


def prepare(lab: Lab, fleet: Fleet) -> None:
    """Give the load balancers the listeners of the night, and wait until all backends are healthy."""
    heal(lab)
    weights = [1] * len(lab.nodes("backend"))
    options: dict[str, Any] = {
        "weights": weights, "scheduler": "wrr", "health_check": checked("night"),
        "connection_draining_timeout_sec": DRAIN_SECONDS,
    }
    wanted = []
    for family in FAMILIES:
        wanted += [
            listener(lab, f"web{family}", family, HOST, **options),
            listener(lab, f"stream{family}", family, HOST, **{**options, "ports": [81], "port": 7000}),
            listener(lab, f"dns{family}", family, HOST,
                     **{**options, "protocol": "udp", "ports": [53], "port": 8053, "scheduler": "mh"}),
        ]
    fleet.configure(wanted)
    for one in wanted:
        for node in lab.nodes("lb"):
            wait_for_states(lab, one["name"], " ".join("healthy" for _weight in weights), node=node.name)
    lab.route("both")


def spend(lab: Lab, fleet: Fleet, folder: Path, **variables: Any) -> Night:
    """Run rolling maintenance over all backends under traffic, to its end whatever that is."""
    client, ending = lab.node("c1"), Event()
    tasks = folder / "restart.json"
    tasks.write_text(json.dumps(_tasks()), encoding="utf-8")

    def targets(port: int) -> list[str]:
        return [target(vip(family, HOST), port) for family in FAMILIES]

    with ThreadPoolExecutor(max_workers=4) as pool:
        requests = pool.submit(_again, ending, lambda: run_load(
            client, "http", targets(80), rate=HTTP_RATE, seconds=_TURN_SECONDS))
        datagrams = pool.submit(_again, ending, lambda: run_load(
            client, "udp", targets(53), rate=UDP_RATE, seconds=_TURN_SECONDS))
        streams = pool.submit(_again, ending, lambda: run_load(
            client, "stream", targets(81), count=STREAMS, seconds=STREAM_SECONDS))
        watch = pool.submit(_watch, ending, lab.nodes("lb")[0])
        try:
            time.sleep(_TURN_SECONDS)
            play = fleet.play("rolling_maintenance", rolling_tasks=str(tasks), **variables)
            time.sleep(_TURN_SECONDS)
        finally:
            ending.set()
    night = Night(play, requests.result(), datagrams.result(), drained=watch.result())
    night.streams = [record for record in streams.result() if record.kind == "stream"]
    for node in lab.nodes("backend"):
        found = node.run(["cat", CONNECTIONS], check=False).stdout.split()
        if found:
            night.restarted[node.name] = float(found[0]), int(found[1])
    return night


def _tasks() -> list[dict[str, Any]]:
    # The count is taken by what restarts, in the same breath.
    script = (f'echo "$(date +%s.%N) $(ss -Htn state established "( sport = :80 or sport = :7000 )" | wc -l)" '
              f'>{CONNECTIONS} && systemctl restart {" ".join(SERVICES)}')
    return [{"name": "Restart the services", "ansible.builtin.command": {"argv": ["sh", "-c", script]}}]


def _again(ending: Event, once: Callable[[], Sequence[Record]]) -> list[Record]:
    """Repeat traffic until the end; every flow that was begun is in the records."""
    records: list[Record] = []
    while not ending.is_set():
        records += once()
    return records


def _watch(ending: Event, node: Node) -> dict[str, tuple[float, float]]:
    """Note from when to when each machine is drained in the configuration of a load balancer."""
    spans: dict[str, tuple[float, float]] = {}
    while not ending.is_set():
        listeners = json.loads(node.get("/etc/evenflow/listeners.json"))["listeners"]
        now = time.time()
        for name in {backend["name"] for one in listeners.values() for backend in one["backends"]
                     if backend["admin_state"] == "drained"}:
            spans[name] = spans.get(name, (now, now))[0], now
        ending.wait(_LOOK_SECONDS)
    return spans
