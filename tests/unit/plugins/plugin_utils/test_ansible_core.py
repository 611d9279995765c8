# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Contract tests of the private parts of ansible-core that the collection uses.

The tests run with the real code of each version of ansible-core that the collection names as tested.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import context
from ansible.errors import AnsibleError
from ansible.executor.process import worker
from ansible.inventory.manager import InventoryManager
from ansible.module_utils.testing import patch_module_args
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.template import Templar, trust_as_template
from ansible.utils.context_objects import CLIArgs
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.evenflow.l4lb.plugins.module_utils import _ansible_core as module_side
from ansible_collections.evenflow.l4lb.plugins.plugin_utils import _ansible_core, _public_connection

NODE = "lb1"
VARIABLES = {
    "ansible_connection": "ssh",
    "ansible_host": "{{ network }}.7",
    "network": "198.18.0",
    "ansible_port": 2222,
    "ansible_user": "operator",
    "ansible_password": "of-lb1",
    "ansible_become_password": "root-of-lb1",
    "ansible_ssh_common_args": "-o Compression={{ compression }}",
    "compression": "yes",
    "ansible_remote_tmp": "/var/tmp/ansible",
}


@pytest.fixture(autouse=True)
def command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the command line's options, which connections read."""
    options = {"connection": "ssh", "become_method": "sudo", "become": False, "timeout": 10}
    monkeypatch.setattr(context, "CLIARGS", CLIArgs(options))


def _hosts(**variables: Any) -> HostVars:
    data = DataLoader()
    inventory = InventoryManager(loader=data, sources=[f"{NODE},other,"])
    for name, value in variables.items():
        inventory.get_host(NODE).set_variable(name, trust_as_template(value) if isinstance(value, str) else value)
    return HostVars(
        inventory=inventory, variable_manager=VariableManager(loader=data, inventory=inventory), loader=data
    )


def _task(**keywords: Any) -> Task:
    return Task.load({"action": "evenflow.l4lb.lb_info", **keywords})


def _connect_privately(
    monkeypatch: pytest.MonkeyPatch, task: Task, hosts: HostVars, passwords: dict[str, str] | None = None
) -> Any:
    running = SimpleNamespace(_play_context=PlayContext(passwords=passwords or {}))
    monkeypatch.setattr(worker, "current_worker", running)
    node_vars = hosts.raw_get(NODE)
    return _ansible_core.connect(task, Templar(loader=DataLoader(), variables=node_vars), NODE, node_vars)


def _connect_publicly(_monkeypatch: pytest.MonkeyPatch, task: Task, hosts: HostVars) -> Any:
    own = PlayContext(passwords={"conn_pass": "of-another-host", "become_pass": "of-another-host"})
    own.remote_addr = "198.18.0.99"
    return _public_connection.connect(task, own, NODE, hosts[NODE])


def test_the_running_core_is_a_tested_version() -> None:
    assert _ansible_core.is_tested()


def test_the_tested_versions_are_documented_and_run() -> None:
    root = Path(__file__).parents[4]
    documented = (root / "plugins" / "modules" / "lb_fleet.py").read_text(encoding="utf-8")
    assert "tested with ansible-core {}, {} and {}.".format(*module_side.TESTED_CORES) in documented
    step = (root / "tests" / "tools" / "step.sh").read_text(encoding="utf-8")
    assert tuple(re.findall(r"\[(2\.[0-9]+)\]=", step)) == module_side.TESTED_CORES


@pytest.mark.parametrize("connect", [_connect_privately, _connect_publicly])
def test_a_connection_has_the_options_of_its_node(monkeypatch: pytest.MonkeyPatch, connect: Any) -> None:
    task = _task(become=True, become_user="root", remote_user="not-this-one")
    connection, play_context = connect(monkeypatch, task, _hosts(**VARIABLES))
    assert connection.transport == "ssh" and play_context.remote_addr == "198.18.0.7"
    assert {name: connection.get_option(name) for name in ("host", "port", "remote_user", "password")} == {
        "host": "198.18.0.7",
        "port": 2222,
        "remote_user": "operator",
        "password": "of-lb1",
    }
    assert connection.get_option("ssh_common_args") == "-o Compression=yes"
    assert connection.become.name == "sudo"
    assert connection.become.get_option("become_user") == "root"
    assert connection.become.get_option("become_pass") == "root-of-lb1"
    assert connection._shell.get_option("remote_tmp") == "/var/tmp/ansible"


@pytest.mark.parametrize("connect", [_connect_privately, _connect_publicly])
def test_task_keywords_apply_if_the_node_has_no_variable(monkeypatch: pytest.MonkeyPatch, connect: Any) -> None:
    connection, play_context = connect(monkeypatch, _task(remote_user="operator", port=2200), _hosts())
    assert (connection.transport, play_context.remote_addr) == ("ssh", NODE)
    assert (connection.get_option("remote_user"), connection.get_option("port")) == ("operator", 2200)
    assert connection.become is None
    assert not (connection.get_option("password") or play_context.password or play_context.become_pass)


@pytest.mark.parametrize("connect", [_connect_privately, _connect_publicly])
def test_a_local_node_with_become_from_its_variables(monkeypatch: pytest.MonkeyPatch, connect: Any) -> None:
    variables = {"ansible_connection": "local", "ansible_become": "yes", "ansible_become_method": "su"}
    connection, _play_context = connect(monkeypatch, _task(), _hosts(**variables))
    assert (connection.transport, connection.become.name) == ("local", "su")


@pytest.mark.parametrize("connect", [_connect_privately, _connect_publicly])
@pytest.mark.parametrize("variable", ["ansible_connection", "ansible_become_method"])
def test_a_missing_plugin_is_an_error(monkeypatch: pytest.MonkeyPatch, connect: Any, variable: str) -> None:
    with pytest.raises(AnsibleError, match="evenflow.l4lb.none"):
        connect(monkeypatch, _task(become=True), _hosts(**{variable: "evenflow.l4lb.none"}))


def test_passwords_of_the_command_line_are_used_for_a_node_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = {"conn_pass": "prompted", "become_pass": "prompted-too"}
    connection, _play_context = _connect_privately(monkeypatch, _task(become=True), _hosts(), passwords)
    assert connection.get_option("password") == "prompted"
    assert connection.become.get_option("become_pass") == "prompted-too"


def test_a_worker_has_the_play_context_of_the_play() -> None:
    """Set the variable as a worker does when it runs; a real worker runs in the integration target lb_fleet."""
    assert worker.current_worker is None
    assert "play_context" in inspect.signature(worker.WorkerProcess).parameters
    assert "self._play_context = play_context" in inspect.getsource(worker.WorkerProcess.__init__)
    assert "current_worker = self" in inspect.getsource(worker.WorkerProcess._run)


def test_parameters_are_those_that_the_user_wrote() -> None:
    written = {"listeners": [{"name": "web", "ports": "eighty"}], "no_such_option": 1}
    with patch_module_args(written):
        parameters = module_side.load_written_parameters()
        assert parameters == written
        # A module may change the dictionary, and the next call must still return the original values.
        parameters.clear()
        assert module_side.load_written_parameters() == written


@pytest.mark.parametrize("replacement", [None, lambda _more: {}, lambda: "text"])
def test_parameters_are_empty_if_a_later_core_does_not_provide_them(
    monkeypatch: pytest.MonkeyPatch, replacement: Any
) -> None:
    monkeypatch.setattr(module_side, "_load_params", replacement)
    assert module_side.load_written_parameters() is None
