# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the prober in virtual time: the times of checks and the effect of results."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent import checks
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.prober import (
    BUSY_SECONDS,
    FIRST_PER_SECOND,
    LATE_SECONDS,
    Prober,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.target import Target
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import CheckResult, Health, HealthState
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, check, configuration, listener
from ansible_collections.evenflow.l4lb.tests.unit.virtual_time import EPOCH, VirtualLoop, run

INTERVAL = 10
GOOD = CheckResult(True, "ok")
BAD = CheckResult(False, "refused")


def targets_of(count: int, **options: Any) -> dict[str, Target]:
    """Return the targets of a listener with a number of backends."""
    health_check = check(**{"check_interval_sec": INTERVAL, "timeout_sec": 5, **options})
    backends = [backend(f"198.19.{number // 200}.{number % 200 + 1}") for number in range(count)]
    web = configuration(listener("web", *backends, health_check=health_check)).listeners[0]
    if web.health_check is None:
        raise ValueError("the listener has a check")
    targets = [Target.of(web, entry, web.health_check) for entry in web.backends]
    return {target.key: target for target in targets}


def healths(targets: dict[str, Target], state: HealthState) -> dict[str, Health]:
    return {key: Health(state, 0.0) for key in targets}


@dataclass
class Bench:
    """A prober with fake checks, whose duration and result the test sets.

    :ivar begun: the time and the target of each check that began.
    :ivar changed: the time in seconds since the epoch and the target of each changed state.
    """

    loop: VirtualLoop
    seconds: float = 0.0
    result: Callable[[Target], CheckResult] = lambda _target: GOOD
    begun: list[tuple[float, str]] = field(default_factory=list)
    changed: list[tuple[float, str]] = field(default_factory=list)
    running: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.prober = Prober(self._state_changed, self.loop.wall_clock, self._check)

    def times(self, key: str) -> list[float]:
        return [when for when, checked in self.begun if checked == key]

    def _state_changed(self, key: str) -> None:
        self.changed.append((self.loop.wall_clock(), key))

    async def _check(self, target: Target) -> CheckResult:
        self.begun.append((self.loop.time(), target.key))
        self.running[target.key] += 1
        self.most_at_once = max(self.most_at_once, self.running[target.key])
        try:
            if self.seconds:
                await asyncio.sleep(self.seconds)
            return self.result(target)
        finally:
            self.running[target.key] -= 1


def with_bench(work: Callable[[Bench], Coroutine[Any, Any, None]]) -> Bench:
    """Run a test's coroutine, stop the prober and return the bench."""

    async def main(loop: VirtualLoop) -> Bench:
        bench = Bench(loop)
        try:
            await work(bench)
        finally:
            bench.prober.stop()
        return bench

    return run(main)


class TestTimes:
    def test_first_checks_of_new_backends_are_spread(self) -> None:
        targets = targets_of(300)

        async def work(bench: Bench) -> None:
            bench.prober.update(targets, healths(targets, HealthState.INITIAL))
            await asyncio.sleep(1)

        bench = with_bench(work)
        assert [key for _when, key in bench.begun] == list(targets)
        expected = [number / FIRST_PER_SECOND for number in range(300)]
        assert [when for when, _key in bench.begun] == pytest.approx(expected)
        assert {key for _when, key in bench.changed} == set(targets)

    def test_later_checks_have_a_fixed_place_in_the_interval(self) -> None:
        targets = targets_of(300)

        async def work(bench: Bench) -> None:
            bench.prober.update(targets, healths(targets, HealthState.INITIAL))
            await asyncio.sleep(4.6 * INTERVAL)

        bench = with_bench(work)
        for key in targets:
            first, second, *others = bench.times(key)
            assert INTERVAL / 2 <= second - first <= INTERVAL
            assert len(others) in (3, 4)
            assert [later - second for later in others] == pytest.approx(
                [INTERVAL * (number + 1) for number in range(len(others))]
            )
        seconds = Counter(int(when) for when, _key in bench.begun if 20 <= when < 30)
        assert sum(seconds.values()) == 300
        # Counted from the first check, the places are in the second half of the interval.
        assert max(seconds.values()) < 100

    @pytest.mark.parametrize("state", [HealthState.HEALTHY, HealthState.UNHEALTHY])
    def test_known_backends_wait_for_their_places(self, state: HealthState) -> None:
        """A restarted agent does not check all backends at the same time."""
        targets = targets_of(300)

        async def work(bench: Bench) -> None:
            bench.prober.update(targets, healths(targets, state))
            await asyncio.sleep(2 * INTERVAL - 0.001)

        bench = with_bench(work)
        tenths = Counter(int(when) for when, _key in bench.begun if when < INTERVAL)
        assert sum(tenths.values()) == 300
        assert len(tenths) == 10 and max(tenths.values()) < 60
        for key in targets:
            first, second = bench.times(key)
            assert second - first == pytest.approx(INTERVAL)

    def test_every_target_has_its_own_interval(self) -> None:
        slow, fast = targets_of(2).values()
        fast = replace(fast, check=replace(fast.check, check_interval_sec=1))
        targets = {slow.key: slow, fast.key: fast}

        async def work(bench: Bench) -> None:
            bench.prober.update(targets, healths(targets, HealthState.HEALTHY))
            await asyncio.sleep(100)

        bench = with_bench(work)
        assert (len(bench.times(slow.key)), len(bench.times(fast.key))) == (10, 100)

    def test_a_slow_check_does_not_delay_the_next_one(self) -> None:
        targets = targets_of(1)

        async def work(bench: Bench) -> None:
            bench.seconds = 0.9 * INTERVAL
            bench.prober.update(targets, healths(targets, HealthState.HEALTHY))
            await asyncio.sleep(5 * INTERVAL)

        bench = with_bench(work)
        times = bench.times(*targets)
        assert [later - times[0] for later in times] == pytest.approx([INTERVAL * number for number in range(5)])
        assert bench.prober.late == 0

    def test_checks_of_a_target_never_overlap(self) -> None:
        """A check that takes longer than the interval delays the next one, which counts as late."""
        targets = targets_of(1)

        async def work(bench: Bench) -> None:
            bench.seconds = INTERVAL + 1
            bench.prober.update(targets, healths(targets, HealthState.HEALTHY))
            await asyncio.sleep(5 * INTERVAL)

        bench = with_bench(work)
        times = bench.times(*targets)
        assert bench.most_at_once == 1
        assert len(times) == 4
        for earlier, later in zip(times, times[1:]):
            assert 1 <= later - earlier - INTERVAL <= 1 + 2 * BUSY_SECONDS
        assert bench.prober.late == len(times) - 1


class TestLate:
    @pytest.mark.parametrize(("delay", "late"), [(LATE_SECONDS / 2, 0), (LATE_SECONDS * 2, 1)])
    def test_a_check_counts_as_late_after_a_delay(self, delay: float, late: int) -> None:
        targets = targets_of(1)

        async def work(bench: Bench) -> None:
            bench.prober.update(targets, healths(targets, HealthState.INITIAL))
            bench.loop.advance(delay)
            await asyncio.sleep(1)

        bench = with_bench(work)
        assert bench.prober.late == late
        assert bench.times(*targets) == [delay]

    def test_missed_checks_are_not_repeated(self) -> None:
        """After the loop was blocked for several intervals, a target is not checked once for each interval."""
        targets = targets_of(20)

        async def work(bench: Bench) -> None:
            bench.prober.update(targets, healths(targets, HealthState.HEALTHY))
            await asyncio.sleep(INTERVAL)
            bench.begun.clear()
            bench.loop.advance(5 * INTERVAL)
            await asyncio.sleep(INTERVAL / 100)

        bench = with_bench(work)
        # The missed check begins at once, and so does the next one, which was due an interval later; no others follow.
        assert set(Counter(key for _when, key in bench.begun).values()) == {2}
        assert bench.prober.late == 20


class TestResults:
    def run_results(self, state: HealthState, results: str, **options: Any) -> tuple[list[str], Bench]:
        """Check a target once for each letter, and return the state after each check."""
        targets = targets_of(1, **options)
        (key,) = targets
        states: list[str] = []
        pending = list(results)

        async def work(bench: Bench) -> None:
            bench.result = lambda _target: GOOD if pending.pop(0) == "+" else BAD
            bench.prober.update(targets, healths(targets, state))
            while pending:
                count = len(pending)
                while len(pending) == count:
                    await asyncio.sleep(1)
                states.append(bench.prober.health[key].state)

        return states, with_bench(work)

    def test_unhealthy_after_a_threshold_of_failures_in_a_row(self) -> None:
        states, bench = self.run_results(HealthState.HEALTHY, "--+---", unhealthy_threshold=3)
        assert states == [HealthState.HEALTHY] * 5 + [HealthState.UNHEALTHY]
        assert [key for _when, key in bench.changed] == list(bench.prober.health)

    def test_healthy_after_a_threshold_of_successes_in_a_row(self) -> None:
        states, bench = self.run_results(HealthState.UNHEALTHY, "+-++", healthy_threshold=2)
        assert states == [HealthState.UNHEALTHY] * 3 + [HealthState.HEALTHY]
        assert len(bench.changed) == 1

    def test_a_new_backend_is_healthy_at_its_first_success(self) -> None:
        states, _bench = self.run_results(HealthState.INITIAL, "+", healthy_threshold=5)
        assert states == [HealthState.HEALTHY]

    def test_since_is_the_time_of_the_result_that_changed_the_state(self) -> None:
        targets = targets_of(1)

        async def work(bench: Bench) -> None:
            bench.seconds = 2
            bench.prober.update(targets, healths(targets, HealthState.INITIAL))
            await asyncio.sleep(3)

        bench = with_bench(work)
        (health,) = bench.prober.health.values()
        assert health == Health(HealthState.HEALTHY, EPOCH + 2, 0, "ok")
        assert bench.changed == [(EPOCH + 2, *targets)]

    def test_a_changed_weight_is_reported_like_a_changed_state(self) -> None:
        targets = targets_of(1)
        weights = [5, 5, 7, 7]

        async def work(bench: Bench) -> None:
            bench.result = lambda _target: CheckResult(True, "ok", weights.pop(0))
            bench.prober.update(targets, {key: Health(HealthState.HEALTHY, 0.0, message="ok") for key in targets})
            await asyncio.sleep(4 * INTERVAL - 0.001)

        bench = with_bench(work)
        assert not weights
        first = bench.times(*targets)[0]
        assert [when - EPOCH for when, _key in bench.changed] == pytest.approx([first, first + 2 * INTERVAL])

    def test_a_changed_message_without_a_changed_state_is_taken_once(self) -> None:
        targets = targets_of(1)

        async def work(bench: Bench) -> None:
            bench.prober.update(targets, {key: Health(HealthState.HEALTHY, 0.0, message="ok") for key in targets})
            await asyncio.sleep(INTERVAL)
            assert not bench.prober.take_new_messages()
            bench.result = lambda _target: CheckResult(True, "better")
            await asyncio.sleep(INTERVAL)
            assert bench.prober.take_new_messages()
            assert not bench.prober.take_new_messages()

        assert with_bench(work).changed == []


class TestUpdate:
    def test_a_removed_target_is_not_checked_again(self) -> None:
        targets = targets_of(3)
        kept, *removed = targets

        async def work(bench: Bench) -> None:
            bench.prober.update(targets, healths(targets, HealthState.HEALTHY))
            await asyncio.sleep(INTERVAL)
            bench.prober.update({kept: targets[kept]}, healths(targets, HealthState.HEALTHY))
            assert set(bench.prober.health) == {kept}
            await asyncio.sleep(INTERVAL)

        bench = with_bench(work)
        assert len(bench.times(kept)) == 2
        assert [len(bench.times(key)) for key in removed] == [1, 1]

    def test_the_result_of_a_running_check_of_a_removed_target_is_ignored(self) -> None:
        targets = targets_of(2)
        kept, removed = targets

        async def work(bench: Bench) -> None:
            bench.seconds = 2
            bench.prober.update(targets, healths(targets, HealthState.INITIAL))
            await asyncio.sleep(1)
            assert len(bench.begun) == 2
            bench.prober.update({kept: targets[kept]}, healths(targets, HealthState.INITIAL))
            await asyncio.sleep(2)

        bench = with_bench(work)
        assert [key for _when, key in bench.changed] == [kept]
        assert set(bench.prober.health) == {kept}
        assert not +bench.running

    @pytest.mark.parametrize("is_first", [True, False])
    def test_a_time_out_at_the_moment_of_a_change_is_ignored(
        self, monkeypatch: pytest.MonkeyPatch, is_first: bool
    ) -> None:
        ((key, target),) = targets_of(1, timeout_sec=5).items()
        changed = {key: replace(target, port=81)}

        async def silent(_target: Target) -> CheckResult:
            await asyncio.Event().wait()
            return GOOD

        monkeypatch.setitem(checks.CHECKS, "tcp", silent)

        async def main(loop: VirtualLoop) -> Health:
            prober = Prober(lambda _key: None, loop.wall_clock)
            prober.update({key: target}, {key: Health(HealthState.INITIAL, 0.0)})
            # Both timers are due in the same iteration of the loop, in either order.
            loop.call_at(
                5.0 if is_first else 5.0 + 1e-10, prober.update, changed, {key: Health(HealthState.INITIAL, 0.0)}
            )
            await asyncio.sleep(6)
            prober.stop()
            return prober.health[key]

        assert run(main) == Health(HealthState.INITIAL, 0.0)

    def test_an_unchanged_target_keeps_the_times_of_checks(self) -> None:
        targets = targets_of(1)

        async def work(bench: Bench) -> None:
            for _turn in range(40):
                bench.prober.update(targets_of(1), healths(targets, HealthState.HEALTHY))
                await asyncio.sleep(INTERVAL / 10)

        bench = with_bench(work)
        times = bench.times(*targets)
        assert [later - times[0] for later in times] == pytest.approx([INTERVAL * number for number in range(4)])

    def test_a_changed_target_is_checked_at_once_and_keeps_its_health(self) -> None:
        targets = targets_of(1)
        ((key, target),) = targets.items()

        async def work(bench: Bench) -> None:
            bench.prober.update(targets, healths(targets, HealthState.HEALTHY))
            await asyncio.sleep(INTERVAL)
            before = bench.prober.health[key]
            bench.begun.clear()
            bench.result = lambda checked: GOOD if checked.port == 81 else BAD
            bench.prober.update({key: replace(target, port=81)}, healths(targets, HealthState.INITIAL))
            assert bench.prober.health[key] == before
            await asyncio.sleep(INTERVAL / 4)
            assert bench.begun == [(INTERVAL, key)]
            await asyncio.sleep(INTERVAL)
            assert bench.prober.health[key].message == "ok"

        assert len(with_bench(work).begun) == 2

    def test_stop_cancels_running_checks_and_begins_no_others(self) -> None:
        targets = targets_of(2)

        async def work(bench: Bench) -> None:
            bench.seconds = 3
            bench.prober.update(targets, healths(targets, HealthState.INITIAL))
            await asyncio.sleep(1)
            bench.prober.stop()
            await asyncio.sleep(3 * INTERVAL)

        bench = with_bench(work)
        assert len(bench.begun) == 2
        assert not bench.changed and not +bench.running


def shared(*names: str, **options: Any) -> dict[str, Target]:
    """Return the targets of listeners that have the same backend and the same check, by the listener's name."""
    ((_key, target),) = targets_of(1, **options).items()
    return {name: replace(target, key=f"{name}/198.19.0.1/80", listener=name) for name in names}


def by_key(*targets: Target) -> dict[str, Target]:
    return {target.key: target for target in targets}


def known(*targets: Target, state: HealthState) -> tuple[dict[str, Target], dict[str, Health]]:
    """Return what an update gets: the targets by their keys, and their health."""
    return by_key(*targets), healths(by_key(*targets), state)


def with_check(target: Target, **options: Any) -> Target:
    return replace(target, check=replace(target.check, **options))


class TestSharedChecks:
    def test_equal_checks_of_500_listeners_are_one(self) -> None:
        targets = by_key(*shared(*(f"web{number}" for number in range(500))).values())

        async def work(bench: Bench) -> None:
            bench.prober.update(targets, healths(targets, HealthState.INITIAL))
            await asyncio.sleep(3 * INTERVAL)

        bench = with_bench(work)
        assert len(bench.begun) in (3, 4)
        assert {health.state for health in bench.prober.health.values()} == {HealthState.HEALTHY}
        assert sorted(key for _when, key in bench.changed) == sorted(targets)

    @pytest.mark.parametrize(
        "change",
        [
            {"check_interval_sec": INTERVAL + 1},
            {"timeout_sec": 4},
            {"type": "http"},
            {"host": "www.example.com"},
            {"request": "PING"},
            {"status": ("204",)},
            {"dynamic_weight": True},
        ],
        ids=str,
    )
    def test_any_other_option_makes_a_check_of_this_registration_alone(self, change: dict[str, Any]) -> None:
        web, api = shared("web", "api").values()
        targets = by_key(web, with_check(api, **change))

        async def work(bench: Bench) -> None:
            bench.prober.update(targets, healths(targets, HealthState.INITIAL))
            await asyncio.sleep(0.1)

        assert {key for _when, key in with_bench(work).begun} == set(targets)

    @pytest.mark.parametrize(
        ("kind", "change", "checks_begun"),
        [
            ("tcp", {"port": 81}, 2),
            ("tcp", {"address": "198.19.0.2"}, 2),
            ("ping", {"port": 81}, 1),
            ("script", {}, 2),
        ],
    )
    def test_what_is_checked_decides(self, kind: str, change: dict[str, Any], checks_begun: int) -> None:
        """A script learns which listener it is run for."""
        web, api = (with_check(target, type=kind) for target in shared("web", "api").values())
        targets = by_key(web, replace(api, **change))

        async def work(bench: Bench) -> None:
            bench.prober.update(targets, healths(targets, HealthState.INITIAL))
            await asyncio.sleep(0.1)

        assert len(with_bench(work).begun) == checks_begun

    def test_the_options_of_address_and_port_count_by_what_they_mean(self) -> None:
        """A check that names the port which is the backend's anyway does the same."""
        web, api = shared("web", "api").values()
        assert with_check(api, port=api.port, address=api.address).probe == web.probe

    def test_thresholds_and_health_are_those_of_the_registration(self) -> None:
        web, api = shared("web", "api").values()
        targets = by_key(with_check(web, unhealthy_threshold=1), with_check(api, unhealthy_threshold=3))

        async def work(bench: Bench) -> None:
            bench.result = lambda _target: BAD
            bench.prober.update(targets, healths(targets, HealthState.HEALTHY))
            await asyncio.sleep(INTERVAL - 0.001)
            assert [key for _when, key in bench.changed] == [web.key]
            assert bench.prober.health[api.key].streak == 1
            await asyncio.sleep(2 * INTERVAL)

        bench = with_bench(work)
        assert len(bench.begun) == 3
        assert [key for _when, key in bench.changed] == [web.key, api.key]

    def test_a_message_and_a_late_check_count_once(self) -> None:
        targets = by_key(*shared("web", "api").values())

        async def work(bench: Bench) -> None:
            bench.prober.update(targets, {key: Health(HealthState.HEALTHY, 0.0, message="ok") for key in targets})
            await asyncio.sleep(INTERVAL)
            assert not bench.prober.take_new_messages()
            bench.result = lambda _target: CheckResult(True, "better")
            bench.loop.advance(INTERVAL)
            await asyncio.sleep(INTERVAL / 100)
            assert bench.prober.take_new_messages()

        bench = with_bench(work)
        assert bench.prober.late == 1
        assert {health.message for health in bench.prober.health.values()} == {"better"}

    def test_a_registration_that_joins_takes_the_last_result(self) -> None:
        web, api, late = shared("web", "api", "late").values()

        async def work(bench: Bench) -> None:
            bench.seconds = 1
            bench.prober.update(*known(web, state=HealthState.INITIAL))
            await asyncio.sleep(0.5)
            bench.prober.update(*known(web, api, state=HealthState.INITIAL))
            assert bench.prober.health[api.key].state == HealthState.INITIAL
            await asyncio.sleep(1)
            assert bench.prober.health[api.key].state == HealthState.HEALTHY
            bench.prober.update(*known(web, api, late, state=HealthState.INITIAL))
            assert bench.prober.health[late.key].state == HealthState.HEALTHY
            assert [key for _when, key in bench.changed] == [web.key, api.key, late.key]
            assert len(bench.begun) == 1
            await asyncio.sleep(INTERVAL)

        assert len(with_bench(work).begun) == 2

    def test_a_known_registration_that_joins_counts_no_result_twice(self) -> None:
        web, api = shared("web", "api", unhealthy_threshold=2).values()

        async def work(bench: Bench) -> None:
            bench.result = lambda _target: BAD
            bench.prober.update(*known(web, state=HealthState.HEALTHY))
            await asyncio.sleep(INTERVAL)
            bench.prober.update(*known(web, api, state=HealthState.HEALTHY))
            assert [bench.prober.health[target.key].streak for target in (web, api)] == [1, 0]

        with_bench(work)

    @pytest.mark.parametrize("order", [("new", "old"), ("old", "new")])
    @pytest.mark.parametrize("is_later", [False, True])
    def test_a_new_registration_hastens_the_first_check(self, order: tuple[str, ...], is_later: bool) -> None:
        """After a restart of the agent the others would be checked at their place in the interval."""
        targets = by_key(*shared(*order).values())
        new = next(key for key in targets if key.startswith("new/"))
        health = {**healths(targets, HealthState.HEALTHY), new: Health(HealthState.INITIAL, 0.0)}

        async def work(bench: Bench) -> None:
            if is_later:
                others = {key: target for key, target in targets.items() if key != new}
                bench.prober.update(others, health)
            bench.prober.update(targets, health)
            await asyncio.sleep(0.01)
            assert [when for when, _key in bench.begun] == [0]
            await asyncio.sleep(INTERVAL)

        assert len(with_bench(work).begun) == 2

    def test_a_new_registration_does_not_repeat_a_check_that_runs(self) -> None:
        old, new = shared("old", "new").values()

        async def work(bench: Bench) -> None:
            bench.seconds = 2
            bench.prober.update(*known(old, state=HealthState.HEALTHY))
            while not bench.begun:
                await asyncio.sleep(0.1)
            bench.prober.update(*known(old, new, state=HealthState.INITIAL))
            await asyncio.sleep(4)
            assert bench.prober.health[new.key].state == HealthState.HEALTHY

        bench = with_bench(work)
        assert len(bench.begun) == 1 and bench.prober.late == 0

    def test_a_registration_that_leaves_does_not_end_the_checks_of_the_others(self) -> None:
        web, api = shared("web", "api").values()

        async def work(bench: Bench) -> None:
            bench.prober.update(*known(web, api, state=HealthState.HEALTHY))
            await asyncio.sleep(INTERVAL)
            bench.prober.update(*known(api, state=HealthState.HEALTHY))
            assert set(bench.prober.health) == {api.key}
            bench.result = lambda _target: BAD
            await asyncio.sleep(INTERVAL)
            assert bench.prober.health[api.key].message == "refused"
            bench.prober.update({}, {})
            await asyncio.sleep(3 * INTERVAL)

        bench = with_bench(work)
        first, second = (when for when, _key in bench.begun)
        assert second - first == pytest.approx(INTERVAL)

    def test_a_renamed_listener_keeps_the_checks(self) -> None:
        web, api = shared("web", "api").values()

        async def work(bench: Bench) -> None:
            bench.prober.update(*known(web, state=HealthState.INITIAL))
            await asyncio.sleep(1)
            bench.prober.update(*known(api, state=HealthState.INITIAL))
            assert bench.prober.health == {api.key: Health(HealthState.HEALTHY, EPOCH + 1, 0, "ok")}
            await asyncio.sleep(INTERVAL)

        assert len(with_bench(work).begun) == 2

    def test_an_edited_check_leaves_the_others_and_begins_at_once(self) -> None:
        web, api = shared("web", "api").values()
        edited = with_check(api, request="PING")

        async def work(bench: Bench) -> None:
            bench.prober.update(*known(web, api, state=HealthState.HEALTHY))
            await asyncio.sleep(INTERVAL)
            bench.begun.clear()
            bench.result = lambda target: BAD if target.check.request else GOOD
            bench.prober.update(*known(web, edited, state=HealthState.HEALTHY))
            await asyncio.sleep(0.1)
            assert [key for _when, key in bench.begun] == [api.key]
            assert [bench.prober.health[target.key].message for target in (web, api)] == ["ok", "refused"]
            bench.prober.update(*known(web, api, state=HealthState.HEALTHY))
            assert bench.prober.health[api.key].message == "ok"
            await asyncio.sleep(INTERVAL)

        bench = with_bench(work)
        # Then the only further check is the shared one; that of the edited check has ended.
        assert len(bench.begun) == 2

    def test_edited_thresholds_begin_no_check_and_keep_the_streak(self) -> None:
        web, api = shared("web", "api", unhealthy_threshold=3).values()

        async def work(bench: Bench) -> None:
            bench.result = lambda _target: BAD
            bench.prober.update(*known(web, api, state=HealthState.HEALTHY))
            await asyncio.sleep(INTERVAL - 0.001)
            bench.prober.update(*known(web, with_check(api, unhealthy_threshold=2), state=HealthState.HEALTHY))
            assert len(bench.begun) == 1
            await asyncio.sleep(INTERVAL)

        assert [key for _when, key in with_bench(work).changed] == [api.key]
