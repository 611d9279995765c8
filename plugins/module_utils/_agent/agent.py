# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ties together what the agent is made of: checks, watches, time, and the node that it keeps in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Callable

from .._config.document import Document
from .._config.model import Configuration, backend_key
from .._config.options import LEAST_CONN_SCHEDULERS
from .._errors import EvenflowError, NodeError
from .._node import agent_status
from .._node.node import Node, Outcome
from .._schedule.least_conn import TICK
from .._state.health import HEALTHY
from .._state.runtime import REMOVED, Runtime
from .._state.transition import next_event
from .._system.store import Store
from .anchor import Anchor
from .least_conn_loop import LeastConnLoop
from .notify import notify, watchdog_interval
from .prober import Prober
from .target import Target
from .watch import AddressWatch, FileWatch, TableWatch, Watch

log = logging.getLogger("evenflow")

GATHER_SECONDS = 0.01
"""How long what happens at the same time is gathered before it is dealt with."""

REPAIRS = 20
"""How many repairs are remembered."""

_HEALTH = "%s is %s: %s"

_AGAIN_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_BOOT_SECONDS = 5.0
_PARTS_OF_TIME = 4
_PARTS_OF_LOOK = 20


class Agent:
    """The agent of one node.

    :param config_dir: the directory of its configuration.
    """

    def __init__(self, config_dir: str) -> None:
        self._store = Store(config_dir)
        self._node = Node(config_dir)
        self._anchor = Anchor()
        self._shares = LeastConnLoop(self._node)
        self._prober = Prober(self._health_changed, time.time)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="node")
        self._wanted = asyncio.Event()
        self._stopping = asyncio.Event()
        self._watches: list[Watch] = []
        self._document: Document | None = None
        self._runtime = Runtime()
        self._started = time.time()
        self._repairs: list[dict[str, Any]] = []
        self._error = ""
        self._is_boot_old = False
        self._took = 0.0

    async def run(self) -> None:
        """Run until a signal asks for the end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._watch()
        tasks = [
            asyncio.ensure_future(work())
            for work in (
                self._reconcile_loop,
                self._deal_shares,
                self._feed_watchdog,
                self._persist_check_messages,
                self._stopping.wait,
            )
        ]
        self._wanted.set()
        try:
            done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            notify(STOPPING="1")
            self._prober.stop()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._executor.shutdown()
            self._anchor.close()
            for watch in self._watches:
                loop.remove_reader(watch.fileno())
                watch.close()

    def _watch(self) -> None:
        os.makedirs(self._store.config_dir, mode=0o750, exist_ok=True)
        files = FileWatch(self._store.config_dir, (os.path.basename(self._store.listeners_file), "node.json"))
        asked = FileWatch(self._store.run_dir, (agent_status.WAKE_AGENT,))
        self._watches = [files, asked, TableWatch(), AddressWatch()]
        for watch in self._watches:
            asyncio.get_running_loop().add_reader(watch.fileno(), self._look, watch)

    def _look(self, watch: Watch) -> None:
        if watch.happened():
            self._wanted.set()

    def _health_changed(self, name: str) -> None:
        health = self._prober.health[name]
        log.log(
            logging.INFO if health.state == HEALTHY else logging.WARNING, _HEALTH, name, health.state, health.message
        )
        self._wanted.set()

    async def _reconcile_loop(self) -> None:
        """Bring the node in order whenever something has happened, and when time alone changes something."""
        is_ready = False
        while True:
            await self._wait_for(self._seconds_to_wait())
            await asyncio.sleep(GATHER_SECONDS)
            self._wanted.clear()
            outcome = await self._reconcile()
            if outcome:
                self._adopt(outcome)
            if not is_ready:
                is_ready = True
                # A change that was interrupted, or damage, may have left boot files that are not those of the node.
                self._is_boot_old = True
                notify(READY="1", STATUS=self._status())
            if outcome is None:
                await self._wait_for(_RETRY_SECONDS)

    async def _wait_for(self, seconds: float | None) -> None:
        try:
            await asyncio.wait_for(self._wanted.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    def _seconds_to_wait(self) -> float | None:
        times = [max(_AGAIN_SECONDS, _PARTS_OF_LOOK * self._took)] if self._needs_polling() else []
        event = next_event(self._runtime)
        if event is not None:
            times.append(max(0.0, event - time.time()))
        if self._is_boot_old:
            times.append(_BOOT_SECONDS)
        return min(times, default=None)

    def _needs_polling(self) -> bool:
        """Tell whether something changes that no event tells of: flows that end, shares that rise."""
        is_leaving = any(drain.cause == REMOVED for drain in self._runtime.drains.values())
        return bool(is_leaving or self._runtime.joined or self._runtime.uncounted)

    async def _reconcile(self) -> Outcome | None:
        learned = dict(self._prober.health)
        is_quiet = self._is_boot_old and not self._wanted.is_set()
        began = time.monotonic()
        try:
            outcome: Outcome = await self._call(partial(self._node.reconcile, learned, is_quiet))
        except EvenflowError as error:
            self._report_error(str(error))
            return None
        except OSError as error:
            self._report_error(f"{error.filename or 'node'}: {error.strerror}")
            return None
        self._report_error("")
        self._took = time.monotonic() - began
        self._is_boot_old = outcome.changed and not is_quiet
        return outcome

    def _report_error(self, text: str) -> None:
        if text != self._error:
            self._error = text
            if text:
                log.error("%s; the kernel keeps the last good state", text)
            self._tell()
            notify(STATUS=self._status())

    def _adopt(self, outcome: Outcome) -> None:
        """Check, hold and tell what follows from the node as it is now."""
        for text in outcome.rejected:
            log.error("%s", text)
        repairs = outcome.repairs
        for text in repairs:
            log.warning("put right: %s", text)
        self._repairs = (self._repairs + [{"time": round(time.time()), "found": text} for text in repairs])[-REPAIRS:]
        is_new = outcome.config_after != self._document
        self._runtime, self._document = outcome.runtime_after, outcome.config_after
        if is_new or outcome.runtime_after.health.keys() != self._prober.health.keys():
            self._prober.update(_targets(outcome.effective_after), outcome.runtime_after.health)
            notify(STATUS=self._status())
        try:
            self._anchor.hold(outcome.effective_after)
            errors = self._anchor.errors()
        except NodeError as error:
            self._anchor.close()
            errors = str(error)
        if errors:
            log.error("the anchor table: %s", errors)
        if repairs or is_new:
            self._tell()

    def _tell(self) -> None:
        told: dict[str, Any] = {
            "pid": os.getpid(),
            "started": round(self._started),
            "repairs": self._repairs,
            "error": self._error,
            "late_checks": self._prober.late,
        }
        try:
            agent_status.write(self._store, told)
        except OSError as error:
            log.error("%s: %s", error.filename, error.strerror)

    def _status(self) -> str:
        if self._error:
            return self._error[:200]
        return f"{len(self._document or {})} listeners, {len(self._prober.health)} registrations checked"

    async def _deal_shares(self) -> None:
        """Deal the shares of lc and wlc, at most a part of the time."""
        while True:
            took = 0.0
            if any(listener["scheduler"] in LEAST_CONN_SCHEDULERS for listener in (self._document or {}).values()):
                began = time.monotonic()
                try:
                    await self._call(self._shares.tick)
                except EvenflowError as error:
                    log.error("shares of lc and wlc: %s", error)
                took = time.monotonic() - began
            await asyncio.sleep(max(TICK - took, took * (_PARTS_OF_TIME - 1)))

    async def _feed_watchdog(self) -> None:
        interval = watchdog_interval()
        while interval:
            notify(WATCHDOG="1")
            await asyncio.sleep(interval / 3)
        await asyncio.Event().wait()

    async def _persist_check_messages(self) -> None:
        """Write down what checks told and how they fare where no state changed, now and then."""
        late = 0
        while True:
            await asyncio.sleep(_AGAIN_SECONDS)
            if self._prober.late != late:
                late = self._prober.late
                self._tell()
            if self._prober.has_new_messages:
                self._prober.has_new_messages = False
                try:
                    await self._call(partial(self._node.save_check_results, dict(self._prober.health)))
                except (EvenflowError, OSError) as error:
                    log.error("%s", error)

    async def _call(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _targets(present: Configuration) -> dict[str, Target]:
    targets = {}
    for listener in present.listeners_and_leaving:
        check = listener.health_check
        if check:
            for backend in listener.backends:
                name = backend_key(listener, backend)
                targets[name] = Target.of(name, listener, backend, check)
    return targets
