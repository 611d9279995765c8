# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all modules that change a node share: options, error messages and results."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Callable, Dict, NoReturn, Tuple

from ansible.module_utils.basic import AnsibleModule

from ._ansible_core import load_written_parameters
from ._config.edit import Edit
from ._config.option import argument_spec
from ._config.options import BACKEND, LISTENER
from ._config.rules import warnings
from ._config.validation import Faults
from ._errors import EvenflowError
from ._node.node import Node, Outcome
from ._system.store import DEFAULT_CONFIG_DIR

COMMANDS_LIMIT = 1 << 20
"""Number of characters of nft text that a module returns whole; long statements of a longer text are shortened."""

_STATEMENT_LIMIT = 512

Build = Callable[[Dict[str, Any]], Tuple[Edit, Faults]]
"""Turns a module's parameters into an edit of the configuration and the errors in the parameters."""


def common_spec() -> dict[str, dict[str, Any]]:
    """Return the options of every module that changes a node."""
    return {"fingerprint": {"type": "str"}, "config_dir": {"type": "path", "default": DEFAULT_CONFIG_DIR}}


def listener_spec() -> dict[str, dict[str, Any]]:
    """Return the options of a listener with its backends. Only a new listener needs more than its name."""
    spec = argument_spec(LISTENER)
    for name in spec.keys() - {"name"}:
        spec[name].pop("required", None)
    return {**spec, "backends": {"type": "list", "elements": "dict", "options": argument_spec(BACKEND)}}


class LbModule(AnsibleModule):  # type: ignore[misc]
    """A module that changes a node.

    Ansible's check of nested options reports one error, without the index of the list item. Where the library finds
    errors in the same input, the module reports those instead: all of them, with their paths.
    """

    def __init__(self, build: Build, argument_spec: dict[str, dict[str, Any]]) -> None:
        self._build = build
        self._is_checked = False
        super().__init__(argument_spec={**common_spec(), **argument_spec}, supports_check_mode=True)
        self._is_checked = True

    def fail_json(self, msg: str, **results: Any) -> NoReturn:
        """End the module with an error."""
        if not self._is_checked:
            # The values that Ansible could not convert are no longer among the module's parameters.
            written = load_written_parameters()
            msg = "; ".join(self._input_errors(written) if written is not None else ()) or msg
        super().fail_json(msg, **results)
        raise AssertionError("fail_json ends the module")

    def change(self, render: bool = False) -> NoReturn:
        """Make the change that the parameters ask for, or predict it in check mode, and end the module.

        :param render: return the commands for an empty node and change nothing.
        """
        edit = self.edit()
        node = Node(self.params["config_dir"])
        try:
            if render:
                outcome = node.render(edit)
            else:
                outcome = node.change(edit, self.check_mode, self.params["fingerprint"])
                if not self.check_mode:
                    node.end_flows(outcome)
        except EvenflowError as error:
            self.fail_json(msg=str(error))
        result = self.change_result(outcome)
        if render:
            result["changed"] = False
            result.pop("diff", None)
        self.exit_json(**result)
        raise AssertionError("exit_json ends the module")

    def edit(self) -> Edit:
        """Return the edit that the parameters ask for."""
        return self._build(self.params)[0]

    def change_result(self, outcome: Outcome) -> dict[str, Any]:
        """Return what every module returns for a change, and warn of options of the changed listeners."""
        for name in outcome.difference.listeners():
            for text in warnings(outcome.config_after[name]) if name in outcome.config_after else ():
                self.warn(text)
        for text in outcome.rejected:
            self.warn(text)
        result = _result(outcome)
        if self._diff:
            result["diff"] = _diff(outcome)
        return result

    def _input_errors(self, parameters: dict[str, Any]) -> list[str]:
        unknown = [
            f"{name}: unknown option; allowed: {', '.join(self.argument_spec)}"
            for name in parameters
            if name not in self.argument_spec and not name.startswith("_ansible_")
        ]
        return unknown + self._build(parameters)[1].errors


def _result(outcome: Outcome) -> dict[str, Any]:
    names = outcome.difference.listeners()
    return {
        "changed": outcome.changed,
        "before": [outcome.config_before[name] for name in names if name in outcome.config_before],
        "after": [outcome.config_after[name] for name in names if name in outcome.config_after],
        "fingerprint": outcome.fingerprint,
        "changes": asdict(outcome.difference),
        "commands": _commands(outcome),
    }


def _commands(outcome: Outcome) -> list[str]:
    statements = outcome.plan.transaction.lines()
    if sum(map(len, statements)) <= COMMANDS_LIMIT:
        return statements
    return [
        text if len(text) <= _STATEMENT_LIMIT else f"{text[:_STATEMENT_LIMIT]} … # {len(text)} characters"
        for text in statements
    ]


def _diff(outcome: Outcome) -> dict[str, Any]:
    names = outcome.difference.listeners()
    before: dict[str, Any] = {
        "listeners": {name: outcome.config_before[name] for name in names if name in outcome.config_before}
    }
    after: dict[str, Any] = {
        "listeners": {name: outcome.config_after[name] for name in names if name in outcome.config_after}
    }
    if outcome.plan and not outcome.difference:
        before["put_right"], after["put_right"] = [], _commands(outcome)
        for address in outcome.plan.add + outcome.plan.remove:
            (after if address in outcome.plan.add else before)["put_right"].append(
                f"{address.prefix} on {address.interface}"
            )
    return {"before": before, "after": after}
