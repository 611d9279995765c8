# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drains a node's machines and waits until they are empty."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf
from typing import Any, NoReturn

from .._config.document import Document
from .._config.identity import backend_ids
from .._config.model import Configuration
from .._config.validation import Faults, parse_drain
from .._errors import EvenflowError
from .._module import LbModule
from .._state.drain import DrainRequest, DrainState, OnTimeout, RemainingFlows
from .._state.health import HealthState
from .._state.runtime import Drain, Runtime
from .node import Node, Outcome

SILENT_SECONDS = 2.0
"""How long nothing may come from an unhealthy machine until it counts as dead."""

GRACE_SECONDS = 15.0
"""How long after their deadline flows may need to be gone."""

_PARTS_OF_COUNTING = 15


@dataclass(frozen=True)
class WaitResult:
    """What came of waiting.

    :ivar is_done: whether nobody has to wait for anything any more.
    :ivar is_over: whether the time was over before that.
    :ivar ended: flows that the deadline has ended.
    """

    left: list[RemainingFlows]
    is_done: bool
    is_over: bool
    ended: int


class DrainProgress:
    """Looks at what is left on some registrations of a node, as often as it is asked.

    :param document: the configuration that has them.
    """

    def __init__(self, node: Node, request: DrainRequest, document: Document) -> None:
        self._node = node
        names = request.keys(document)
        # Ids are those of the whole configuration, and no registration's that leaves comes before it.
        configuration = Configuration.from_document(document)
        ids = backend_ids(configuration)
        self._watched = [
            (key, listener, backend, ids[(listener.name, *backend.endpoint)])
            for listener in configuration.listeners
            for key, backend in zip(listener.backend_keys, listener.backends)
            if key in names
        ]
        self._heard: dict[int, tuple[int, float]] = {}

    def look(self) -> list[RemainingFlows]:
        """Return what is left now."""
        if not self._watched:
            return []
        runtime = self._node.runtime()
        flows = self._node.flows([mark for *_rest, mark in self._watched])
        silent = self._silent(runtime)
        left = []
        for name, listener, backend, mark in self._watched:
            drain = runtime.drains.get(name)
            left.append(
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
        return left

    def _silent(self, runtime: Runtime) -> set[int]:
        """Return the ids of unhealthy backends of which nothing has come for a while."""
        unhealthy = [
            mark
            for name, _listener, _backend, mark in self._watched
            if name in runtime.health and runtime.health[name].state == HealthState.UNHEALTHY
        ]
        packets = self._node.packets_out() if unhealthy else {}
        now = time.monotonic()
        for mark in unhealthy:
            count, since = self._heard.get(mark, (-1, now))
            self._heard[mark] = (packets.get(mark, 0), since if count == packets.get(mark, 0) else now)
        return {mark for mark in unhealthy if now - self._heard[mark][1] >= SILENT_SECONDS}


def wait(
    node: Node, watch: DrainProgress, max_connections: int, seconds: float, interval: float, at_most: float
) -> WaitResult:
    """Wait until no registration has more flows than it may, or its time is over.

    Counting takes a small part of the time, however many flows there are.

    :param seconds: how long to wait for registrations without a deadline.
    :param interval: seconds between two looks, if counting is quick.
    :param at_most: seconds after which the wait ends whatever there is; not within some seconds of a deadline.
    """
    began = time.monotonic()
    counted: dict[tuple[str, str, int], int] = {}
    ended: dict[tuple[str, str, int], int] = {}
    while True:
        looked = time.monotonic()
        left = watch.look()
        took, now = time.monotonic() - looked, time.time()
        for one in left:
            key = one.listener, one.address, one.port
            if one.is_expired:
                ended.setdefault(key, counted.get(key, one.connections))
            counted[key] = one.connections
        pending = [one for one in left if not one.is_done(max_connections)]
        elapsed = time.monotonic() - began
        is_over = [
            elapsed >= seconds if one.deadline is None else now >= one.deadline + GRACE_SECONDS for one in pending
        ]
        is_near = any(one.deadline is not None and now >= one.deadline - GRACE_SECONDS for one in pending)
        if all(is_over) or (elapsed >= at_most and not is_near):
            is_done = not pending
            was_over = any(ended[key] > max_connections for key in ended)
            return WaitResult(left, is_done, was_over or (bool(pending) and all(is_over)), sum(ended.values()))
        if any(one.deadline is not None and now >= one.deadline for one in pending):
            node.process_deadlines()
        deadlines = [one.deadline - now for one in pending if one.deadline is not None and one.deadline > now]
        time.sleep(min([max(interval, _PARTS_OF_COUNTING * took), *(left + 0.1 for left in deadlines)]))


def run_module(module: LbModule) -> NoReturn:
    """Do what a drain's parameters ask for, wait, tell, and end the module."""
    options = parse_drain(module.params, Faults())
    request, node = DrainRequest.from_options(options), Node(module.params["config_dir"])
    began = time.monotonic()
    try:
        outcome = node.change(
            module.edit(), module.check_mode, module.params["fingerprint"], request.timeouts, request.guard
        )
        if not module.check_mode:
            node.end_flows(outcome)
        result = {**module.change_result(outcome), "timeout": request.seconds(outcome.config_after)}
        _tell_deadlines(result, request, outcome)
        watch = DrainProgress(node, request, outcome.config_after)
        has_to_wait = options["wait"] and request.state == DrainState.DRAINED and not module.check_mode
        if has_to_wait:
            at_most = max(options["progress_interval"], 2 * SILENT_SECONDS) if options["progress_interval"] else inf
            waited = wait(node, watch, options["max_connections"], result["timeout"], options["poll_interval"], at_most)
        else:
            waited = WaitResult(watch.look(), True, False, 0)
            if not node.agent()["running"] and any(one.deadline for one in waited.left):
                module.warn("the agent does not run: nobody ends flows at the deadline, unless lb_drain waits")
    except EvenflowError as error:
        module.fail_json(msg=str(error))
    result.update(_told(waited, request, options["max_connections"]), elapsed=round(time.monotonic() - began, 1))
    fault = _fault(waited, request) if has_to_wait else ""
    if fault:
        module.fail_json(msg=fault, **result)
    module.exit_json(**result)
    raise AssertionError("exit_json ends the module")


def _told(waited: WaitResult, request: DrainRequest, max_connections: int) -> dict[str, Any]:
    now = time.time()
    told: dict[str, Any] = {
        "drained": request.state == DrainState.DRAINED
        and all(one.connections <= max_connections or one.is_dead for one in waited.left),
        "connections_remaining": [
            {
                "listener": one.listener,
                "name": one.name,
                "address": one.address,
                "port": one.port,
                "connections": one.connections,
                "drain_remaining_sec": None if one.deadline is None else max(0, round(one.deadline - now)),
            }
            for one in waited.left
        ],
        "connections_ended": waited.ended,
        "timed_out": waited.is_over,
    }
    if not (waited.is_done or waited.is_over):
        told["waiting"] = True
    return told


def _fault(waited: WaitResult, request: DrainRequest) -> str:
    """Say what is wrong with how the wait ended; empty if nothing is."""
    left = ", ".join(f"{one.listener} {one.name} {one.connections}" for one in waited.left if one.connections)
    back = ", ".join(f"{one.listener} {one.name}" for one in waited.left if not one.is_draining)
    if back:
        return f"put back by somebody else in the meantime: {back}"
    if waited.is_done or not waited.is_over or request.on_timeout == OnTimeout.CONTINUE:
        return ""
    if request.on_timeout != OnTimeout.TERMINATE:
        return f"timeout: flows are left ({left}); they live on, and the machines stay drained"
    if any(one.connections and one.deadline is None for one in waited.left):
        return f"timeout: flows are left ({left}) that drain_mode natural lets live; give a timeout to end them"
    return f"timeout: flows are left ({left}) {GRACE_SECONDS:g} s after their deadline; lb_info tells how the agent is"


def _tell_deadlines(result: dict[str, Any], request: DrainRequest, outcome: Outcome) -> None:
    """Add to a result that drains which had begun before get another time."""
    names = request.keys(outcome.config_after)
    before, after = (
        {name: runtime.drains[name] for name in names & runtime.drains.keys()}
        for runtime in (outcome.runtime_before, outcome.runtime_after)
    )
    moved = sorted(name for name in before.keys() & after.keys() if before[name].deadline != after[name].deadline)
    if moved:
        result["changed"] = True
        for side, drains in (("before", before), ("after", after)):
            if "diff" in result:
                result["diff"][side]["drain_timeouts"] = {name: _seconds(drains[name]) for name in moved}


def _seconds(drain: Drain) -> int | None:
    return None if drain.deadline is None else round(drain.deadline - drain.since)
