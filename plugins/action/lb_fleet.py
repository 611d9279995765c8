# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a module on several hosts at the same time: a loop with ``delegate_to`` goes from one to the next."""

from __future__ import annotations

import signal
from typing import Any, Callable

from ansible import context
from ansible.executor.process import worker
from ansible.executor.task_executor import TaskExecutor
from ansible.plugins import loader
from ansible.plugins.action import ActionBase
from ansible.utils.multiprocessing import context as multiprocessing

_COLLECTION = "evenflow.l4lb."

_PATIENCE = 2
"""Seconds in which a process that has told its answer, or cannot, may end."""


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs a process for each node, which asks it as a delegated task would."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the results of all nodes, in their order."""
        super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            {
                "nodes": {"type": "list", "elements": "str", "required": True},
                "module": {"type": "str", "required": True},
                "arguments": {"type": "dict", "default": {}},
            }
        )
        hosts = (task_vars or {})["hostvars"]
        unknown = [node for node in options["nodes"] if node not in hosts]
        if unknown:
            return {"failed": True, "msg": f"nodes: {', '.join(unknown)}: not in the inventory"}
        # What a delegated task would see of the node.
        nodes = {node: {**hosts.raw_get(node), "hostvars": hosts} for node in options["nodes"]}
        return self._summary(list(nodes), self._ask_all(nodes, options["module"], options["arguments"]))

    def _ask_all(self, nodes: dict[str, Any], module: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        forks = context.CLIARGS.get("forks") or max(1, len(nodes))
        names, found = list(nodes), []
        for first in range(0, len(names), forks):
            asked = [_Asked(self._ask, node, module, arguments, nodes[node]) for node in names[first : first + forks]]
            try:
                found += [one.answer() for one in asked]
            finally:
                # A task's time-out ends this before the answers are there.
                for one in asked:
                    one.end()
        return found

    def _ask(self, node: str, module: str, arguments: dict[str, Any], node_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the module on a node, in a process of its own."""
        try:
            action = self._action(node, module, arguments, node_vars)
            try:
                found = action.run(task_vars=node_vars)
            finally:
                action.cleanup()
                action._connection.close()
        except Exception as error:  # pylint: disable=broad-except
            # Whatever it is, it is this node's result; the others have theirs.
            found = {"failed": True, "msg": str(error)}
        if found.get("failed") and "msg" not in found:
            event = getattr(found.get("exception"), "event", None)
            found["msg"] = getattr(event, "msg", "failed")
        return {name: value for name, value in found.items() if not name.startswith("_ansible")}

    def _action(self, node: str, module: str, arguments: dict[str, Any], node_vars: dict[str, Any]) -> ActionBase:
        task = self._task.copy()
        task.args, task.delegate_to = arguments, None
        templar = self._templar.copy_with_new_env(available_variables=node_vars)
        # The action's own has the passwords of the host that the task is for.
        play_context = worker.current_worker._play_context.set_task_and_variable_override(task, node_vars, templar)
        play_context.post_validate(templar=templar)
        play_context.remote_addr = templar.template(node_vars.get("ansible_host", node))
        connection = _Connector(task, play_context, loader).connect(node_vars, templar)
        pieces = {
            "task": task,
            "connection": connection,
            "play_context": play_context,
            "loader": self._loader,
            "templar": templar,
            "shared_loader_obj": loader,
        }
        name = f"{_COLLECTION}{module}"
        if loader.action_loader.has_plugin(name):
            return loader.action_loader.get(name, **pieces)
        return _Plain(name, **pieces)

    def _summary(self, nodes: list[str], found: list[dict[str, Any]]) -> dict[str, Any]:
        results = [{**one, "node": node} for node, one in zip(nodes, found)]
        summary: dict[str, Any] = {
            "results": results,
            "changed": any(one.get("changed") for one in results),
        }
        diffs = [
            {**one.pop("diff"), "before_header": one["node"], "after_header": one["node"]}
            for one in results
            if one.get("diff")
        ]
        if diffs:
            summary["diff"] = diffs
        warnings = [warning for one in results for warning in one.pop("warnings", [])]
        if warnings:
            summary["warnings"] = warnings
        if self._task.no_log:
            # Results are taken for those of a loop, each of which says it for itself.
            for one in results:
                one["_ansible_no_log"] = True
        bad = [f"{one['node']}: {one['msg']}" for one in results if one.get("failed")]
        if bad:
            summary.update(failed=True, msg="; ".join(bad))
        return summary


class _Plain(ActionBase):  # type: ignore[misc]
    """What runs a module that has no action plugin."""

    def __init__(self, module: str, **pieces: Any) -> None:
        super().__init__(**pieces)
        self._module = module

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        found: dict[str, Any] = self._execute_module(
            module_name=self._module, module_args=self._task.args, task_vars=task_vars
        )
        return found


class _Connector(TaskExecutor):  # type: ignore[misc]
    """Makes a host's connection as ansible-core does for a task: its options, its shell, its become."""

    # In ansible-core 2.21 this is a property that gives the running task.
    _task: Any = None

    def __init__(self, task: Any, play_context: Any, plugins: Any) -> None:
        # Without the parent's: an executor is for a task's whole life, and its arguments differ between versions.
        # pylint: disable=super-init-not-called
        self._task = task
        self._play_context = play_context
        self._shared_loader_obj = plugins
        self._connection: Any = None

    def connect(self, node_vars: dict[str, Any], templar: Any) -> Any:
        """Return the connection that the host's variables ask for. AnsibleError if it cannot be had."""
        kind = node_vars.get("ansible_connection")
        kind = self._task.connection if kind is None else templar.template(kind)
        self._connection = self._get_connection(node_vars, templar, kind)
        self._set_connection_options(node_vars, templar)
        return self._connection


class _Asked:
    """A node that is asked, in a process of its own."""

    def __init__(self, ask: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        self._ours, theirs = multiprocessing.Pipe(duplex=False)
        self._process = multiprocessing.Process(target=self._tell, args=(theirs, ask, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def _tell(self, theirs: Any, ask: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
        # The worker's handler, which a fork inherits, ends the worker with all that it has started.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Else nobody would be missed where the other end is closed.
        self._ours.close()
        theirs.send(ask(*arguments))

    def answer(self) -> dict[str, Any]:
        """Wait for what it says, or for its end."""
        try:
            found: dict[str, Any] = self._ours.recv()
        except EOFError:
            found = {"failed": True, "msg": "the process that asked it ended without an answer"}
        return found

    def end(self) -> None:
        """End the process, if it has not ended by itself."""
        self._ours.close()
        self._process.join(timeout=_PATIENCE)
        self._process.terminate()
        self._process.join()
