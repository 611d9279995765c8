# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the action plugin lb_drain: the result and the messages of a wait over several runs of the module."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.evenflow.l4lb.plugins.action import lb_drain


class Plugin(lb_drain.ActionModule):
    """The plugin with a module that returns prepared results, and a display that records the messages."""

    def __init__(self, results: list[dict[str, Any]], **args: Any) -> None:
        self._task = SimpleNamespace(args={"backends": ["b1"], **args}, async_val=0, delegate_to=None)
        self._display = self
        self.results = results
        self.arguments: list[dict[str, Any]] = []
        self.shown: list[str] = []

    def _execute_module(self, **options: Any) -> dict[str, Any]:
        self.arguments.append(options["module_args"])
        return dict(self.results[len(self.arguments) - 1])

    def display(self, text: str, stderr: bool) -> None:
        assert stderr
        self.shown.append(text)


@pytest.fixture(autouse=True)
def advancing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advance the plugin's clock by 5 s at each reading, and skip the base class."""
    now = [100.0]

    def monotonic() -> float:
        now[0] += 5
        return now[0]

    monkeypatch.setattr(lb_drain, "time", SimpleNamespace(monotonic=monotonic))
    monkeypatch.setattr(ActionBase, "run", lambda *_arguments: {})


def _result(connections: int, *, waiting: bool = False, **more: Any) -> dict[str, Any]:
    left = [
        {
            "listener": "web",
            "name": "b1",
            "address": "198.19.0.1",
            "port": 0,
            "connections": connections,
            "drain_remaining_sec": 40,
        }
    ]
    result = {"changed": False, "connections_remaining": left, "connections_ended": 0, "elapsed": 10.0, "timeout": 60}
    return {**result, **({"waiting": True} if waiting else {}), **more}


def _run(plugin: Plugin) -> dict[str, Any]:
    return plugin.run(task_vars={"inventory_hostname": "lb1"})


def test_a_short_wait_takes_one_run() -> None:
    plugin = Plugin([_result(0, changed=True, diff={"before": 1})])
    assert _run(plugin) == _result(0, changed=True, diff={"before": 1})
    assert not plugin.shown and plugin.arguments == [{"backends": ["b1"]}]


def test_a_long_wait_shows_progress_and_returns_one_result() -> None:
    plugin = Plugin(
        [
            _result(9, waiting=True, changed=True, diff={"before": 1}, commands=["x"]),
            _result(4, waiting=True, commands=[]),
            _result(0, commands=[], connections_ended=4),
        ]
    )
    result = _run(plugin)
    assert result["changed"] and result["diff"] == {"before": 1} and result["commands"] == ["x"]
    assert (result["elapsed"], result["connections_ended"]) == (30.0, 4) and "waiting" not in result
    assert plugin.shown == [
        "drain on lb1: remaining flows: web b1 9; 40 s until the deadline",
        "drain on lb1: remaining flows: web b1 4; 1.0 per second end; 40 s until the deadline",
    ]
    assert plugin.arguments == [{"backends": ["b1"]}] * 3


def test_without_a_deadline_on_the_node_the_plugin_counts_the_time() -> None:
    plugin = Plugin([_result(9, waiting=True), _result(9, failed=True, msg="timeout")], on_timeout="fail")
    result = _run(plugin)
    assert result["failed"] and result["timeout"] == 60
    assert 40 <= plugin.arguments[1]["timeout"] < 60
