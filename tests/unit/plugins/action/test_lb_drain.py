# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller makes of a wait that the module does in turns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.evenflow.l4lb.plugins.action import lb_drain


class Plugin(lb_drain.ActionModule):
    """The plugin with a module that answers from a list, and a display that notes what it is told."""

    def __init__(self, answers: list[dict[str, Any]], **args: Any) -> None:
        self._task = SimpleNamespace(args={"backends": ["b1"], **args}, async_val=0, delegate_to=None)
        self._display = self
        self.answers = answers
        self.asked: list[dict[str, Any]] = []
        self.shown: list[str] = []

    def _execute_module(self, **options: Any) -> dict[str, Any]:
        self.asked.append(options["module_args"])
        return dict(self.answers[len(self.asked) - 1])

    def display(self, text: str, stderr: bool) -> None:
        assert stderr
        self.shown.append(text)


@pytest.fixture(autouse=True)
def time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]

    def monotonic() -> float:
        now[0] += 5
        return now[0]

    monkeypatch.setattr(lb_drain, "time", SimpleNamespace(monotonic=monotonic))
    monkeypatch.setattr(ActionBase, "run", lambda *_arguments: {})


def _answer(connections: int, *, waiting: bool = False, **more: Any) -> dict[str, Any]:
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
    found = {"changed": False, "connections_remaining": left, "connections_ended": 0, "elapsed": 10.0, "timeout": 60}
    return {**found, **({"waiting": True} if waiting else {}), **more}


def _run(plugin: Plugin) -> dict[str, Any]:
    return plugin.run(task_vars={"inventory_hostname": "lb1"})


def test_a_short_wait_is_the_modules() -> None:
    plugin = Plugin([_answer(0, changed=True, diff={"before": 1})])
    assert _run(plugin) == _answer(0, changed=True, diff={"before": 1})
    assert not plugin.shown and plugin.asked == [{"backends": ["b1"]}]


def test_a_long_wait_is_shown_and_told_as_one() -> None:
    plugin = Plugin(
        [
            _answer(9, waiting=True, changed=True, diff={"before": 1}, commands=["x"]),
            _answer(4, waiting=True, commands=[]),
            _answer(0, commands=[], connections_ended=4),
        ]
    )
    found = _run(plugin)
    assert found["changed"] and found["diff"] == {"before": 1} and found["commands"] == ["x"]
    assert (found["elapsed"], found["connections_ended"]) == (30.0, 4) and "waiting" not in found
    assert plugin.shown == [
        "drain on lb1: flows left: web b1 9; 40 s to go",
        "drain on lb1: flows left: web b1 4; 1.0 a second end; 40 s to go",
    ]
    assert plugin.asked == [{"backends": ["b1"]}] * 3


def test_without_a_deadline_the_time_is_counted_here() -> None:
    plugin = Plugin([_answer(9, waiting=True), _answer(9, failed=True, msg="timeout")], on_timeout="fail")
    found = _run(plugin)
    assert found["failed"] and found["timeout"] == 60
    assert 40 <= plugin.asked[1]["timeout"] < 60
