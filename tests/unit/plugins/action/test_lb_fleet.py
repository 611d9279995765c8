# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of nodes that are asked at the same time."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any, Callable

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.evenflow.l4lb.plugins.action import lb_fleet

Job = Callable[[str], "dict[str, Any]"]
NODES = ["lb1", "lb2", "lb3"]


class Plugin(lb_fleet.ActionModule):
    """The plugin with a function in place of modules and connections."""

    def __init__(self, job: Job, no_log: bool = False) -> None:
        self._job = job
        self._task = SimpleNamespace(no_log=no_log, copy=SimpleNamespace)
        self._templar = SimpleNamespace(copy_with_new_env=lambda available_variables: SimpleNamespace(template=str))
        self._loader = None

    def validate_argument_spec(self, *_arguments: Any) -> tuple[None, dict[str, Any]]:
        return None, {"nodes": NODES, "module": "lb_info", "arguments": {}}

    def _action(self, node: str, module: str, arguments: dict[str, Any], node_vars: dict[str, Any]) -> Any:
        assert node_vars["inventory_hostname"] == node and set(node_vars["hostvars"]) >= {node}
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


def _run(job: Job, hosts: list[str] | None = None, no_log: bool = False) -> dict[str, Any]:
    return Plugin(job, no_log).run(task_vars={"hostvars": Hosts.fromkeys(NODES if hosts is None else hosts)})


def test_all_are_asked_at_the_same_time() -> None:
    together = get_context("fork").Barrier(len(NODES))

    def waits_for_the_others(node: str) -> dict[str, Any]:
        together.wait(timeout=20)
        return {"changed": node == "lb2", "said": node, "_ansible_parsed": True}

    found = _run(waits_for_the_others)
    assert found["changed"] and "failed" not in found
    put_away = {"cleaned": True, "closed": True}
    assert found["results"] == [{"changed": node == "lb2", "said": node, "node": node, **put_away} for node in NODES]


@pytest.mark.parametrize("forks", [1, 2])
def test_no_more_at_a_time_than_forks(monkeypatch: pytest.MonkeyPatch, forks: int) -> None:
    """As many as there are forks are asked together, and the others only after them."""
    monkeypatch.setattr(lb_fleet.context, "CLIARGS", {"forks": forks})
    fork = get_context("fork")
    together, next_one = fork.Barrier(forks), fork.Event()

    def waits_for_the_others(node: str) -> dict[str, Any]:
        if node in NODES[:forks]:
            together.wait(timeout=20)
            # A node that is asked too early sets it within this time.
            return {"is_next_early": next_one.wait(timeout=1)}
        next_one.set()
        return {"is_next_early": False}

    results = _run(waits_for_the_others)["results"]
    assert [one["is_next_early"] for one in results] == [False] * len(NODES)
    assert next_one.is_set()


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


def test_nobody_sees_what_the_task_hides() -> None:
    found = _run(lambda node: {"said": node}, no_log=True)
    assert [one["_ansible_no_log"] for one in found["results"]] == [True] * 3


def test_a_module_that_broke_says_how() -> None:
    found = _run(lambda node: {"failed": True, "exception": Broken(node)})
    assert found["msg"] == "lb1: no lb1; lb2: no lb2; lb3: no lb3"
    assert _run(lambda _node: {"failed": True})["msg"] == "lb1: failed; lb2: failed; lb3: failed"


def test_a_task_that_runs_out_of_time_ends_those_that_it_asks() -> None:
    """Also a process whose answer is larger than what a pipe holds."""
    fork = get_context("fork")
    said, together, parent = fork.Queue(), fork.Barrier(len(NODES)), os.getpid()

    def speaks(node: str) -> dict[str, Any]:
        said.put(os.getpid())
        together.wait(timeout=20)
        if node == "lb1":
            os.kill(parent, signal.SIGALRM)
            time.sleep(60)
            said.put("lb1 was not ended")
        return {"said": "x" * 1000000}

    def out_of_time(*_arguments: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, out_of_time)
    try:
        with pytest.raises(TimeoutError):
            _run(speaks)
    finally:
        signal.signal(signal.SIGALRM, before)
    for pid in [said.get(timeout=20) for _node in NODES]:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert said.empty()


def test_a_node_gets_no_password_of_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The play's context has what the command line gave; the action's has what is of the task's own host."""
    plays, made = Context(), []
    monkeypatch.setattr(lb_fleet.worker, "current_worker", SimpleNamespace(_play_context=plays))
    monkeypatch.setattr(lb_fleet.loader, "action_loader", SimpleNamespace(has_plugin=lambda _name: False))
    monkeypatch.setattr(lb_fleet, "_Connector", lambda task, used, plugins: SimpleNamespace(connect=lambda *_: used))
    monkeypatch.setattr(lb_fleet, "_Plain", lambda name, **pieces: made.append((name, pieces)))
    plugin = Plugin(lambda _node: {})
    plugin._play_context = Context()
    lb_fleet.ActionModule._action(plugin, "lb1", "lb_info", {"gather": []}, {"ansible_host": "198.18.0.1"})
    ((name, pieces),) = made
    assert name == "evenflow.l4lb.lb_info"
    assert pieces["play_context"] is pieces["connection"] is plays
    assert (pieces["task"].args, pieces["task"].delegate_to, plays.remote_addr) == ({"gather": []}, None, "198.18.0.1")


class Context:
    """A play context."""

    remote_addr = "of somebody else"

    def set_task_and_variable_override(self, *_arguments: Any) -> Context:
        return self

    def post_validate(self, templar: Any) -> None:
        pass


class Broken:
    """What ansible-core makes of a traceback."""

    def __init__(self, node: str) -> None:
        self.event = SimpleNamespace(msg=f"no {node}")


def test_a_host_that_there_is_not() -> None:
    found = _run(lambda _node: {}, hosts=["lb1", "lb2"])
    assert found == {"failed": True, "msg": "nodes: lb3: not in the inventory"}
