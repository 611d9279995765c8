# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows what is left while ``lb_drain`` waits: a module cannot say anything before it ends."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase

_MODULE = "evenflow.l4lb.lb_drain"
_OF_THE_FIRST = ("diff", "before", "after", "changes", "commands", "timeout")
_TOTALS = ("elapsed", "connections_ended")


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the module as often as it says that there is more to wait for."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the module returns, over all its runs."""
        super().run(tmp, task_vars)
        if self._task.async_val:
            return self._ask({**self._task.args, "progress_interval": 0}, task_vars, wrap_async=self._task.async_val)
        arguments = dict(self._task.args)
        began, last = time.monotonic(), None
        result = first = self._ask(arguments, task_vars)
        while result.pop("waiting", False):
            last = self._show(result, last, task_vars or {})
            if arguments.get("on_timeout", "terminate") != "terminate":
                # Without a deadline on the node the time is counted here.
                left = first["timeout"] - (time.monotonic() - began)
                arguments["timeout"] = max(0, round(left))
            more = self._ask(arguments, task_vars)
            kept = {name: first[name] for name in _OF_THE_FIRST if name in first}
            total = {name: round(result[name] + more.get(name, 0), 1) for name in _TOTALS}
            result = {**more, **kept, **total, "changed": first["changed"] or more.get("changed", False)}
        return result

    def _ask(self, arguments: dict[str, Any], task_vars: Any, wrap_async: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module(
            module_name=_MODULE, module_args=arguments, task_vars=task_vars, wrap_async=wrap_async
        )
        return found

    def _show(
        self, result: dict[str, Any], last: tuple[float, int] | None, task_vars: dict[str, Any]
    ) -> tuple[float, int]:
        """Show what is left; on standard error, so that output that programs read stays as it is."""
        left = [one for one in result["connections_remaining"] if one["connections"]]
        total, now = sum(one["connections"] for one in left), time.monotonic()
        words = [", ".join(f"{one['listener']} {one['name']} {one['connections']}" for one in left) or "nothing left"]
        if last and now > last[0]:
            words.append(f"{max(0, last[1] - total) / (now - last[0]):.1f} a second end")
        remaining = [one["drain_remaining_sec"] for one in left if one["drain_remaining_sec"] is not None]
        if remaining:
            words.append(f"{max(remaining)} s to go")
        host = self._task.delegate_to or task_vars.get("inventory_hostname", "")
        self._display.display(f"drain on {host}: flows left: {'; '.join(words)}", stderr=True)
        return now, total
