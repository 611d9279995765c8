# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When each registration is checked, and what the results make of its health."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Callable, Mapping

from .._state.health import CheckResult, Health, HealthState
from .checks import probe
from .target import Target

FIRST_PER_SECOND = 2000
"""How many first checks of new registrations begin in a second."""

LATE_SECONDS = 0.1
"""A check that begins later than this after its time is late."""

_BUSY_SECONDS = 0.05


class Prober:
    """Checks targets at their intervals.

    :param told: called with a registration's name when its state changes.
    :param clock: seconds since the epoch, for states.
    :ivar health: by registration.
    :ivar has_new_messages: whether a result changed that changed no state.
    :ivar late: checks that began more than :data:`LATE_SECONDS` after their time.
    """

    def __init__(self, told: Callable[[str], None], clock: Callable[[], float]) -> None:
        self.health: dict[str, Health] = {}
        self.has_new_messages = False
        self.late = 0
        self._told = told
        self._clock = clock
        self._rounds: dict[str, _Round] = {}

    def update(self, targets: Mapping[str, Target], health: Mapping[str, Health]) -> None:
        """Check these and no others.

        :param health: what is known of them; what this prober has found out since is not lost.
        """
        for name in self._rounds.keys() - targets.keys():
            self._rounds.pop(name).stop()
            self.health.pop(name, None)
        now, first = asyncio.get_running_loop().time(), 0
        for name, target in targets.items():
            known = self.health.setdefault(name, health[name])
            running = self._rounds.get(name)
            if running and running.target == target:
                continue
            if running:
                running.stop()
            is_new = known.state == HealthState.INITIAL or running is not None
            if is_new:
                begin, first = now + first / FIRST_PER_SECOND, first + 1
            else:
                begin = now + _phase(name) * target.check.check_interval_sec
            self._rounds[name] = _Round(target, self._result, self._begun, begin, is_new)

    def stop(self) -> None:
        """Check nothing any more."""
        for one in self._rounds.values():
            one.stop()
        self._rounds.clear()

    def _begun(self, late: float) -> None:
        if late > LATE_SECONDS:
            self.late += 1

    def _result(self, target: Target, result: CheckResult) -> None:
        running = self._rounds.get(target.name)
        if running is None or running.target is not target:
            return
        before = self.health[target.name]
        after = before.after(result, target.check, self._clock())
        self.health[target.name] = after
        if after.state != before.state or after.weight != before.weight:
            self._told(target.name)
        elif after.message != before.message:
            self.has_new_messages = True


class _Round:
    """The checks of one target, one after the other."""

    def __init__(
        self,
        target: Target,
        result: Callable[[Target, CheckResult], None],
        begun: Callable[[float], None],
        begin: float,
        is_at_once: bool,
    ) -> None:
        self.target = target
        self._result = result
        self._begun = begun
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._is_out_of_place = is_at_once
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_at(begin, self._start)

    def stop(self) -> None:
        self._timer.cancel()
        if self._task:
            self._task.cancel()

    def _start(self) -> None:
        if self._task and not self._task.done():
            # Its time is over, and the loop has been too busy to say so.
            self._timer = self._loop.call_later(_BUSY_SECONDS, self._start)
            return
        self._begun(self._loop.time() - self._begin)
        self._task = self._loop.create_task(self._probe())
        interval = self.target.check.check_interval_sec
        if self._is_out_of_place:
            # After those at once each has its own place in the interval, so that checks do not come in bursts.
            self._is_out_of_place = False
            self._begin += (0.5 + _phase(self.target.name) / 2) * interval
        else:
            self._begin = max(self._begin + interval, self._loop.time())
        self._timer = self._loop.call_at(self._begin, self._start)

    async def _probe(self) -> None:
        self._result(self.target, await probe(self.target))


def _phase(name: str) -> float:
    # Not a checksum: those of names that are alike lie close together.
    return int.from_bytes(hashlib.blake2b(name.encode("ascii"), digest_size=4).digest(), "big") / 2**32
