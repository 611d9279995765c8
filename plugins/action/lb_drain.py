# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Show the remaining flows while ``lb_drain`` waits: a module cannot show anything before it ends."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase

_MODULE = "evenflow.l4lb.lb_drain"

_FIRST_RUN = ("diff", "before", "after", "changes", "commands", "timeout")
"""Results of which only those of the first run, which makes the change, matter."""

_TOTALS = ("elapsed", "connections_ended")
"""Results that are added up over all runs."""


class ActionModule(ActionBase):  # type: ignore[misc]
    """Run the module again for as long as it returns that there are flows to wait for."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the module over all its runs."""
        super().run(tmp, task_vars)
        if self._task.async_val:
            arguments = {**self._task.args, "progress_interval": 0}
            return self._run_module(arguments, task_vars, wrap_async=self._task.async_val)
        arguments = dict(self._task.args)
        began, previous = time.monotonic(), None
        result = first = self._run_module(arguments, task_vars)
        while result.pop("waiting", False):
            previous = self._show(result, previous, task_vars or {})
            if arguments.get("on_timeout", "terminate") != "terminate":
                # The node keeps no deadline, so the time of all runs is counted here.
                remaining = first["timeout"] - (time.monotonic() - began)
                arguments["timeout"] = max(0, round(remaining))
            latest = self._run_module(arguments, task_vars)
            kept = {name: first[name] for name in _FIRST_RUN if name in first}
            totals = {name: round(result[name] + latest.get(name, 0), 1) for name in _TOTALS}
            result = {**latest, **kept, **totals, "changed": first["changed"] or latest.get("changed", False)}
        return result

    def _run_module(self, arguments: dict[str, Any], task_vars: Any, wrap_async: int = 0) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name=_MODULE, module_args=arguments, task_vars=task_vars, wrap_async=wrap_async
        )
        return result

    def _show(
        self, result: dict[str, Any], previous: tuple[float, int] | None, task_vars: dict[str, Any]
    ) -> tuple[float, int]:
        """Show the remaining flows on standard error, because other programs may read standard output.

        :param previous: the time of the previous call and the number of flows that remained then.
        :returns: the same for this call.
        """
        backends = [backend for backend in result["connections_remaining"] if backend["connections"]]
        total, now = sum(backend["connections"] for backend in backends), time.monotonic()
        flows = ", ".join(f"{backend['listener']} {backend['name']} {backend['connections']}" for backend in backends)
        texts = [flows or "none"]
        if previous and now > previous[0]:
            texts.append(f"{max(0, previous[1] - total) / (now - previous[0]):.1f} per second end")
        seconds = [backend["drain_remaining_sec"] for backend in backends]
        deadlines = [remaining for remaining in seconds if remaining is not None]
        if deadlines:
            texts.append(f"{max(deadlines)} s until the deadline")
        host = self._task.delegate_to or task_vars.get("inventory_hostname", "")
        self._display.display(f"drain on {host}: remaining flows: {'; '.join(texts)}", stderr=True)
        return now, total
