# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the agent with a fake node, in virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent import checks
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.agent import (
    SAVE_SECONDS,
    STUCK_SECONDS,
    Agent,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.pool import Pool
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.reconciler import (
    BOOT_FILES_SECONDS,
    CLOCK_SECONDS,
    GATHER_SECONDS,
    POLL_FACTOR,
    POLL_SECONDS,
    RETRY_SECONDS,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.status import REPAIRS
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration, backend_key_of
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import NodeError
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.limits import EXACT
from ansible_collections.evenflow.l4lb.plugins.module_utils._node import agent_status
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.node import Outcome
from ansible_collections.evenflow.l4lb.plugins.module_utils._schedule.least_conn import TICK
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.effective import effective
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import CheckResult, Health, HealthState
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.runtime import (
    EMPTY_RUNTIME,
    Drain,
    DrainCause,
    Runtime,
    with_clock_set_back,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.store import Store
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, check, document, listener
from ansible_collections.evenflow.l4lb.tests.unit.virtual_time import EPOCH, VirtualLoop, run

KEY = "web/198.19.0.1/0"
WEB = listener("web", backend("198.19.0.1"))
CHECKED = {**WEB, "health_check": check(check_interval_sec=1, timeout_sec=1, unhealthy_threshold=1)}
LC = {**WEB, "scheduler": "lc"}


@dataclass
class FakeOutcome:
    """The fields of an outcome that the agent reads."""

    config_after: Document
    runtime_after: Runtime
    effective_after: Configuration
    fingerprint: str
    repairs: list[str]
    changed: bool
    rejected: Sequence[str] = ()


class FakeNode:
    """A node whose state the test sets, instead of the thread that calls a real node.

    :ivar reconciled: the time of each reconciliation, and whether it saved the boot files.
    :ivar dealt: the times at which shares were dealt.
    :ivar clock_set_back: by how many seconds the clock was set back, each time.
    :ivar saved: the health states of each call that saved check results.
    :ivar changes: the number of next reconciliations that change something.
    :ivar errors: the errors that the next calls raise.
    :ivar seconds: the duration of a call.
    """

    def __init__(self, loop: VirtualLoop, configuration: Document) -> None:
        self.document = configuration
        self.runtime: Runtime = EMPTY_RUNTIME
        self.repairs: list[str] = []
        self.errors: list[Exception] = []
        self.changes = 0
        self.seconds = 0.0
        self.reconciled: list[tuple[float, bool]] = []
        self.dealt: list[float] = []
        self.dealt_places: list[float] = []
        self.saved: list[dict[str, Health]] = []
        self.clock_set_back: list[float] = []
        self.is_closed = False
        self.busy_seconds = 0.0
        self._loop = loop

    @property
    def times(self) -> list[float]:
        return [when for when, _save in self.reconciled]

    async def reconcile(self, health: Mapping[str, Health], save: bool) -> Outcome:
        self.reconciled.append((self._loop.time(), save))
        await self._work()
        configuration = Configuration.from_document(self.document)
        keys = [
            backend_key_of(name, entry["address"], entry["port"])
            for name, options in self.document.items()
            if options["health_check"]
            for entry in options["backends"]
        ]
        keys += [key for key, drain in self.runtime.drains.items() if drain.removed and drain.removed["health_check"]]
        states = {key: health.get(key, Health(HealthState.INITIAL, 0.0)) for key in keys}
        runtime = replace(self.runtime, health=states)
        outcome = FakeOutcome(
            self.document,
            runtime,
            effective(configuration, runtime),
            configuration.fingerprint,
            self.repairs,
            self.changes > 0,
        )
        self.changes, self.repairs = max(0, self.changes - 1), []
        return cast(Outcome, outcome)

    async def save_check_results(self, health: Mapping[str, Health]) -> None:
        await self._work()
        self.saved.append(dict(health))

    async def set_clock_back(self, known: Runtime, seconds: float) -> None:
        await self._work()
        self.clock_set_back.append(seconds)
        self.runtime = with_clock_set_back(self.runtime, known, seconds)

    async def deal_shares(self) -> None:
        self.dealt.append(self._loop.time())
        await self._work()

    async def deal_places(self) -> None:
        self.dealt_places.append(self._loop.time())
        await self._work()

    def close(self) -> None:
        self.is_closed = True

    async def _work(self) -> None:
        await asyncio.sleep(self.seconds)
        if self.errors:
            raise self.errors.pop(0)


class FakeAnchor:
    """An anchor that records the configurations."""

    def __init__(self) -> None:
        self.failed: Callable[[str], None] = lambda reason: None
        self.is_current = True
        self.held: list[Configuration] = []
        self.failures: list[NodeError] = []
        self.closed = 0

    def hold(self, configuration: Configuration) -> None:
        if self.failures:
            raise self.failures[0]
        self.held.append(configuration)

    def close(self) -> None:
        self.closed += 1


class FakeWatch:
    """A watch whose events the test causes."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self.is_closed = False

    def event(self, is_relevant: bool = True) -> None:
        os.write(self._write_end, b"+" if is_relevant else b"-")

    def fileno(self) -> int:
        return self._read_end

    def happened(self) -> bool:
        return b"+" in os.read(self._read_end, 100)

    def close(self) -> None:
        os.close(self._read_end)
        os.close(self._write_end)
        self.is_closed = True


class Bench:
    """A running agent with a fake node, anchor and watch."""

    def __init__(self, loop: VirtualLoop, folder: Path, configuration: Document) -> None:
        self.loop = loop
        self.store = Store(str(folder))
        self.node = FakeNode(loop, configuration)
        self.anchor = FakeAnchor()
        self.watch = FakeWatch()
        self.agent = Agent(
            self.store,
            cast(Any, self.node),
            cast(Any, self.anchor),
            [self.watch],
            Pool("/nonexistent"),
            loop.wall_clock,
        )

    @property
    def status(self) -> dict[str, Any]:
        """Return the status that lb_info reads."""
        return agent_status.read(self.store)

    def reconciled_after(self, moment: float) -> list[float]:
        """Return the times of reconciliations after a moment, in seconds since that moment."""
        return [round(when - moment, 6) for when in self.node.times if when > moment]


Work = Callable[[Bench], Coroutine[Any, Any, None]]
Run = Callable[..., Bench]


@pytest.fixture
def run_agent(tmp_path: Path) -> Run:
    """Return a function that runs an agent during a test's coroutine and stops it like the service manager."""

    def run_it(
        work: Work,
        *listeners: dict[str, Any],
        prepare: Callable[[Bench], None] | None = None,
        are_boot_files_current: bool = True,
    ) -> Bench:
        async def main(loop: VirtualLoop) -> Bench:
            bench = Bench(loop, tmp_path, document(*listeners))
            bench.agent.reconciler.are_boot_files_current = are_boot_files_current
            if prepare:
                prepare(bench)
            running = asyncio.ensure_future(bench.agent.run())
            try:
                await asyncio.sleep(0)
                await work(bench)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                await running
            return bench

        return run(main)

    return run_it


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Return a function that returns the messages to the service manager since the last call."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)

        def received() -> list[str]:
            messages = []
            while True:
                try:
                    messages.append(receiver.recv(1000).decode())
                except BlockingIOError:
                    return messages

        yield received


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


class TestStart:
    def test_the_node_is_reconciled_once(self, run_agent: Run) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(3600)

        bench = run_agent(work, WEB)
        assert bench.node.reconciled == [(GATHER_SECONDS, False)]
        assert [each.fingerprint for each in bench.anchor.held] == [
            Configuration.from_document(bench.node.document).fingerprint
        ]

    def test_the_agent_is_ready_after_the_first_reconciliation(
        self, run_agent: Run, manager: Callable[[], list[str]]
    ) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(4)
            assert manager() == []
            await asyncio.sleep(2)
            assert manager()[-1] == "READY=1\nSTATUS=1 listeners, 0 backends checked"
            status = bench.status
            assert (status["pid"], status["started"], status["error"]) == (os.getpid(), round(EPOCH), "")

        def prepare(bench: Bench) -> None:
            bench.node.seconds = 5

        run_agent(work, WEB, prepare=prepare)

    def test_the_agent_is_ready_after_a_failure(self, run_agent: Run, manager: Callable[[], list[str]]) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(GATHER_SECONDS * 2)
            assert manager()[-1] == "READY=1\nSTATUS=nft: no"

        run_agent(work, WEB, prepare=lambda bench: bench.node.errors.append(NodeError("nft: no")))


class TestEvents:
    def test_an_event_causes_a_reconciliation(self, run_agent: Run) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            bench.watch.event()
            await asyncio.sleep(10)

        assert run_agent(work, WEB).reconciled_after(9) == [1 + GATHER_SECONDS]

    def test_an_irrelevant_event_causes_no_reconciliation(self, run_agent: Run) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            bench.watch.event(is_relevant=False)
            await asyncio.sleep(10)

        assert run_agent(work, WEB).reconciled_after(9) == []

    def test_events_that_come_together_cause_one_reconciliation(self, run_agent: Run) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            for _turn in range(5):
                bench.watch.event()
                await asyncio.sleep(GATHER_SECONDS / 10)
            await asyncio.sleep(10)

        assert len(run_agent(work, WEB).reconciled_after(9)) == 1

    def test_an_event_during_a_reconciliation_causes_another(self, run_agent: Run) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            bench.node.seconds = 2
            bench.watch.event()
            await asyncio.sleep(1)
            bench.watch.event()
            await asyncio.sleep(10)

        assert run_agent(work, WEB).reconciled_after(10) == [GATHER_SECONDS, 2 + 2 * GATHER_SECONDS]

    def test_a_changed_health_state_causes_a_reconciliation(
        self, run_agent: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        results = [CheckResult(True, "ok"), CheckResult(True, "ok"), CheckResult(False, "refused")]

        async def answer(_target: Any) -> CheckResult:
            return results.pop(0) if len(results) > 1 else results[0]

        monkeypatch.setitem(checks.CHECKS, "tcp", answer)
        caplog.set_level(logging.INFO)
        seen: list[str] = []

        async def work(bench: Bench) -> None:
            original = bench.node.reconcile

            async def reconcile(health: Mapping[str, Health], save: bool) -> Outcome:
                seen.append(health[KEY].state if health else "none")
                return await original(health, save)

            monkeypatch.setattr(bench.node, "reconcile", reconcile)
            await asyncio.sleep(10)

        run_agent(work, CHECKED)
        assert seen == ["none", HealthState.HEALTHY, HealthState.UNHEALTHY]
        logged = [(record.levelname, record.getMessage()) for record in caplog.records if KEY in record.getMessage()]
        assert logged == [("INFO", f"{KEY} is healthy: ok"), ("WARNING", f"{KEY} is unhealthy: refused")]

    def test_checks_follow_the_configuration(
        self, run_agent: Run, monkeypatch: pytest.MonkeyPatch, manager: Callable[[], list[str]]
    ) -> None:
        checked: list[str] = []

        async def answer(target: Any) -> CheckResult:
            checked.append(target.address)
            return CheckResult(True, "ok")

        monkeypatch.setitem(checks.CHECKS, "tcp", answer)

        async def work(bench: Bench) -> None:
            await asyncio.sleep(5)
            assert set(checked) == {"198.19.0.1"}
            bench.node.document = document({**CHECKED, "backends": [backend("198.19.0.2"), backend("198.19.0.3")]})
            bench.watch.event()
            await asyncio.sleep(1)
            checked.clear()
            await asyncio.sleep(5)
            assert set(checked) == {"198.19.0.2", "198.19.0.3"}
            assert manager()[-1] == "STATUS=1 listeners, 2 backends checked"
            bench.node.document = {}
            bench.watch.event()
            await asyncio.sleep(1)
            checked.clear()
            await asyncio.sleep(5)
            assert not checked
            assert bench.anchor.held[-1].listeners == ()

        run_agent(work, CHECKED)

    def test_a_removed_backend_is_checked_until_its_flows_have_ended(
        self, run_agent: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checked: list[str] = []

        async def answer(target: Any) -> CheckResult:
            checked.append(target.address)
            return CheckResult(True, "ok")

        monkeypatch.setitem(checks.CHECKS, "tcp", answer)

        def prepare(bench: Bench) -> None:
            drain = Drain(EPOCH, None, DrainCause.REMOVED, {**CHECKED, "backends": [backend("198.19.0.9")]})
            bench.node.runtime = Runtime(drains={"web/198.19.0.9/0": drain})

        async def work(bench: Bench) -> None:
            await asyncio.sleep(5)
            assert set(checked) == {"198.19.0.1", "198.19.0.9"}
            bench.node.runtime = EMPTY_RUNTIME
            await asyncio.sleep(2)
            checked.clear()
            await asyncio.sleep(5)
            assert set(checked) == {"198.19.0.1"}

        run_agent(work, CHECKED, prepare=prepare)


class TestTime:
    def test_the_deadline_of_a_drain_causes_a_reconciliation(self, run_agent: Run) -> None:
        def prepare(bench: Bench) -> None:
            bench.node.runtime = Runtime(drains={KEY: Drain(EPOCH, EPOCH + 70, DrainCause.DRAINED)})

        async def work(bench: Bench) -> None:
            await asyncio.sleep(65)
            bench.node.runtime = replace(bench.node.runtime, expired=frozenset({KEY}))
            await asyncio.sleep(100)

        assert run_agent(work, WEB, prepare=prepare).reconciled_after(1) == pytest.approx([69 + GATHER_SECONDS])

    def test_the_end_of_flows_causes_a_reconciliation(self, run_agent: Run) -> None:
        def prepare(bench: Bench) -> None:
            bench.node.runtime = Runtime(
                ending={7: EPOCH + 30}, drains={KEY: Drain(EPOCH, EPOCH + 50, DrainCause.DRAINED)}
            )

        async def work(bench: Bench) -> None:
            await asyncio.sleep(20)
            bench.node.runtime = EMPTY_RUNTIME
            await asyncio.sleep(100)

        assert run_agent(work, WEB, prepare=prepare).reconciled_after(1) == pytest.approx([29 + GATHER_SECONDS])

    @pytest.mark.parametrize(
        "runtime",
        [
            Runtime(drains={KEY: Drain(EPOCH, None, DrainCause.REMOVED)}),
            Runtime(joined={KEY: EPOCH}),
            Runtime(uncounted={"limit": 3}),
        ],
    )
    def test_state_that_changes_without_an_event_is_polled(self, run_agent: Run, runtime: Runtime) -> None:
        def prepare(bench: Bench) -> None:
            bench.node.runtime = runtime

        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            assert len(bench.node.times) == 10
            bench.node.runtime = EMPTY_RUNTIME
            await asyncio.sleep(10)
            assert len(bench.node.times) == 11

        bench = run_agent(work, WEB, prepare=prepare)
        pauses = [later - earlier for earlier, later in zip(bench.node.times, bench.node.times[1:])]
        assert pauses == pytest.approx([POLL_SECONDS + GATHER_SECONDS] * 10)

    def test_a_deadline_does_not_wait_for_a_poll(self, run_agent: Run) -> None:
        def prepare(bench: Bench) -> None:
            bench.node.runtime = Runtime(
                joined={KEY: EPOCH}, drains={KEY: Drain(EPOCH, EPOCH + 0.4, DrainCause.DRAINED)}
            )

        async def work(bench: Bench) -> None:
            await asyncio.sleep(0.2)
            bench.node.runtime = EMPTY_RUNTIME
            await asyncio.sleep(10)

        assert run_agent(work, WEB, prepare=prepare).reconciled_after(0.1) == pytest.approx([0.3 + GATHER_SECONDS])

    def test_a_slow_node_is_polled_less_often(self, run_agent: Run) -> None:
        def prepare(bench: Bench) -> None:
            bench.node.runtime = Runtime(joined={KEY: EPOCH})
            bench.node.seconds = 0.5

        async def work(bench: Bench) -> None:
            await asyncio.sleep(100)

        first, second, *_others = run_agent(work, WEB, prepare=prepare).node.times
        assert second - first == pytest.approx(0.5 * (1 + POLL_FACTOR) + GATHER_SECONDS)


class TestClock:
    """The deadline is 70 s after the start; the clock is set after 10 s."""

    @staticmethod
    def _reconciled_after_a_step(run_agent: Run, seconds: float, failures: int = 0) -> list[float]:
        def prepare(bench: Bench) -> None:
            bench.node.runtime = Runtime(drains={KEY: Drain(EPOCH, EPOCH + 70, DrainCause.DRAINED)})

        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            bench.node.errors = [NodeError("nft: busy")] * failures
            bench.loop.step_clock(seconds)
            await asyncio.sleep(5)
            for _turn in range(100):
                if bench.node.runtime.drains[KEY].is_expired(bench.loop.wall_clock()):
                    bench.node.runtime = replace(bench.node.runtime, expired=frozenset({KEY}))
                await asyncio.sleep(1)

        bench = run_agent(work, WEB, prepare=prepare)
        assert bench.node.clock_set_back == pytest.approx([-seconds] if seconds < 0 else [])
        return bench.reconciled_after(10)

    def test_a_clock_that_was_far_behind_does_not_prolong_a_drain(self, run_agent: Run) -> None:
        """The node booted in 1970 and learns the time later."""

        def prepare(bench: Bench) -> None:
            bench.loop.step_clock(-EPOCH)
            bench.node.runtime = Runtime(drains={KEY: Drain(EPOCH, EPOCH + 70, DrainCause.DRAINED)})

        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            bench.loop.step_clock(EPOCH + 100)
            await asyncio.sleep(CLOCK_SECONDS + 2 * GATHER_SECONDS)
            bench.node.runtime = EMPTY_RUNTIME
            await asyncio.sleep(10)

        times = run_agent(work, WEB, prepare=prepare).reconciled_after(10)
        assert times and times[0] <= CLOCK_SECONDS + GATHER_SECONDS

    @pytest.mark.parametrize("failures", [0, 3])
    def test_a_clock_that_is_set_back_does_not_prolong_a_drain(self, run_agent: Run, failures: int) -> None:
        times = self._reconciled_after_a_step(run_agent, -3600, failures)
        assert times[0] <= CLOCK_SECONDS + GATHER_SECONDS + failures * (RETRY_SECONDS + GATHER_SECONDS)
        assert 60 <= times[1] <= 61

    def test_a_clock_that_is_set_forward_brings_the_deadline_nearer(self, run_agent: Run) -> None:
        assert 29 <= self._reconciled_after_a_step(run_agent, 30)[0] <= 31

    def test_a_clock_that_drifts_moves_nothing(self, run_agent: Run) -> None:
        async def work(bench: Bench) -> None:
            for _turn in range(20):
                bench.loop.step_clock(-0.01)
                await asyncio.sleep(1)

        def prepare(bench: Bench) -> None:
            bench.node.runtime = Runtime(drains={KEY: Drain(EPOCH, EPOCH + 70, DrainCause.DRAINED)})

        assert run_agent(work, WEB, prepare=prepare).node.clock_set_back == []


class TestBootFiles:
    def test_outdated_boot_files_are_saved_once_after_the_start(self, run_agent: Run) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(60)

        bench = run_agent(work, WEB, are_boot_files_current=False)
        assert [save for _when, save in bench.node.reconciled] == [False, True]
        assert bench.node.times == pytest.approx([GATHER_SECONDS, BOOT_FILES_SECONDS + 2 * GATHER_SECONDS])

    def test_boot_files_are_saved_some_time_after_a_change(self, run_agent: Run) -> None:
        def prepare(bench: Bench) -> None:
            bench.node.changes = 1

        async def work(bench: Bench) -> None:
            await asyncio.sleep(60)

        bench = run_agent(work, WEB, prepare=prepare)
        assert bench.node.reconciled == [
            (GATHER_SECONDS, False),
            (pytest.approx(BOOT_FILES_SECONDS + 2 * GATHER_SECONDS), True),
        ]

    def test_further_changes_do_not_move_the_time_of_saving(self, run_agent: Run) -> None:
        """A change by the agent itself is an event, too."""

        def prepare(bench: Bench) -> None:
            bench.node.changes = 100

        async def work(bench: Bench) -> None:
            await asyncio.sleep(1)
            bench.node.reconciled.clear()
            for _turn in range(20):
                bench.watch.event()
                await asyncio.sleep(0.5)
            bench.node.changes = 0

        bench = run_agent(work, WEB, prepare=prepare)
        first, second = (when for when, save in bench.node.reconciled if save)
        assert BOOT_FILES_SECONDS <= first <= BOOT_FILES_SECONDS + 0.6
        assert second - first >= BOOT_FILES_SECONDS
        assert len(bench.node.reconciled) >= 20

    def test_saving_boot_files_is_retried_after_an_error(self, run_agent: Run) -> None:
        def prepare(bench: Bench) -> None:
            bench.node.changes = 1

        async def work(bench: Bench) -> None:
            await asyncio.sleep(1)
            bench.node.errors = [OSError(28, "No space left on device", "restore.nft")]
            await asyncio.sleep(60)

        bench = run_agent(work, WEB, prepare=prepare)
        assert [save for _when, save in bench.node.reconciled] == [False, True, True]


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (NodeError("nft: busy"), "nft: busy"),
            (OSError(28, "No space left on device", "/run/x"), "/run/x: No space left on device"),
            (OSError(28, "No space left on device"), "node: No space left on device"),
        ],
    )
    def test_an_error_is_reported_once_and_retried(
        self,
        run_agent: Run,
        caplog: pytest.LogCaptureFixture,
        manager: Callable[[], list[str]],
        error: Exception,
        text: str,
    ) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            bench.node.errors = [error] * 5
            bench.watch.event()
            await asyncio.sleep(3)
            assert bench.status["error"] == text
            await asyncio.sleep(10)
            assert bench.status["error"] == ""

        bench = run_agent(work, WEB)
        assert bench.reconciled_after(10) == pytest.approx(
            [GATHER_SECONDS + (RETRY_SECONDS + GATHER_SECONDS) * number for number in range(6)]
        )
        assert errors_of(caplog) == [f"{text}; the kernel keeps the last good state"]
        statuses = [message for message in manager() if "STATUS" in message]
        assert statuses[-2:] == [f"STATUS={text}", "STATUS=1 listeners, 0 backends checked"]

    def test_a_different_error_is_reported(self, run_agent: Run, caplog: pytest.LogCaptureFixture) -> None:
        def prepare(bench: Bench) -> None:
            bench.node.errors = [NodeError(text) for text in ("a", "a", "b", "a")]

        async def work(bench: Bench) -> None:
            await asyncio.sleep(60)

        run_agent(work, WEB, prepare=prepare)
        assert [text[0] for text in errors_of(caplog)] == ["a", "b", "a"]

    def test_an_event_does_not_wait_for_the_retry(self, run_agent: Run) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            bench.node.errors = [NodeError("no")]
            bench.watch.event()
            await asyncio.sleep(RETRY_SECONDS / 2)
            bench.watch.event()
            await asyncio.sleep(10)

        bench = run_agent(work, WEB)
        assert bench.reconciled_after(10) == pytest.approx([GATHER_SECONDS, RETRY_SECONDS / 2 + GATHER_SECONDS])

    def test_a_deadline_that_has_passed_does_not_make_retries_faster(self, run_agent: Run) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(6)
            bench.node.errors = [NodeError("no")] * 100
            await asyncio.sleep(5.5)

        def prepare(bench: Bench) -> None:
            bench.node.runtime = Runtime(drains={KEY: Drain(EPOCH, EPOCH + 7, DrainCause.DRAINED)})

        assert len(run_agent(work, WEB, prepare=prepare).reconciled_after(6)) == 5

    def test_an_error_of_the_library_ends_the_agent(self, tmp_path: Path) -> None:
        """The service manager then starts the agent again."""

        async def main(loop: VirtualLoop) -> Bench:
            bench = Bench(loop, tmp_path, document(WEB))
            bench.node.errors = [ZeroDivisionError()]
            with pytest.raises(ZeroDivisionError):
                await bench.agent.run()
            return bench

        bench = run(main)
        assert bench.node.is_closed and bench.anchor.closed and bench.watch.is_closed

    def test_a_failure_of_the_anchor_is_logged_once_and_the_anchor_is_held_again(
        self, run_agent: Run, caplog: pytest.LogCaptureFixture
    ) -> None:
        def prepare(bench: Bench) -> None:
            bench.anchor.failures = [NodeError("nft: not found")]
            bench.anchor.is_current = False

        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            assert errors_of(caplog) == ["the anchor table: nft: not found"] and not bench.anchor.held
            bench.anchor.failures, bench.anchor.is_current = [], True
            await asyncio.sleep(10)
            assert len(bench.anchor.held) == 1
            bench.anchor.failed("nft -i has ended")
            await asyncio.sleep(10)
            assert len(bench.anchor.held) == 2
            bench.anchor.failed("nft -i has ended")
            await asyncio.sleep(10)

        bench = run_agent(work, WEB, prepare=prepare)
        assert errors_of(caplog) == ["the anchor table: nft: not found", *["the anchor table: nft -i has ended"] * 2]
        assert bench.status["error"] == ""


class TestRepairs:
    def test_repairs_are_logged_and_reported(self, run_agent: Run, caplog: pytest.LogCaptureFixture) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            bench.node.repairs = ["the table was gone", "a VIP was gone"]
            bench.watch.event()
            await asyncio.sleep(1)

        bench = run_agent(work, WEB)
        assert bench.status["repairs"] == [
            {"time": EPOCH + 10, "found": "the table was gone"},
            {"time": EPOCH + 10, "found": "a VIP was gone"},
        ]
        repairs = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert repairs == ["put right: the table was gone", "put right: a VIP was gone"]

    def test_only_the_last_repairs_are_kept(self, run_agent: Run) -> None:
        async def work(bench: Bench) -> None:
            for number in range(REPAIRS + 5):
                bench.node.repairs = [f"repair {number}"]
                bench.watch.event()
                await asyncio.sleep(1)

        repairs = run_agent(work, WEB).status["repairs"]
        assert [entry["found"] for entry in repairs] == [f"repair {number}" for number in range(5, REPAIRS + 5)]


class TestShares:
    def test_shares_are_dealt_while_a_listener_needs_them(self, run_agent: Run) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            assert bench.node.dealt == []
            bench.node.document = document(LC)
            bench.watch.event()
            await asyncio.sleep(10)
            assert len(bench.node.dealt) == pytest.approx(10 / TICK, abs=1)
            bench.node.document = document(WEB)
            bench.watch.event()
            await asyncio.sleep(TICK)
            bench.node.dealt.clear()
            await asyncio.sleep(10)
            assert bench.node.dealt == []

        run_agent(work, WEB)

    def test_dealing_takes_only_a_part_of_the_time(self, run_agent: Run) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(1)
            bench.node.dealt.clear()
            bench.node.seconds = 2
            await asyncio.sleep(100)

        bench = run_agent(work, LC)
        pauses = [later - earlier for earlier, later in zip(bench.node.dealt, bench.node.dealt[1:])]
        assert pauses == pytest.approx([8] * len(pauses)) and len(pauses) > 5

    def test_a_failure_is_logged_and_dealing_continues(self, run_agent: Run, caplog: pytest.LogCaptureFixture) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(1)
            bench.node.dealt.clear()
            bench.node.errors = [NodeError("nft: busy"), OSError(28, "No space left on device")]
            await asyncio.sleep(1)

        bench = run_agent(work, LC)
        assert len(bench.node.dealt) >= 3
        assert len(errors_of(caplog)) == 2 and errors_of(caplog)[0] == "shares of lc and wlc: nft: busy"


class TestPlaces:
    def test_places_are_dealt_while_a_limit_is_too_large_for_the_kernel(self, run_agent: Run) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            assert bench.node.dealt_places == []
            bench.node.document = document({**WEB, "max_connections": EXACT + 1})
            bench.watch.event()
            await asyncio.sleep(10)
            assert len(bench.node.dealt_places) == pytest.approx(10 / TICK, abs=1)

        run_agent(work, {**WEB, "max_connections": EXACT})


class TestCheckResults:
    def test_messages_that_change_no_state_are_saved_once(
        self, run_agent: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        message = "ok"

        async def answer(_target: Any) -> CheckResult:
            return CheckResult(True, message)

        monkeypatch.setitem(checks.CHECKS, "tcp", answer)

        async def work(bench: Bench) -> None:
            nonlocal message
            await asyncio.sleep(10)
            assert bench.node.saved == []
            message = "better"
            await asyncio.sleep(1 + 2 * SAVE_SECONDS)
            assert [health[KEY].message for health in bench.node.saved] == ["better"]
            await asyncio.sleep(10)
            assert len(bench.node.saved) == 1
            message = "best"
            bench.node.errors = [OSError(28, "No space left on device")]
            await asyncio.sleep(10)
            assert len(bench.node.saved) == 1
            assert len(errors_of(caplog)) == 1

        bench = run_agent(work, CHECKED)
        assert len(bench.node.times) == 2

    def test_late_checks_are_reported(self, run_agent: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        async def answer(_target: Any) -> CheckResult:
            return CheckResult(True, "ok")

        monkeypatch.setitem(checks.CHECKS, "tcp", answer)

        async def work(bench: Bench) -> None:
            await asyncio.sleep(10)
            assert bench.status["late_checks"] == 0
            bench.loop.advance(5)
            await asyncio.sleep(2)
            assert bench.status["late_checks"] == 1

        run_agent(work, CHECKED)


class TestWatchdog:
    def test_the_watchdog_is_notified_three_times_an_interval(
        self, run_agent: Run, manager: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")

        async def work(bench: Bench) -> None:
            await asyncio.sleep(1)
            manager()
            await asyncio.sleep(30)
            assert manager() == ["WATCHDOG=1"] * 3

        run_agent(work, WEB)

    def test_the_watchdog_is_not_notified_while_the_node_hangs(
        self,
        run_agent: Run,
        manager: Callable[[], list[str]],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")

        async def work(bench: Bench) -> None:
            bench.node.busy_seconds = STUCK_SECONDS - 1
            await asyncio.sleep(25)
            manager()
            bench.node.busy_seconds = STUCK_SECONDS
            await asyncio.sleep(30)
            assert manager() == []
            assert "has not answered for 300 s" in errors_of(caplog)[0]
            bench.node.busy_seconds = 0
            await asyncio.sleep(30)
            assert manager() == ["WATCHDOG=1"] * 3

        run_agent(work, WEB)

    def test_no_notification_without_a_watchdog(self, run_agent: Run, manager: Callable[[], list[str]]) -> None:
        async def work(bench: Bench) -> None:
            await asyncio.sleep(1)
            manager()
            await asyncio.sleep(100)
            assert manager() == []

        run_agent(work, WEB)


class TestStop:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_stops_the_agent(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        manager: Callable[[], list[str]],
        number: signal.Signals,
    ) -> None:
        cancelled: list[str] = []

        async def endless(target: Any) -> CheckResult:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                cancelled.append(target.key)
                raise
            return CheckResult(True, "ok")

        monkeypatch.setitem(checks.CHECKS, "tcp", endless)

        async def main(loop: VirtualLoop) -> Bench:
            bench = Bench(loop, tmp_path, document({**CHECKED, "health_check": check(timeout_sec=300)}))
            running = asyncio.ensure_future(bench.agent.run())
            await asyncio.sleep(1)
            # A reconciliation is running when the signal arrives.
            bench.node.seconds = 100
            bench.watch.event()
            await asyncio.sleep(1)
            os.kill(os.getpid(), number)
            await running
            assert loop.time() == pytest.approx(2)
            return bench

        bench = run(main)
        assert cancelled == [KEY]
        assert manager()[-1] == "STOPPING=1"
        assert bench.node.is_closed and bench.anchor.closed == 1 and bench.watch.is_closed
        assert json.loads((tmp_path / "run" / "agent.json").read_text())["pid"] == os.getpid()
