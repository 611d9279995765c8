# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parts of the agent that need no node: when checks begin, which files it watches, what it tells systemd."""

from __future__ import annotations

import asyncio
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils import _agent_status
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent import _prober
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent._notify import notify, watchdog_interval
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent._prober import Prober
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent._target import Target
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent._watch import FileWatch
from ansible_collections.evenflow.l4lb.plugins.module_utils._health import CheckResult, Health
from ansible_collections.evenflow.l4lb.plugins.module_utils._store import Store
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, check, configuration, listener

T = TypeVar("T")


def _targets(count: int, **options: object) -> dict[str, Target]:
    wanted = check(check_interval_sec=1, timeout_sec=1, **options)
    backends = [backend(f"198.19.0.{number}") for number in range(1, count + 1)]
    one = configuration(listener("web", *backends, health_check=wanted)).listeners[0]
    if one.health_check is None:
        raise ValueError("there is a check")
    named = [(f"web/{found.address}/0", found) for found in one.backends]
    return {name: Target.of(name, one, found, one.health_check) for name, found in named}


class _Clock(selectors.SelectSelector):
    """A selector that does not wait: the time that it was to wait for has passed when it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while everything waits."""

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def pass_time(self, seconds: float) -> None:
        """Let time pass in which the loop does nothing."""
        self._clock.now += seconds


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a time of its own, which takes none of ours."""
    loop = _Loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """When which target was checked; every check succeeds after a moment."""
    seen: list[tuple[float, str]] = []

    async def probe(target: Target) -> CheckResult:
        seen.append((asyncio.get_running_loop().time() - 1000, target.name))
        await asyncio.sleep(0.05)
        return CheckResult(True, "ok")

    monkeypatch.setattr(_prober, "probe", probe)
    return seen


async def _changed(targets: dict[str, Target], state: str, seconds: float) -> list[str]:
    """Check targets in a known state for some time, and return those whose state changed."""
    changed: list[str] = []
    prober = Prober(changed.append, time.time)
    prober.update(targets, {name: Health(state, 0.0) for name in targets})
    await asyncio.sleep(seconds)
    prober.stop()
    return changed


def test_new_registrations_are_checked_at_once_and_then_in_their_places(probed: list[tuple[float, str]]) -> None:
    targets = _targets(20)
    assert sorted(_run(_changed(targets, "initial", 3.0))) == sorted(targets)
    assert {name for _when, name in probed[:20]} == set(targets)
    times = {name: [when for when, found in probed if found == name] for name in targets}
    assert max(found[0] for found in times.values()) <= 20 / _prober.FIRST_PER_SECOND
    for first, second, *more in times.values():
        # In the second half of the interval, and from then on one interval after the other.
        assert 0.5 <= second - first <= 1.01
        assert more and more == pytest.approx([second + 1 + number for number in range(len(more))])
    second_times = [found[1] for found in times.values()]
    assert max(second_times) - min(second_times) > 0.25


def test_known_ones_wait_for_their_places(probed: list[tuple[float, str]]) -> None:
    """So that an agent that is started again does not check everything at once."""
    targets = _targets(20)
    assert _run(_changed(targets, "healthy", 1.0)) == []
    assert sorted(name for _when, name in probed) == sorted(targets)
    times = [when for when, _name in probed]
    assert len(set(times)) == 20 and max(times) - min(times) > 0.5


def test_what_is_taken_away_is_checked_no_more(probed: list[tuple[float, str]]) -> None:
    targets = _targets(3)
    few = dict(list(targets.items())[:1])

    async def main() -> list[str]:
        changed: list[str] = []
        prober = Prober(changed.append, time.time)
        prober.update(targets, {name: Health("initial", 0.0) for name in targets})
        # Checks of all three have begun, and none has ended.
        await asyncio.sleep(0.02)
        prober.update(few, {name: Health("initial", 0.0) for name in few})
        await asyncio.sleep(5)
        assert set(prober.health) == set(few)
        prober.stop()
        return changed

    assert _run(main()) == list(few)
    assert {name for when, name in probed if when < 0.02} == set(targets)
    assert {name for when, name in probed if when > 0.02} == set(few)


def test_a_result_for_other_options_does_not_count(probed: list[tuple[float, str]]) -> None:
    """A check that runs while its options change is not the registration's any more; the next check is."""
    targets, changed_targets = _targets(1), _targets(1, request_path="/other")

    async def main() -> list[str]:
        changed: list[str] = []
        prober = Prober(changed.append, time.time)
        prober.update(targets, {name: Health("initial", 0.0) for name in targets})
        await asyncio.sleep(0.02)
        prober.update(changed_targets, {name: Health("initial", 0.0) for name in changed_targets})
        prober._result(next(iter(targets.values())), CheckResult(True, "ok"))
        assert changed == []
        await asyncio.sleep(1)
        prober.stop()
        return changed

    assert _run(main()) == list(targets)


def test_checks_that_begin_late_are_counted(probed: list[tuple[float, str]]) -> None:
    """A loop that is busy with something else for longer than is allowed makes the checks of that time late."""
    targets = _targets(60)

    async def main(busy: float) -> int:
        prober = Prober(lambda name: None, time.time)
        prober.update(targets, {name: Health("healthy", 0.0) for name in targets})
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _Loop)
        await asyncio.sleep(1.5)
        assert prober.late == 0
        loop.pass_time(busy)
        await asyncio.sleep(1.5)
        prober.stop()
        return prober.late

    assert _run(main(_prober.LATE_SECONDS / 2)) == 0
    assert _run(main(0.99)) >= 30


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


def test_systemd_is_notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert not _agent_status.is_running(store)
    with _agent_status.held(store) as is_alone:
        assert is_alone
        assert _agent_status.is_running(store)
    _agent_status.write(store, {"pid": 1})
    assert _agent_status.read(store) == {"pid": 1, "running": False}
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
        assert _agent_status.is_running(store)
    finally:
        holder.kill()
        holder.communicate()
    assert not _agent_status.is_running(store)
