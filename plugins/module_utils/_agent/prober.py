# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When each backend is checked, and how the results change its health.

Backends of several listeners that are checked in the same way share the checks and their results; see
:attr:`~.target.Target.probe`. Each of them keeps a health of its own, by its own thresholds.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Callable, Mapping

from .._state.health import CheckResult, Health, HealthState
from .checks import probe
from .target import Check, Target

FIRST_PER_SECOND = 2000
"""Number of first checks of new backends that begin within a second."""

LATE_SECONDS = 0.1
"""A check that begins later than this after its time is late."""

BUSY_SECONDS = 0.05
"""How long a check waits for its predecessor, which an overloaded event loop has not ended yet."""


class Prober:
    """Checks targets at their intervals and keeps their health.

    :param state_changed: called with a backend's key when its state or its weight changes.
    :param clock: seconds since the epoch, for the times of states.
    :param check: checks a target once.
    :ivar health: the health of each target, by the backend's key.
    :ivar late: number of checks that began more than :data:`LATE_SECONDS` after their time.
    """

    def __init__(self, state_changed: Callable[[str], None], clock: Callable[[], float], check: Check = probe) -> None:
        self.health: dict[str, Health] = {}
        self.late = 0
        self._state_changed = state_changed
        self._clock = clock
        self._check = check
        self._has_new_messages = False
        self._targets: dict[str, Target] = {}
        self._series: dict[tuple[object, ...], _Series] = {}

    def update(self, targets: Mapping[str, Target], health: Mapping[str, Health]) -> None:
        """Check these targets from now on, and no others.

        :param health: their health where this prober does not know it yet.
        """
        left = []
        for key in self._targets.keys() - targets.keys():
            left.append(self._leave(self._targets.pop(key)))
            self.health.pop(key, None)
        now, new = asyncio.get_running_loop().time(), 0
        for key, target in targets.items():
            state = self.health.setdefault(key, health[key]).state
            before = self._targets.get(key)
            if before == target:
                continue
            self._targets[key] = target
            if before:
                if before.probe == target.probe:
                    continue
                left.append(self._leave(before))
            is_urgent = state == HealthState.INITIAL or before is not None
            probe_key = target.probe
            series = self._series.get(probe_key)
            if series is None:
                series = self._series[probe_key] = _Series(target, self._check, self._begun, self._ended)
            series.members[key] = None
            if is_urgent and series.last:
                self._apply(target, series.last)
            elif is_urgent and not (series.has_begun or series.starts_at_once):
                series.start(now + new / FIRST_PER_SECOND, starts_at_once=True)
                new += 1
            elif not series.is_started:
                series.start(now + series.phase * target.check.check_interval_sec, starts_at_once=False)
        for series in left:
            # A backend that joins in the same update, such as that of a renamed listener, keeps the series.
            if not series.members:
                series.stop()
                self._series.pop(series.target.probe, None)

    def stop(self) -> None:
        """Stop all checks."""
        for series in self._series.values():
            series.stop()
        self._series.clear()
        self._targets.clear()

    def take_new_messages(self) -> bool:
        """Return whether a result has changed a message but no state since the last call."""
        has_new_messages, self._has_new_messages = self._has_new_messages, False
        return has_new_messages

    def _begun(self, delay: float) -> None:
        if delay > LATE_SECONDS:
            self.late += 1

    def _leave(self, target: Target) -> _Series:
        """Take a backend out of the series that checks it, which is returned."""
        series = self._series[target.probe]
        del series.members[target.key]
        return series

    def _ended(self, series: _Series, result: CheckResult) -> None:
        if self._series.get(series.target.probe) is not series:
            # A check that times out at the moment in which it is stopped still has a result.
            return
        series.last = result
        for key in series.members:
            self._apply(self._targets[key], result)

    def _apply(self, target: Target, result: CheckResult) -> None:
        before = self.health[target.key]
        after = before.after(result, target.check, self._clock())
        self.health[target.key] = after
        if after.state != before.state or after.weight != before.weight:
            self._state_changed(target.key)
        elif after.message != before.message:
            self._has_new_messages = True


class _Series:
    """The checks of all targets with the same probe, one after the other.

    :param target: the first of these targets, in whose place in the interval all are checked.
    :param begun: called when a check begins, with the seconds that have passed since its time.
    :param ended: called with the result of each check.
    :ivar members: the keys of the targets, in the order in which they came.
    :ivar last: the result of the last check.
    :ivar phase: the place of the checks in their interval, from 0 to 1.
    :ivar starts_at_once: whether the first check begins, or began, before this place.
    """

    def __init__(
        self,
        target: Target,
        check: Check,
        begun: Callable[[float], None],
        ended: Callable[[_Series, CheckResult], None],
    ) -> None:
        self.target = target
        self.members: dict[str, None] = {}
        self.last: CheckResult | None = None
        self.phase = _phase(target.key)
        self.starts_at_once = False
        self._check = check
        self._begun = begun
        self._ended = ended
        self._begin = 0.0
        self._is_out_of_place = False
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_started(self) -> bool:
        """Whether the time of the next check is set."""
        return self._timer is not None

    @property
    def has_begun(self) -> bool:
        """Whether the first check has begun."""
        return self._task is not None

    def start(self, begin: float, starts_at_once: bool) -> None:
        """Begin the first check at this time, in the event loop's, and all others after it."""
        if self._timer:
            self._timer.cancel()
        self._begin = begin
        self._is_out_of_place = self.starts_at_once = starts_at_once
        self._timer = self._loop.call_at(begin, self._start)

    def stop(self) -> None:
        """Begin no further check, and drop the one that is running."""
        if self._timer:
            self._timer.cancel()
        if self._task:
            self._task.cancel()

    def _start(self) -> None:
        if self._task and not self._task.done():
            # Its time-out has passed, but the event loop has been too busy to end it.
            self._timer = self._loop.call_later(BUSY_SECONDS, self._start)
            return
        self._begun(self._loop.time() - self._begin)
        self._task = self._loop.create_task(self._run())
        interval = self.target.check.check_interval_sec
        if self._is_out_of_place:
            # After the first check each target goes to its own place in the interval, so that checks spread over it.
            self._is_out_of_place = False
            self._begin += (0.5 + self.phase / 2) * interval
        else:
            self._begin = max(self._begin + interval, self._loop.time())
        self._timer = self._loop.call_at(self._begin, self._start)

    async def _run(self) -> None:
        self._ended(self, await self._check(self.target))


def _phase(key: str) -> float:
    """Return the place of a target in its interval, from 0 to 1."""
    # A checksum would put similar keys close together.
    return int.from_bytes(hashlib.blake2b(key.encode("ascii"), digest_size=4).digest(), "big") / 2**32
