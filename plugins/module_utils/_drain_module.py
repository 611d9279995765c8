# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The run of the module ``lb_drain``: drain a node's machines, wait until they are empty, report."""

from __future__ import annotations

import time
from math import inf
from typing import Any, NoReturn

from ._config.validation import Faults, parse_drain
from ._errors import EvenflowError
from ._module import LbModule
from ._node.drain_wait import GRACE_SECONDS, SILENT_SECONDS, DrainProgress, WaitResult, wait
from ._node.node import Node, Outcome
from ._node.view import NodeView
from ._state.drain import DrainRequest, DrainState, OnTimeout
from ._state.runtime import Drain


def run_module(module: LbModule) -> NoReturn:
    """Do what a drain's parameters ask for, wait, report, and end the module."""
    options = parse_drain(module.params, Faults())
    request, config_dir = DrainRequest.from_options(options), module.params["config_dir"]
    node, view = Node(config_dir), NodeView(config_dir)
    began = time.monotonic()
    try:
        outcome = node.change(
            module.edit(), module.check_mode, module.params["fingerprint"], request.timeouts, request.guard
        )
        if not module.check_mode:
            node.end_flows(outcome)
        result = {**module.change_result(outcome), "timeout": request.seconds(outcome.config_after)}
        _add_moved_deadlines(result, request, outcome)
        progress = DrainProgress(view, request, outcome.config_after)
        has_to_wait = options["wait"] and request.state == DrainState.DRAINED and not module.check_mode
        if has_to_wait:
            at_most = max(options["progress_interval"], 2 * SILENT_SECONDS) if options["progress_interval"] else inf
            waited = wait(
                node, progress, options["max_connections"], result["timeout"], options["poll_interval"], at_most
            )
        else:
            waited = WaitResult(progress.count(), True, False, 0)
            if not view.agent()["running"] and any(backend.deadline for backend in waited.remaining):
                module.warn("the agent does not run: flows are not ended at the deadline unless lb_drain waits")
    except EvenflowError as error:
        module.fail_json(msg=str(error))
    result.update(_progress(waited, request, options["max_connections"]), elapsed=round(time.monotonic() - began, 1))
    fault = _fault(waited, request) if has_to_wait else ""
    if fault:
        module.fail_json(msg=fault, **result)
    module.exit_json(**result)
    raise AssertionError("exit_json ends the module")


def _progress(waited: WaitResult, request: DrainRequest, max_connections: int) -> dict[str, Any]:
    """Return the part of the result that comes from waiting."""
    now = time.time()
    result: dict[str, Any] = {
        "drained": request.state == DrainState.DRAINED
        and all(backend.connections <= max_connections or backend.is_dead for backend in waited.remaining),
        "connections_remaining": [
            {
                "listener": backend.listener,
                "name": backend.name,
                "address": backend.address,
                "port": backend.port,
                "connections": backend.connections,
                "drain_remaining_sec": None if backend.deadline is None else max(0, round(backend.deadline - now)),
            }
            for backend in waited.remaining
        ],
        "connections_ended": waited.ended,
        "timed_out": waited.timed_out,
    }
    if not (waited.is_done or waited.timed_out):
        result["waiting"] = True
    return result


def _fault(waited: WaitResult, request: DrainRequest) -> str:
    """Return what is wrong with the end of the wait; an empty text if nothing is."""
    flows = ", ".join(
        f"{backend.listener} {backend.name} {backend.connections}"
        for backend in waited.remaining
        if backend.connections
    )
    back = ", ".join(f"{backend.listener} {backend.name}" for backend in waited.remaining if not backend.is_draining)
    if back:
        return f"put back by another program in the meantime: {back}"
    if waited.is_done or not waited.timed_out or request.on_timeout == OnTimeout.CONTINUE:
        return ""
    if request.on_timeout != OnTimeout.TERMINATE:
        return f"timeout: flows are left ({flows}); they live on, and the machines stay drained"
    if any(backend.connections and backend.deadline is None for backend in waited.remaining):
        return f"timeout: flows are left ({flows}) that drain_mode natural lets live; give a timeout to end them"
    return (
        f"timeout: flows are left ({flows}) {GRACE_SECONDS:g} s after their deadline; lb_info shows the agent's state"
    )


def _add_moved_deadlines(result: dict[str, Any], request: DrainRequest, outcome: Outcome) -> None:
    """Mark a result as changed if drains that had begun get another deadline, and show it in the diff."""
    keys = request.keys(outcome.config_after)
    before, after = (
        {key: runtime.drains[key] for key in keys & runtime.drains.keys()}
        for runtime in (outcome.runtime_before, outcome.runtime_after)
    )
    moved = sorted(key for key in before.keys() & after.keys() if before[key].deadline != after[key].deadline)
    if moved:
        result["changed"] = True
        for side, drains in (("before", before), ("after", after)):
            if "diff" in result:
                result["diff"][side]["drain_timeouts"] = {key: _seconds(drains[key]) for key in moved}


def _seconds(drain: Drain) -> int | None:
    return None if drain.deadline is None else round(drain.deadline - drain.since)
