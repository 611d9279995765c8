# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The private parts of ansible-core that action plugins use.

Modules have a file of the same name in ``module_utils``, which is copied to nodes and cannot import these; it also
lists the versions of ansible-core that were tested. With another version use ``_public_connection`` instead.

==================================================  ==================================================================
private name                                        used for
==================================================  ==================================================================
``executor.process.worker.current_worker``          the process that runs the task
``WorkerProcess._play_context``                     the play's settings with the passwords of the command line, before
                                                    variables of the task's own host were applied
``PlayContext.set_task_and_variable_override``      those settings for a node
``PlayContext.post_validate``                       the same
``TaskExecutor._get_connection``                    a node's connection with its shell and become plugins
``TaskExecutor._set_connection_options``            the options of all three from the node's variables
``TaskExecutor._task``, ``._play_context``,         what the two methods read
``._shared_loader_obj``, ``._connection``
==================================================  ==================================================================
"""

from __future__ import annotations

from typing import Any

from ansible.executor.process import worker
from ansible.executor.task_executor import TaskExecutor
from ansible.plugins import loader
from ansible.release import __version__
from ansible_collections.evenflow.l4lb.plugins.module_utils._ansible_core import TESTED_CORES

VERSION: str = __version__
"""The version of ansible-core that runs."""


def is_tested() -> bool:
    """Return whether the uses in this file were tested with the ansible-core that runs."""
    return VERSION.startswith(tuple(f"{version}." for version in TESTED_CORES))


def connect(task: Any, templar: Any, node: str, node_vars: dict[str, Any]) -> tuple[Any, Any]:
    """Connect to a node as ansible-core does for a task of the node's own.

    :param task: the task with neither loop nor delegation.
    :param templar: a templar with the node's variables.
    :returns: the connection and the play context.
    :raises AnsibleError: the connection plugin or the become plugin does not exist.
    """
    play_context = worker.current_worker._play_context.set_task_and_variable_override(task, node_vars, templar)
    play_context.post_validate(templar=templar)
    play_context.remote_addr = templar.template(node_vars.get("ansible_host", node))
    return _Connector(task, play_context).connect(node_vars, templar), play_context


class _Connector(TaskExecutor):  # type: ignore[misc]
    """The part of a task executor that makes connections."""

    # In ansible-core 2.21 this is a property that returns the running task.
    _task: Any = None

    def __init__(self, task: Any, play_context: Any) -> None:
        # The parent's is not called: its parameters differ between versions.
        # pylint: disable=super-init-not-called
        self._task = task
        self._play_context = play_context
        self._shared_loader_obj = loader
        self._connection: Any = None

    def connect(self, node_vars: dict[str, Any], templar: Any) -> Any:
        kind = node_vars.get("ansible_connection")
        kind = self._task.connection if kind is None else templar.template(kind)
        self._connection = self._get_connection(node_vars, templar, kind)
        self._set_connection_options(node_vars, templar)
        return self._connection
