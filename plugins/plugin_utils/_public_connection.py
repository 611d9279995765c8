# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections to nodes by what ansible-core offers to every action plugin, whatever its version."""

from __future__ import annotations

from typing import Any, Mapping

from ansible.constants import config
from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.loader import become_loader, connection_loader, get_shell_plugin

_KEYWORDS = ("become_exe", "become_flags", "become_user", "port", "remote_user")
"""Keywords of a task that are options of connection and become plugins."""


def connect(task: Any, play_context: Any, node: str, host_vars: Mapping[str, Any]) -> tuple[Any, Any]:
    """Connect to a node with its own variables.

    Passwords of the command line are not used: the play context of an action plugin may have another host's instead.

    :param task: the task with neither loop nor delegation.
    :param play_context: the play context of the action plugin.
    :param host_vars: the node's entry in ``hostvars``, which replaces templates by their values.
    :returns: the connection and its play context.
    :raises AnsibleError: the connection plugin or the become plugin does not exist.
    """
    play_context = play_context.copy()
    play_context.remote_addr = host_vars.get("ansible_host", node)
    play_context.password = play_context.become_pass = ""
    kind = host_vars.get("ansible_connection", task.connection)
    shell = get_shell_plugin(host_vars.get("ansible_shell_type"), play_context.executable)
    connection = connection_loader.get(kind, play_context, shell=shell)
    if connection is None:
        raise AnsibleError(f"the connection plugin {kind!r} was not found")
    keywords = {name: getattr(task, name) for name in _KEYWORDS if getattr(task, name) is not None}
    _set_options(connection, "connection", kind, keywords, host_vars)
    _set_options(shell, "shell", shell.SHELL_FAMILY, keywords, host_vars)
    if boolean(host_vars.get("ansible_become", task.become or False)):
        method = host_vars.get("ansible_become_method", task.become_method)
        become = become_loader.get(method)
        if become is None:
            raise AnsibleError(f"the become plugin {method!r} was not found")
        _set_options(become, "become", method, keywords, host_vars)
        connection.set_become_plugin(become)
    return connection, play_context


def _set_options(
    plugin: Any, plugin_type: str, name: str, keywords: dict[str, Any], host_vars: Mapping[str, Any]
) -> None:
    variables = config.get_plugin_vars(plugin_type, name)
    plugin.set_options(
        task_keys=keywords, var_options={name: host_vars[name] for name in variables if name in host_vars}
    )
