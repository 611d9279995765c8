# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where each check is made: in the agent's process, in one that several checks share, or in one of its own.

Checks whose work a server decides (by HTTP, TLS or HTTP/2) are made by :mod:`~.worker`. A check that exceeds its budget
of processor time there is stopped and made again in a process of its own, and so are the next checks of its target,
until they have been cheap for long enough.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import zlib

from .._state.health import CheckResult
from .checks import probe
from .messages import MAX_LINE, Answer, Request
from .target import Target, printable
from .worker import ALONE_BUDGET, SHARED_BUDGET

log = logging.getLogger("evenflow")

IN_WORKERS = ("tls", "http", "https", "http2", "grpc")
"""The types of checks that are not made in the agent's own process."""

MAX_SHARED = 4
"""Maximum number of processes that share the checks; there is one for each processor."""

MAX_ALONE = 16
"""Maximum number of costly checks at once, each of which has a process of its own; others wait."""

MAX_SUSPECTS = 256
"""The same for checks that were being made when a process ended. Most are not the cause, and cost nothing but time."""

WAIT_SHARE = 0.5
"""The part of its time-out that a check may wait for others to end. It has the rest for itself."""

CHEAP_CHECKS = 20
"""Number of successive cheap checks after which a target shares a process again."""

LATE_SECONDS = 0.1
"""A check that a process begins later than this after its request is late."""

_MAX_COSTLY = 10000
_GRACE_SECONDS = 5.0
_ENDED = CheckResult(None, "not checked: the process for checks has ended")
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that the node sends to a process, and no fault in it: when it stops, or has no memory left."""


class Pool:
    """Checks targets in the processes where they belong. Create it in the event loop that uses it.

    :param path: the socket of the service that checks.
    :ivar late: number of checks that a process began late.
    :ivar costly: the targets whose checks are made alone, by :attr:`~.target.Target.probe`, each with the number of its
        successive cheap checks.
    :ivar suspects: the targets whose next check is made alone, because they were being checked when a process ended.
    """

    def __init__(self, path: str) -> None:
        self.late = 0
        count = min(len(os.sched_getaffinity(0)), MAX_SHARED)
        self._shared = [_Worker(path, "shared") for _number in range(count)]
        self._alone = _Worker(path, "alone")
        self._places = asyncio.Semaphore(MAX_ALONE)
        self._suspect_places = asyncio.Semaphore(MAX_SUSPECTS)
        self.costly: dict[object, int] = {}
        self.suspects: set[object] = set()

    async def check(self, target: Target) -> CheckResult:
        """Check a target once."""
        if target.check.type not in IN_WORKERS:
            return await probe(target)
        try:
            if target.probe in self.costly:
                return await self._check_alone(target, self._places)
            if target.probe in self.suspects:
                return await self._check_alone(target, self._suspect_places)
            worker = self._shared[zlib.crc32(target.key.encode("ascii")) % len(self._shared)]
            answer = await worker.ask(target, target.check.timeout_sec)
            self.late += answer.delay > LATE_SECONDS
            if answer.is_costly:
                self._count(target, ALONE_BUDGET)
                return await self._check_alone(target, self._places)
            if answer.result is None:
                # One of those that were being made may have ended the process.
                self.suspects.add(target.probe)
            return answer.result or _ENDED
        except OSError as error:
            reason = error.strerror or type(error).__name__
            return CheckResult(None, f"not checked: evenflow-checks.socket: {reason}; does the service run?")

    def close(self) -> None:
        """End all processes."""
        for worker in (*self._shared, self._alone):
            worker.close()

    async def _check_alone(self, target: Target, places: asyncio.Semaphore) -> CheckResult:
        patience = target.check.timeout_sec * WAIT_SHARE
        began = time.monotonic()
        try:
            await asyncio.wait_for(places.acquire(), patience)
        except asyncio.TimeoutError:
            return CheckResult(None, f"not checked: waited {patience:g} s for other costly checks to end")
        try:
            answer = await self._alone.ask(target, target.check.timeout_sec - (time.monotonic() - began))
        finally:
            places.release()
        self.suspects.discard(target.probe)
        if answer.result is None or answer.cost >= SHARED_BUDGET or target.probe in self.costly:
            self._count(target, answer.cost if answer.result else ALONE_BUDGET)
        if answer.signal == signal.SIGPROF:
            return CheckResult(False, f"took more than {ALONE_BUDGET:g} s of processor time")
        if answer.signal and answer.signal not in _FROM_OUTSIDE:
            return CheckResult(False, f"ended its process by signal {answer.signal}")
        return answer.result or _ENDED

    def _count(self, target: Target, cost: float) -> None:
        """Decide where the next check of a target is made, after one that took so many seconds of processor time."""
        cheap = self.costly.pop(target.probe, 0) + 1 if cost < SHARED_BUDGET else 0
        if cheap < CHEAP_CHECKS:
            self.costly[target.probe] = cheap
        if len(self.costly) > _MAX_COSTLY:
            del self.costly[next(iter(self.costly))]


class _Worker:
    """A process that checks, started with the first request."""

    def __init__(self, path: str, kind: str) -> None:
        self._path = path
        self._kind = kind
        self._connecting = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._number = 0

    async def ask(self, target: Target, seconds: float) -> Answer:
        """Return what becomes of a check that has so many seconds; no result if the process ends before it.

        :raises OSError: the service cannot be reached.
        """
        loop = asyncio.get_running_loop()
        writer = await self._connected()
        self._number += 1
        number, answer = self._number, loop.create_future()
        self._answers[number] = answer
        timer = loop.call_later(seconds + _GRACE_SECONDS, self._disconnect, writer)
        try:
            writer.write(Request(number, time.monotonic(), seconds, target).line())
            received: Answer = await answer
            return received
        finally:
            timer.cancel()
            self._answers.pop(number, None)

    def close(self) -> None:
        """End the process."""
        if self._reading:
            self._reading.cancel()
        self._disconnect(self._writer)

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                reader, self._writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE)
                self._writer.write(f"{self._kind}\n".encode("ascii"))
                self._reading = asyncio.ensure_future(self._read(reader, self._writer))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                line = await reader.readline()
                if not line:
                    break
                answer = Answer.of_line(line)
                waiting = self._answers.get(answer.number)
                if waiting and not waiting.done():
                    waiting.set_result(answer)
        except OSError:
            pass
        except Exception as error:  # pylint: disable=broad-exception-caught
            log.error("a process for checks does not answer as it should: %s", printable(f"{error!r}"))
        finally:
            self._disconnect(writer)

    def _disconnect(self, writer: asyncio.StreamWriter | None) -> None:
        """Give up a connection. The process at its other end ends with it, or with its budget."""
        if writer is None or writer is not self._writer:
            return
        self._writer = None
        writer.transport.abort()
        for number, waiting in self._answers.items():
            if not waiting.done():
                waiting.set_result(Answer(number))
