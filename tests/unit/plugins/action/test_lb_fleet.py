# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the action plugin lb_fleet: the results of a module that runs on several nodes at the same time."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any, Callable

import pytest
from ansible import context
from ansible.plugins.action import ActionBase
from ansible_collections.evenflow.l4lb.plugins.action import lb_fleet
from ansible_collections.evenflow.l4lb.plugins.plugin_utils import _ansible_core

Job = Callable[[str], "dict[str, Any]"]
NODES = ["lb1", "lb2", "lb3"]


class Plugin(lb_fleet.ActionModule):
    """The plugin with a function instead of modules and connections."""

    def __init__(self, job: Job, no_log: bool = False) -> None:
        self._job = job
        self._task = SimpleNamespace(no_log=no_log, copy=SimpleNamespace)
        self._templar = SimpleNamespace(copy_with_new_env=lambda available_variables: SimpleNamespace(template=str))
        self._loader = None
        self._display = self
        self.shown: list[str] = []

    def warning(self, text: str) -> None:
        self.shown.append(text)

    def validate_argument_spec(self, *_arguments: Any) -> tuple[None, dict[str, Any]]:
        return None, {"nodes": NODES, "module": "lb_info", "arguments": {}}

    def _action(self, node: str, module: str, arguments: dict[str, Any], node_vars: dict[str, Any]) -> Any:
        assert node_vars["inventory_hostname"] == node and set(node_vars["hostvars"]) >= {node}
        action = Action(self._job, node)
        return action, action


class Action:
    """An action that is also the connection; the result shows that both were closed."""

    def __init__(self, job: Job, node: str) -> None:
        self._job, self._node = job, node
        self._result: dict[str, Any] = {}

    def run(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        self._result.update(self._job(self._node))
        return self._result

    def cleanup(self) -> None:
        self._result["cleaned"] = True

    def close(self) -> None:
        self._result["closed"] = True


class Hosts(dict):  # type: ignore[type-arg]
    """The variables of all hosts, with the interface that the plugin uses."""

    def raw_get(self, name: str) -> dict[str, Any]:
        return {"inventory_hostname": name}


@pytest.fixture(autouse=True)
def minimal_action_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the base class, and remove the options of the command line."""
    monkeypatch.setattr(ActionBase, "run", lambda *_arguments: {})
    monkeypatch.setattr(context, "CLIARGS", {})


def _run(job: Job, hosts: list[str] | None = None, no_log: bool = False) -> dict[str, Any]:
    return Plugin(job, no_log).run(task_vars={"hostvars": Hosts.fromkeys(NODES if hosts is None else hosts)})


def test_the_module_runs_on_all_nodes_at_the_same_time() -> None:
    barrier = get_context("fork").Barrier(len(NODES))

    def wait_for_all(node: str) -> dict[str, Any]:
        barrier.wait(timeout=20)
        return {"changed": node == "lb2", "value": node, "_ansible_parsed": True}

    result = _run(wait_for_all)
    assert result["changed"] and "failed" not in result
    closed = {"cleaned": True, "closed": True}
    assert result["results"] == [{"changed": node == "lb2", "value": node, "node": node, **closed} for node in NODES]


@pytest.mark.parametrize(("forks", "most"), [(1, 1), (2, 2), (3, 3), (999, 3), (0, 3)])
def test_no_more_processes_than_forks(monkeypatch: pytest.MonkeyPatch, forks: int, most: int) -> None:
    running: list[int] = [0]

    class Process(lb_fleet._NodeProcess):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            running.append(running[-1] + 1)

        def end(self) -> None:
            super().end()
            running.append(running[-1] - 1)

    monkeypatch.setattr(lb_fleet, "_NodeProcess", Process)
    monkeypatch.setattr(context, "CLIARGS", {"forks": forks})
    results = _run(lambda node: {"value": node})["results"]
    assert [result["value"] for result in results] == NODES
    assert (max(running), running[-1]) == (most, 0)


def test_a_failed_node_does_not_hide_the_results_of_other_nodes() -> None:
    def fails(node: str) -> dict[str, Any]:
        if node == "lb1":
            raise OSError("no way there")
        if node == "lb3":
            os._exit(3)
        return {"changed": True, "diff": {"before": "a", "after": "b"}, "warnings": ["mind"]}

    result = _run(fails)
    assert result["failed"] and result["changed"]
    assert result["msg"] == "lb1: no way there; lb3: the process for this node ended without a result"
    assert result["warnings"] == ["mind"]
    assert [entry.get("failed", False) for entry in result["results"]] == [True, False, True]
    assert result["diff"] == [{"before": "a", "after": "b", "before_header": "lb2", "after_header": "lb2"}]


def test_results_are_hidden_if_the_task_hides_them() -> None:
    result = _run(lambda node: {"value": node}, no_log=True)
    assert [entry["_ansible_no_log"] for entry in result["results"]] == [True] * 3


def test_a_failed_module_reports_the_message_of_the_exception() -> None:
    result = _run(lambda node: {"failed": True, "exception": Broken(node)})
    assert result["msg"] == "lb1: no lb1; lb2: no lb2; lb3: no lb3"
    assert _run(lambda _node: {"failed": True})["msg"] == "lb1: failed; lb2: failed; lb3: failed"


def test_the_timeout_of_the_task_ends_the_processes() -> None:
    """End also a process whose result is larger than the buffer of a pipe."""
    fork = get_context("fork")
    reports, barrier, parent = fork.Queue(), fork.Barrier(len(NODES)), os.getpid()

    def report_and_wait(node: str) -> dict[str, Any]:
        reports.put(os.getpid())
        barrier.wait(timeout=20)
        if node == "lb1":
            os.kill(parent, signal.SIGALRM)
            time.sleep(60)
            reports.put("lb1 was not ended")
        return {"value": "x" * 1000000}

    def out_of_time(*_arguments: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, out_of_time)
    try:
        with pytest.raises(TimeoutError):
            _run(report_and_wait)
    finally:
        signal.signal(signal.SIGALRM, before)
    for pid in [reports.get(timeout=20) for _node in NODES]:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert reports.empty()


def test_a_timeout_while_the_processes_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that has just started is ended as well."""
    begin, started = lb_fleet._NodeProcess.__init__, []

    def interrupted(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        started.append(self._process.pid)
        os.kill(os.getpid(), signal.SIGALRM)

    def out_of_time(*_arguments: Any) -> None:
        raise TimeoutError

    def wait(_node: str) -> dict[str, Any]:
        time.sleep(60)
        return {}

    monkeypatch.setattr(lb_fleet._NodeProcess, "__init__", interrupted)
    before = signal.signal(signal.SIGALRM, out_of_time)
    try:
        with pytest.raises(TimeoutError):
            _run(wait)
    finally:
        signal.signal(signal.SIGALRM, before)
    (pid,) = started
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


class Broken:
    """An exception in the form that ansible-core puts into results."""

    def __init__(self, node: str) -> None:
        self.event = SimpleNamespace(msg=f"no {node}")


def test_an_untested_core_runs_one_node_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ansible_core, "VERSION", "2.99.0")
    began: list[tuple[str, int]] = []

    def fails_on_the_first(node: str) -> dict[str, Any]:
        began.append((node, os.getpid()))
        if node == "lb1":
            raise OSError("no route")
        return {"changed": True}

    plugin = Plugin(fails_on_the_first)
    result = plugin.run(task_vars={"hostvars": Hosts.fromkeys(NODES)})
    # The list is filled only if the module runs in this process.
    assert began == [(node, os.getpid()) for node in NODES]
    assert (result["msg"], result["changed"]) == ("lb1: no route", True)
    assert [entry.get("failed", False) for entry in result["results"]] == [True, False, False]
    assert plugin.shown == [
        "evenflow.l4lb.lb_fleet was not tested with ansible-core 2.99.0: it runs lb_info on one node after the other, "
        "without passwords of the command line"
    ]


@pytest.mark.parametrize("version", ["2.19.0", "2.20.3rc1", "2.21.5"])
def test_a_tested_core_runs_nodes_in_parallel(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(_ansible_core, "VERSION", version)
    plugin = Plugin(lambda _node: {"pid": os.getpid()})
    result = plugin.run(task_vars={"hostvars": Hosts.fromkeys(NODES)})
    assert len({os.getpid(), *(entry["pid"] for entry in result["results"])}) == 1 + len(NODES)
    assert not plugin.shown


@pytest.mark.parametrize("version", ["2.18.9", "2.22.0", "2.2.1", "2.190.0", "3.0.0"])
def test_other_cores_are_untested(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(_ansible_core, "VERSION", version)
    assert not _ansible_core.is_tested()


def test_a_host_that_is_not_in_the_inventory_is_an_error() -> None:
    result = _run(lambda _node: {}, hosts=["lb1", "lb2"])
    assert result == {"failed": True, "msg": "nodes: lb3: not in the inventory"}
