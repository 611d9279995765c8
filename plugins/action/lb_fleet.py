# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a module on several hosts at the same time; a loop with ``delegate_to`` takes one host after the other."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, Callable, Iterator

from ansible import context
from ansible.plugins import loader
from ansible.plugins.action import ActionBase
from ansible_collections.evenflow.l4lb.plugins.plugin_utils import _ansible_core, _public_connection

_COLLECTION = "evenflow.l4lb."

_GRACE_SECONDS = 2
"""Seconds that a process may take to end after it has sent its result, or because it cannot send it."""


class ActionModule(ActionBase):  # type: ignore[misc]
    """Run the module on each node, as a task of the node's own would."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the results of all nodes, in the order of the nodes."""
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
        # The variables that a delegated task would have.
        nodes = {node: {**hosts.raw_get(node), "hostvars": hosts} for node in options["nodes"]}
        if _ansible_core.is_tested():
            run_all = self._run_in_parallel
        else:
            self._display.warning(
                f"evenflow.l4lb.lb_fleet was not tested with ansible-core {_ansible_core.VERSION}: it runs "
                f"{options['module']} on one node after the other, without passwords of the command line"
            )
            run_all = self._run_in_turn
        return self._summary(list(nodes), run_all(nodes, options["module"], options["arguments"]))

    def _run_in_parallel(self, nodes: dict[str, Any], module: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        forks = context.CLIARGS.get("forks") or max(1, len(nodes))
        names, results = list(nodes), []
        for first in range(0, len(names), forks):
            runs: list[_NodeProcess] = []
            try:
                for node in names[first : first + forks]:
                    # A process that starts as the task's timeout comes must be ended as well.
                    with _without_alarm():
                        runs.append(_NodeProcess(self._run_on_node, node, module, arguments, nodes[node]))
                results += [run.result() for run in runs]
            finally:
                # The timeout can come before all results are there.
                for run in runs:
                    run.end()
        return results

    def _run_in_turn(self, nodes: dict[str, Any], module: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        return [self._run_on_node(node, module, arguments, nodes[node]) for node in nodes]

    def _run_on_node(
        self, node: str, module: str, arguments: dict[str, Any], node_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Run the module on a node. Return an error as the node's result: the other nodes have their own."""
        try:
            action, connection = self._action(node, module, arguments, node_vars)
            try:
                result = action.run(task_vars=node_vars)
            finally:
                action.cleanup()
                connection.close()
        except Exception as error:  # pylint: disable=broad-except
            result = {"failed": True, "msg": str(error)}
        if result.get("failed") and "msg" not in result:
            event = getattr(result.get("exception"), "event", None)
            result["msg"] = getattr(event, "msg", "failed")
        return {name: value for name, value in result.items() if not name.startswith("_ansible")}

    def _action(
        self, node: str, module: str, arguments: dict[str, Any], node_vars: dict[str, Any]
    ) -> tuple[ActionBase, Any]:
        """Return the action that runs the module on a node, and the connection that it uses."""
        task = self._task.copy()
        task.args, task.delegate_to = arguments, None
        templar = self._templar.copy_with_new_env(available_variables=node_vars)
        if _ansible_core.is_tested():
            connection, play_context = _ansible_core.connect(task, templar, node, node_vars)
        else:
            connection, play_context = _public_connection.connect(
                task, self._play_context, node, node_vars["hostvars"][node]
            )
        parameters = {
            "task": task,
            "connection": connection,
            "play_context": play_context,
            "loader": self._loader,
            "templar": templar,
            "shared_loader_obj": loader,
        }
        name = f"{_COLLECTION}{module}"
        if loader.action_loader.has_plugin(name):
            return loader.action_loader.get(name, **parameters), connection
        return _ModuleAction(name, **parameters), connection

    def _summary(self, nodes: list[str], node_results: list[dict[str, Any]]) -> dict[str, Any]:
        results = [{**result, "node": node} for node, result in zip(nodes, node_results)]
        summary: dict[str, Any] = {
            "results": results,
            "changed": any(result.get("changed") for result in results),
        }
        diffs = [
            {**result.pop("diff"), "before_header": result["node"], "after_header": result["node"]}
            for result in results
            if result.get("diff")
        ]
        if diffs:
            summary["diff"] = diffs
        warnings = [warning for result in results for warning in result.pop("warnings", [])]
        if warnings:
            summary["warnings"] = warnings
        if self._task.no_log:
            # Callback plugins take the results for those of a loop, each of which has a mark of its own.
            for result in results:
                result["_ansible_no_log"] = True
        errors = [f"{result['node']}: {result['msg']}" for result in results if result.get("failed")]
        if errors:
            summary.update(failed=True, msg="; ".join(errors))
        return summary


class _ModuleAction(ActionBase):  # type: ignore[misc]
    """The action of a module that has no action plugin."""

    def __init__(self, module: str, **parameters: Any) -> None:
        super().__init__(**parameters)
        self._module = module

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        result: dict[str, Any] = self._execute_module(
            module_name=self._module, module_args=self._task.args, task_vars=task_vars
        )
        return result


@contextmanager
def _without_alarm() -> Iterator[None]:
    """Let the signal of the task's timeout wait until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _NodeProcess:
    """A process that runs the module on one node."""

    def __init__(self, run: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        # The actions and their connections cannot be pickled.
        fork = get_context("fork")
        self._receiver, sender = fork.Pipe(duplex=False)
        self._process = fork.Process(target=self._send_result, args=(sender, run, arguments), daemon=True)
        self._process.start()
        sender.close()

    def _send_result(self, sender: Any, run: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
        # The worker's handler, which a fork inherits, ends the worker with all that it has started.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
        # With a second receiver in this process, sending would block for ever after the worker has closed its own.
        self._receiver.close()
        sender.send(run(*arguments))

    def result(self) -> dict[str, Any]:
        """Wait for the node's result, or for the end of the process."""
        try:
            result: dict[str, Any] = self._receiver.recv()
        except EOFError:
            result = {"failed": True, "msg": "the process for this node ended without a result"}
        return result

    def end(self) -> None:
        """End the process if it has not ended by itself."""
        self._receiver.close()
        self._process.join(timeout=_GRACE_SECONDS)
        self._process.terminate()
        self._process.join()
