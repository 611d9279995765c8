# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent: connects checks, watches, reconciliation and reports for as long as the process runs."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from typing import Callable, Sequence

from .._config.model import Configuration
from .._errors import EvenflowError, NodeError
from .._nft.limits import has_dealt_limit
from .._node.node import Outcome
from .._state.health import HealthState
from .._system.store import Store
from .anchor import Anchor
from .node_thread import NodeThread
from .notify import feed_watchdog, notify
from .pool import Pool
from .prober import Prober
from .reconciler import Reconciler
from .status import Status
from .target import Target
from .ticks import deal_regularly
from .watch import Watch

log = logging.getLogger("evenflow")

SAVE_SECONDS = 1.0
"""How often results of checks that change no state are saved."""

STUCK_SECONDS = 300.0
"""A call of the node that takes longer than this hangs, and the service manager restarts the agent.

A call that waits for the lock and for nft ends before this with an error.
"""

ANCHOR_SECONDS = 1.0
"""How long after a failure the anchor table is built anew."""


class Agent:
    """The agent of a node. Create it in the event loop that runs it.

    :param store: the files of the node.
    :param node: the node to keep in order.
    :param anchor: the table that keeps flows alive when all others are flushed.
    :param watches: what wakes the agent.
    :param pool: makes the checks; the agent ends it.
    :param clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        node: NodeThread,
        anchor: Anchor,
        watches: Sequence[Watch],
        pool: Pool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._node = node
        self._anchor = anchor
        self._anchor.failed = self._anchor_failed
        self._watches = watches
        self._status = Status(store, clock)
        self._pool = pool
        self._prober = Prober(self._health_changed, clock, self._pool.check)
        self.reconciler = Reconciler(self._reconcile, self._reconciled, node.set_clock_back, clock)
        self._fingerprint = ""
        self._has_least_conn = False
        self._anchor_error = ""
        self._has_dealt_limits = False

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, then release everything."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        for watch in self._watches:
            loop.add_reader(watch.fileno(), self._read, watch)
        tasks = [
            asyncio.ensure_future(work)
            for work in (
                self.reconciler.run(),
                deal_regularly("shares of lc and wlc", self._node.deal_shares, lambda: self._has_least_conn),
                deal_regularly("places of limits", self._node.deal_places, lambda: self._has_dealt_limits),
                self._save_check_results(),
                feed_watchdog(self._makes_progress),
                stopping.wait(),
            )
        ]
        self.reconciler.wake()
        try:
            done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            notify(STOPPING="1")
            self._prober.stop()
            self._pool.close()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._node.close()
            self._anchor.close()
            for watch in self._watches:
                loop.remove_reader(watch.fileno())
                watch.close()

    def _read(self, watch: Watch) -> None:
        if watch.happened():
            self.reconciler.wake()

    def _health_changed(self, key: str) -> None:
        health = self._prober.health[key]
        level = logging.INFO if health.state == HealthState.HEALTHY else logging.WARNING
        log.log(level, "%s is %s: %s", key, health.state, health.message)
        self.reconciler.wake()

    async def _reconcile(self, save: bool) -> Outcome:
        return await self._node.reconcile(dict(self._prober.health), save)

    def _reconciled(self, outcome: Outcome | None, error: str) -> None:
        """Follow the node as it is after a reconciliation, and report it."""
        self._status.report_error(error)
        if outcome:
            self._status.report_rejected(outcome.rejected)
            self._status.add_repairs(outcome.repairs)
            self._update_checks(outcome)
            self._hold_anchor(outcome.effective_after)
            listeners = outcome.effective_after.listeners
            self._has_least_conn = any(listener.is_least_conn for listener in listeners)
            self._has_dealt_limits = any(map(has_dealt_limit, listeners))
        self._status.report_ready()

    def _update_checks(self, outcome: Outcome) -> None:
        health = outcome.runtime_after.health
        if outcome.fingerprint == self._fingerprint and health.keys() == self._prober.health.keys():
            return
        self._fingerprint = outcome.fingerprint
        self._prober.update(_targets(outcome.effective_after), health)
        self._status.set_counts(len(outcome.config_after), len(self._prober.health))

    def _hold_anchor(self, configuration: Configuration) -> None:
        if self._anchor.is_current:
            self._anchor_error = ""
        try:
            self._anchor.hold(configuration)
        except NodeError as error:
            self._anchor_failed(str(error))

    def _anchor_failed(self, reason: str) -> None:
        """Report a failure once for as long as it lasts, and build the table anew in a moment."""
        if reason != self._anchor_error:
            self._anchor_error = reason
            log.error("the anchor table: %s", reason)
        asyncio.get_running_loop().call_later(ANCHOR_SECONDS, self.reconciler.wake)

    def _makes_progress(self) -> bool:
        """Return whether the node answers, and log if it does not."""
        if self._node.busy_seconds < STUCK_SECONDS:
            return True
        log.error("the node has not answered for %.0f s; the service manager restarts the agent", STUCK_SECONDS)
        return False

    async def _save_check_results(self) -> None:
        """Save messages of checks that change no state, and the number of late checks, once in a while."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            self._status.set_late_checks(self._prober.late + self._pool.late)
            if self._prober.take_new_messages():
                try:
                    await self._node.save_check_results(dict(self._prober.health))
                except (EvenflowError, OSError) as error:
                    log.error("%s", error)


def _targets(configuration: Configuration) -> dict[str, Target]:
    """Return what to check, by the backend's key. Backends that were removed are checked while their flows live."""
    targets = {}
    for listener in configuration.listeners_and_leaving:
        if listener.health_check:
            for backend in listener.backends:
                target = Target.of(listener, backend, listener.health_check)
                targets[target.key] = target
    return targets
