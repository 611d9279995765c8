# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Row 58: backends that answer their health checks in every bad way harm no other backend."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO, Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.process import Background
from lab.rows import agent_pid, backend_address, heal, runtime_state, vip
from lab.waiting import wait_until

SECONDS = 15
"""How long the good backends are observed, without the bad ones and beside them; each is checked once a second."""

COPIES = 10
"""Number of good backends of each kind."""

MOST_DELAY = 0.1
MOST_MEMORY = 256 << 20
AGENT_GROWTH = 16 << 20


class Zoo:
    """Servers of zoo.py on a node."""

    def __init__(self, process: Background, output: IO[str]) -> None:
        self._process = process
        self._output = output
        lines = wait_until(self._lines, "the program knows its servers")
        self.servers: list[dict[str, Any]] = json.loads(lines[0])

    def open(self) -> None:
        """Open the ports."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, list[tuple[float, float]]]:
        """End the servers and return what the good ones have seen, by port: when each check began, and its length."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)
        seen: dict[str, list[tuple[float, float]]] = json.loads(self._lines()[1])
        return seen

    def _lines(self) -> list[str]:
        self._output.seek(0)
        return self._output.read().splitlines()


@contextmanager
def _zoo(node: Node, kinds: str, copies: int, niceness: int) -> Iterator[Zoo]:
    with TemporaryFile("w+", encoding="utf-8") as output:
        command = ["nice", "-n", str(niceness), "python3", "/opt/lab/zoo.py", kinds, str(copies)]
        process = node.start(command, stdin=True, output=output)
        try:
            yield Zoo(process, output)
        finally:
            process.kill()
            process.wait()


def _listeners(lab: Lab, zoo: Zoo, node: str, first_port: int) -> list[dict[str, Any]]:
    """Return a listener for each kind of server, with all servers of this kind."""
    listeners: dict[str, dict[str, Any]] = {}
    backends: dict[str, list[dict[str, Any]]] = {}
    for server in zoo.servers:
        name = re.sub("[^a-z0-9]+", "-", server["name"].lower())
        check = {"check_interval_sec": 1, "timeout_sec": 1, "type": server["type"], **server["options"]}
        listeners.setdefault(
            name,
            {
                "name": name,
                "protocol": "tcp",
                "address": vip(4, 58),
                "ports": [first_port + len(listeners)],
                "health_check": check,
            },
        )
        port = server["port"]
        backends.setdefault(name, []).append(
            {"name": f"{name}-{port}", "address": backend_address(lab, node, 4), "port": port}
        )
    return [{**listener, "backends": backends[name]} for name, listener in listeners.items()]


def _health(node: Node, listeners: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    names = {listener["name"] for listener in listeners}
    health: dict[str, dict[str, Any]] = runtime_state(node)["health"]
    return {key: state for key, state in health.items() if key.split("/")[0] in names}


def _worst_delay(seen: dict[str, list[tuple[float, float]]], begin: float, end: float) -> tuple[float, int]:
    """Return by how much a check in this time was late or long at most, and the number of checks."""
    worst, count = 0.0, 0
    for checks in seen.values():
        checks = sorted(check for check in checks if begin <= check[0] <= end)
        late = [later[0] - earlier[0] - 1 for earlier, later in zip(checks, checks[1:])]
        worst = max([worst, *late, *(length for _begin, length in checks)])
        count += len(checks)
    return worst, count


def _memory(node: Node, field: str, processes: list[str]) -> int:
    """Return the sum of a field of processes' status, in bytes."""
    statuses = [node.run(["cat", f"/proc/{process}/status"], check=False).stdout for process in processes]
    return sum(int(value) * 1024 for status in statuses for value in re.findall(rf"{field}:\s+(\d+) kB", status))


@pytest.mark.quiet
def test_row_58_hostile_backends(fleet: Fleet, lab: Lab) -> None:
    """Row 58: beside 33 backends, one of every bad kind, no check of 110 good ones is late, and no state changes."""
    heal(lab)
    node = lab.node("lb1")
    with _zoo(lab.node("b1"), "good", COPIES, 0) as good, _zoo(lab.node("b2"), "bad", 1, 19) as bad:
        good_listeners = _listeners(lab, good, "b1", 1000)
        bad_listeners = _listeners(lab, bad, "b2", 2000)
        good.open()
        # Until their ports are open the bad ones refuse all checks. The servers cannot tell load balancers apart.
        fleet.configure([])
        fleet.module("lb1", "lb_config", listeners=good_listeners + bad_listeners, state="replaced", purge="all")
        count = COPIES * len(good_listeners)
        wait_until(
            lambda: [state["state"] for state in _health(node, good_listeners).values()],
            "all good backends are healthy",
            accepts=lambda states: states == ["healthy"] * count,
        )
        # First checks are made at once, all others at their place in the interval.
        time.sleep(2)
        alone = time.monotonic()
        time.sleep(SECONDS)
        before, healthy = time.monotonic(), _health(node, good_listeners)
        used = _memory(node, "VmRSS", [agent_pid(node)])
        bad.open()
        time.sleep(SECONDS)
        after, still_healthy = time.monotonic(), _health(node, good_listeners)
        growth = _memory(node, "VmRSS", [agent_pid(node)]) - used
        workers = node.run(["pgrep", "-f", "_agent.worker"]).stdout.split()
        memory = _memory(node, "VmHWM", workers)
        seen = good.end()
        hostile = _health(node, bad_listeners)
    (usual, usual_checks), (worst, checks) = _worst_delay(seen, alone, before), _worst_delay(seen, before, after)
    print(
        f"worst delay of a good check: {usual * 1000:.0f} ms in {usual_checks} checks without hostile backends, "
        f"{worst * 1000:.0f} ms in {checks} beside {len(hostile)}; the agent grew by {growth >> 10} KiB, "
        f"the processes for checks have {memory >> 20} MiB"
    )
    # A few send in a bad way what their check expects.
    refused = [key for key, state in hostile.items() if state["state"] == "initial" or state["message"] == "refused"]
    assert (len(hostile), refused) == (33, [])
    assert {key: state["since"] for key, state in still_healthy.items()} == {
        key: state["since"] for key, state in healthy.items()
    }
    assert worst < usual + MOST_DELAY
    assert checks > count * SECONDS * 0.9
    assert growth < AGENT_GROWTH
    assert 0 < memory < MOST_MEMORY
