# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting until the backends that drain have no flows left."""

from __future__ import annotations

import time
from dataclasses import dataclass

from .._config.document import Document
from .._config.identity import backend_ids
from .._config.model import Configuration
from .._state.drain import DrainRequest, RemainingFlows
from .._state.health import HealthState
from .._state.runtime import Runtime
from .node import Node
from .view import NodeView

SILENT_SECONDS = 2.0
"""How long an unhealthy backend must send nothing until it counts as dead."""

GRACE_SECONDS = 15.0
"""How long after their deadline flows may need to be gone."""

_COUNTING_FACTOR = 15
"""The pause between two counts is at least this many times as long as a count takes."""


@dataclass(frozen=True)
class WaitResult:
    """The result of a wait.

    :ivar remaining: the flows of each backend when the wait ended.
    :ivar is_done: whether there is nothing left to wait for.
    :ivar timed_out: whether the time was over before that.
    :ivar ended: number of flows that a deadline has ended.
    """

    remaining: list[RemainingFlows]
    is_done: bool
    timed_out: bool
    ended: int


class DrainProgress:
    """Counts the flows that are left on the backends of a drain.

    :param view: of the node.
    :param document: the configuration that has the backends.
    """

    def __init__(self, view: NodeView, request: DrainRequest, document: Document) -> None:
        self._view = view
        names = request.keys(document)
        # Ids depend on the whole configuration, and those of backends that leave come last.
        configuration = Configuration.from_document(document)
        ids = backend_ids(configuration)
        self._backends = [
            (key, listener, backend, ids[(listener.name, *backend.endpoint)])
            for listener in configuration.listeners
            for key, backend in zip(listener.backend_keys, listener.backends)
            if key in names
        ]
        self._last_packets: dict[int, tuple[int, float]] = {}

    def count(self) -> list[RemainingFlows]:
        """Return the flows that are left now."""
        if not self._backends:
            return []
        runtime = self._view.runtime()
        flows = self._view.flows([mark for *_rest, mark in self._backends])
        silent = self._silent(runtime)
        remaining = []
        for name, listener, backend, mark in self._backends:
            drain = runtime.drains.get(name)
            remaining.append(
                RemainingFlows(
                    listener.name,
                    backend.name,
                    *backend.endpoint,
                    connections=flows.get(mark, 0),
                    deadline=drain.deadline if drain else None,
                    is_expired=name in runtime.expired,
                    is_dead=mark in silent,
                    is_draining=drain is not None or backend.admin_state == "disabled",
                )
            )
        return remaining

    def _silent(self, runtime: Runtime) -> set[int]:
        """Return the ids of unhealthy backends that have sent nothing for a while."""
        unhealthy = [
            mark
            for name, _listener, _backend, mark in self._backends
            if name in runtime.health and runtime.health[name].state == HealthState.UNHEALTHY
        ]
        packets = self._view.packets_out() if unhealthy else {}
        now = time.monotonic()
        for mark in unhealthy:
            count, since = self._last_packets.get(mark, (-1, now))
            self._last_packets[mark] = (packets.get(mark, 0), since if count == packets.get(mark, 0) else now)
        return {mark for mark in unhealthy if now - self._last_packets[mark][1] >= SILENT_SECONDS}


def wait(
    node: Node, progress: DrainProgress, max_connections: int, seconds: float, interval: float, at_most: float
) -> WaitResult:
    """Wait until no backend has more flows than it may, or its time is over.

    Counting takes a small part of the time, however many flows there are.

    :param seconds: how long to wait for backends without a deadline.
    :param interval: seconds between two counts, if counting is quick.
    :param at_most: seconds after which the wait ends in any case, except within some seconds of a deadline.
    """
    began = time.monotonic()
    counted: dict[tuple[str, str, int], int] = {}
    ended: dict[tuple[str, str, int], int] = {}
    while True:
        count_began = time.monotonic()
        remaining = progress.count()
        took, now = time.monotonic() - count_began, time.time()
        for backend in remaining:
            key = backend.listener, backend.address, backend.port
            if backend.is_expired:
                ended.setdefault(key, counted.get(key, backend.connections))
            counted[key] = backend.connections
        pending = [backend for backend in remaining if not backend.is_done(max_connections)]
        elapsed = time.monotonic() - began
        are_over = [
            elapsed >= seconds if backend.deadline is None else now >= backend.deadline + GRACE_SECONDS
            for backend in pending
        ]
        deadlines = [backend.deadline for backend in pending if backend.deadline is not None]
        is_near = any(now >= deadline - GRACE_SECONDS for deadline in deadlines)
        if all(are_over) or (elapsed >= at_most and not is_near):
            was_over = any(ended[key] > max_connections for key in ended)
            timed_out = was_over or (bool(pending) and all(are_over))
            return WaitResult(remaining, not pending, timed_out, sum(ended.values()))
        if any(now >= deadline for deadline in deadlines):
            node.process_deadlines()
        until = [deadline - now + 0.1 for deadline in deadlines if deadline > now]
        time.sleep(min([max(interval, _COUNTING_FACTOR * took), *until]))
