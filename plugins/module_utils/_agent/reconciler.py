# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When the node is reconciled: after events, at deadlines, and while flows have to be counted."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Awaitable, Callable, Optional

from .._errors import EvenflowError
from .._node.node import Outcome
from .._state.runtime import EMPTY_RUNTIME, DrainCause, Runtime
from .._state.transition import next_event
from .clock import Clock

log = logging.getLogger("evenflow")

GATHER_SECONDS = 0.01
"""How long events that come together are gathered, so that one reconciliation serves them all."""

POLL_SECONDS = 1.0
"""How often the node is reconciled while something changes without an event."""

POLL_FACTOR = 20
"""The pause before polling is at least this multiple of what the last reconciliation took."""

RETRY_SECONDS = 1.0
"""How long after a failure the node is reconciled again."""

BOOT_FILES_SECONDS = 5.0
"""How long after a change the files for the next boot follow, so that a change of health does not wait for the disk."""

CLOCK_SECONDS = 1.0
"""How often the clock is read while a deadline is awaited, because it may be set."""

Reconcile = Callable[[bool], Awaitable[Outcome]]
"""Reconciles the node; the argument says whether to save the files for the next boot too."""

Reconciled = Callable[[Optional[Outcome], str], None]
"""Called after each reconciliation with its outcome, or ``None`` and the error."""


SetClockBack = Callable[[Runtime, float], Awaitable[None]]
"""Moves the deadlines of the known runtime state, because the clock was set back by some seconds."""


class Reconciler:
    """Decides when the node is reconciled.

    :param clock: seconds since the epoch, in which deadlines are given.
    :ivar are_boot_files_current: whether the files for the next boot are those of the node. At the start that is not
        known: a change that was interrupted, or damage, may have left others.
    """

    def __init__(
        self,
        reconcile: Reconcile,
        reconciled: Reconciled,
        set_clock_back: SetClockBack,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reconcile = reconcile
        self._reconciled = reconciled
        self._set_clock_back = set_clock_back
        self._clock = Clock(clock, self._now)
        self._set_back = 0.0
        self._event = asyncio.Event()
        self._runtime: Runtime = EMPTY_RUNTIME
        self.are_boot_files_current = False
        self._has_failed = False
        self._duration = 0.0
        self._boot_files_due: float | None = None

    def wake(self) -> None:
        """Reconcile the node soon."""
        self._event.set()

    async def run(self) -> None:
        """Reconcile the node again and again, until this task is cancelled."""
        while True:
            await self._wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._event.clear()
            outcome, error = await self._attempt()
            self._has_failed = outcome is None
            if outcome:
                self._runtime = outcome.runtime_after
            self._reconciled(outcome, error)

    async def _wait(self) -> None:
        """Wait for an event, for a time, or until the clock is set back while a deadline is awaited."""
        due, deadline = self._due(), None if self._has_failed else next_event(self._runtime)
        while not self._event.is_set() and (self._has_failed or not self._set_back):
            pauses = [] if due is None else [due - self._now()]
            if deadline is not None:
                pauses.append(min(deadline - self._clock.wall(), CLOCK_SECONDS))
            pause = min(pauses, default=None)
            if pause is not None and pause <= 0:
                return
            try:
                await asyncio.wait_for(self._event.wait(), pause)
            except asyncio.TimeoutError:
                self._set_back += self._clock.take_set_back()

    def _due(self) -> float | None:
        """Return when the node is reconciled without an event, in the event loop's time; ``None`` for never."""
        now = self._now()
        if self._has_failed:
            return now + RETRY_SECONDS
        times = []
        if _needs_polling(self._runtime):
            times.append(now + max(POLL_SECONDS, POLL_FACTOR * self._duration))
        if self._boot_files_due is not None:
            times.append(self._boot_files_due)
        return min(times, default=None)

    async def _attempt(self) -> tuple[Outcome | None, str]:
        began = self._now()
        save = self._boot_files_due is not None and self._boot_files_due <= began
        try:
            self._set_back += self._clock.take_set_back()
            if self._set_back:
                log.warning("the clock was set back by %.1f s; deadlines move with it", self._set_back)
                await self._set_clock_back(self._runtime, self._set_back)
                self._set_back = 0.0
            outcome = await self._reconcile(save)
        except EvenflowError as error:
            return None, str(error)
        except OSError as error:
            return None, f"{error.filename or 'node'}: {error.strerror}"
        self._duration = self._now() - began
        self.are_boot_files_current = save or (self.are_boot_files_current and not outcome.changed)
        if self.are_boot_files_current:
            self._boot_files_due = None
        elif self._boot_files_due is None:
            self._boot_files_due = self._now() + BOOT_FILES_SECONDS
        return outcome, ""

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _needs_polling(runtime: Runtime) -> bool:
    """Return whether something changes without an event: flows of removed backends, rising shares, uncounted flows."""
    has_removed = any(drain.cause == DrainCause.REMOVED for drain in runtime.drains.values())
    return bool(has_removed or runtime.joined or runtime.uncounted.keys() - runtime.dealt.keys())
