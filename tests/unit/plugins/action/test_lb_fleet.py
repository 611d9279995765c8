# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of nodes that are asked at the same time."""

from __future__ import annotations

import os
from multiprocessing import get_context
from typing import Any, Callable

import pytest
from ansible.plugins.action import ActionBase

from ansible_collections.evenflow.l4lb.plugins.action import lb_fleet

Job = Callable[[str], "dict[str, Any]"]
NODES = ["lb1", "lb2", "lb3"]


class Plugin(lb_fleet.ActionModule):
    """The plugin with a function in place of modules and connections."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def validate_argument_spec(self, *_arguments: Any) -> tuple[None, dict[str, Any]]:
        return None, {"nodes": NODES, "module": "lb_info", "arguments": {}}

    def _action(self, node: str, module: str, arguments: dict[str, Any], node_vars: dict[str, Any]) -> Any:
        assert node_vars == {"inventory_hostname": node}
        return Action(self._job, node)


class Action:
    """An action and its connection in one; notes on the result that both were put away."""

    def __init__(self, job: Job, node: str) -> None:
        self._job, self._node, self._connection = job, node, self
        self._found: dict[str, Any] = {}

    def run(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        self._found.update(self._job(self._node))
        return self._found

    def cleanup(self) -> None:
        self._found["cleaned"] = True

    def close(self) -> None:
        self._found["closed"] = True


class Hosts(dict):  # type: ignore[type-arg]
    def raw_get(self, name: str) -> dict[str, Any]:
        return {"inventory_hostname": name}


@pytest.fixture(autouse=True)
def nothing_of_ansible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ActionBase, "run", lambda *_arguments: {})
    monkeypatch.setattr(lb_fleet.context, "CLIARGS", {})


def _run(job: Job, hosts: list[str] | None = None) -> dict[str, Any]:
    return Plugin(job).run(task_vars={"hostvars": Hosts.fromkeys(NODES if hosts is None else hosts)})


def test_all_are_asked_at_the_same_time() -> None:
    together = get_context("fork").Barrier(len(NODES))

    def waits_for_the_others(node: str) -> dict[str, Any]:
        together.wait(timeout=20)
        return {"changed": node == "lb2", "said": node, "_ansible_parsed": True}

    found = _run(waits_for_the_others)
    assert found["changed"] and "failed" not in found
    put_away = {"cleaned": True, "closed": True}
    assert found["results"] == [{"changed": node == "lb2", "said": node, "node": node, **put_away} for node in NODES]


def test_no_more_at_a_time_than_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lb_fleet.context, "CLIARGS", {"forks": 2})
    running = get_context("fork").BoundedSemaphore(2)

    def counted(node: str) -> dict[str, Any]:
        assert running.acquire(block=False)
        os.sched_yield()
        running.release()
        return {"said": node}

    assert [one["said"] for one in _run(counted)["results"]] == NODES


def test_one_that_fails_does_not_hide_what_the_others_say() -> None:
    def fails(node: str) -> dict[str, Any]:
        if node == "lb1":
            raise OSError("no way there")
        if node == "lb3":
            os._exit(3)
        return {"changed": True, "diff": {"before": "a", "after": "b"}, "warnings": ["mind"]}

    found = _run(fails)
    assert found["failed"] and found["changed"]
    assert found["msg"] == "lb1: no way there; lb3: the process that asked it ended without an answer"
    assert found["warnings"] == ["mind"]
    assert [one.get("failed", False) for one in found["results"]] == [True, False, True]
    assert found["diff"] == [{"before": "a", "after": "b", "before_header": "lb2", "after_header": "lb2"}]


def test_a_host_that_there_is_not() -> None:
    found = _run(lambda _node: {}, hosts=["lb1", "lb2"])
    assert found == {"failed": True, "msg": "nodes: lb3: not in the inventory"}
