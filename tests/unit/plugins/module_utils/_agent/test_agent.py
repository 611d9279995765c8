# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parts of the agent that need no node: when checks begin, which files it watches, what it tells systemd."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent import prober
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.notify import notify, watchdog_interval
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.prober import Prober
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.target import Target
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.watch import FileWatch
from ansible_collections.evenflow.l4lb.plugins.module_utils._node import agent_status
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import CheckResult, Health, HealthState
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.store import Store
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, check, configuration, listener


def _targets(count: int, **options: Any) -> dict[str, Target]:
    wanted = check(check_interval_sec=1, timeout_sec=1, **options)
    backends = [backend(f"198.19.0.{number}") for number in range(1, count + 1)]
    one = configuration(listener("web", *backends, health_check=wanted)).listeners[0]
    if one.health_check is None:
        raise ValueError("there is a check")
    named = [(f"web/{found.address}/0", found) for found in one.backends]
    return {name: Target.of(name, one, found, one.health_check) for name, found in named}


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """When which target was checked; every check succeeds after a moment."""
    seen: list[tuple[float, str]] = []

    async def probe(target: Target) -> CheckResult:
        seen.append((time.monotonic(), target.name))
        await asyncio.sleep(0.05)
        return CheckResult(True, "ok")

    monkeypatch.setattr(prober, "probe", probe)
    return seen


def _run(targets: dict[str, Target], state: str, work: Callable[[Prober], object], seconds: float) -> list[str]:
    told: list[str] = []

    async def main() -> None:
        prober = Prober(told.append, time.time)
        prober.update(targets, {name: Health(HealthState(state), 0.0) for name in targets})
        await asyncio.sleep(seconds)
        work(prober)
        prober.stop()

    asyncio.run(main())
    return told


def test_new_registrations_are_checked_at_once_and_then_in_their_places(probed: list[tuple[float, str]]) -> None:
    targets = _targets(20)
    told = _run(targets, "initial", lambda prober: None, 2.4)
    assert sorted(told) == sorted(targets)
    first = [when for when, _name in probed[:20]]
    assert first[-1] - first[0] < 0.5
    assert {name for _when, name in probed[:20]} == set(targets)
    counts = {name: sum(1 for _when, found in probed if found == name) for name in targets}
    assert set(counts.values()) <= {2, 3}


def test_known_ones_wait_for_their_places(probed: list[tuple[float, str]]) -> None:
    """So that an agent that is started again does not check everything at once."""
    assert _run(_targets(20), "healthy", lambda prober: None, 1.3) == []
    times = [when for when, _name in probed]
    assert 20 <= len(times) <= 27
    assert times[10] - times[0] > 0.2


def test_what_is_taken_away_is_checked_no_more(probed: list[tuple[float, str]]) -> None:
    targets = _targets(3)
    few = dict(list(targets.items())[:1])

    async def main() -> list[str]:
        told: list[str] = []
        prober = Prober(told.append, time.time)
        prober.update(targets, {name: Health(HealthState.INITIAL, 0.0) for name in targets})
        await asyncio.sleep(0.02)
        prober.update(few, {name: Health(HealthState.INITIAL, 0.0) for name in few})
        await asyncio.sleep(0.3)
        assert set(prober.health) == set(few)
        prober.stop()
        return told

    assert asyncio.run(main()) == list(few)


def test_a_file_that_is_replaced_is_seen_and_others_are_not(tmp_path: Path) -> None:
    watch = FileWatch(str(tmp_path), ("listeners.json",))
    try:
        (tmp_path / "other.json").write_text("{}")
        assert not watch.happened()
        (tmp_path / "listeners.json.new").write_text("{}")
        (tmp_path / "listeners.json.new").rename(tmp_path / "listeners.json")
        assert watch.happened()
        assert not watch.happened()
        (tmp_path / "listeners.json").write_text("")
        assert watch.happened()
    finally:
        watch.close()


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "60000000")
        notify(READY="1", STATUS="2 listeners")
        assert manager.recv(100) == b"READY=1\nSTATUS=2 listeners"
        assert watchdog_interval() == 60
    monkeypatch.delenv("NOTIFY_SOCKET")
    monkeypatch.delenv("WATCHDOG_USEC")
    notify(READY="1")
    assert watchdog_interval() is None


def test_whether_an_agent_runs_does_not_depend_on_how_it_ended(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert not agent_status.is_running(store)
    with agent_status.held(store) as is_alone:
        assert is_alone
        assert agent_status.is_running(store)
    agent_status.write(store, {"pid": 1})
    assert agent_status.read(store) == {"pid": 1, "running": False}
    (tmp_path / "run" / "agent.lock").unlink()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl,sys,time; f=open(sys.argv[1],'a'); fcntl.flock(f,2); print(flush=True); time.sleep(60)",
            str(tmp_path / "run" / "agent.lock"),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.read(1)
        assert agent_status.is_running(store)
    finally:
        holder.kill()
        holder.communicate()
    assert not agent_status.is_running(store)
