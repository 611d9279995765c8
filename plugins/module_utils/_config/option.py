# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The type of an option: how a value is checked, completed and described to Ansible."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable


class InvalidValue(ValueError):
    """A value breaks its option's rule; the text says what is allowed, without the path."""


@dataclass(frozen=True)
class Option:
    """One option.

    :ivar type: ``str``, ``int``, ``float``, ``bool``, ``list`` or ``dict``, in the sense of an argument spec.
    :ivar default: the value in a new listener or backend; ``None`` where it is required or derived.
    :ivar choices: the allowed words; empty where there is no such list.
    :ivar hints: what to add to the refusal of a word that is a likely mistake.
    :ivar bounds: smallest and largest allowed number.
    :ivar elements: type of a list's elements.
    :ivar options: options of a dict; given as a whole, what is left out has its default. Where the default of the
        dict is ``None``, an empty one means that.
    :ivar required: a new listener or backend cannot be without it.
    :ivar check: brings a value into its canonical form or raises :class:`InvalidValue`.
    """

    type: str
    default: Any = None
    choices: tuple[str, ...] = ()
    hints: dict[str, str] = field(default_factory=dict)
    bounds: tuple[int, int] | None = None
    elements: str | None = None
    options: dict[str, Option] = field(default_factory=dict)
    required: bool = False
    check: Callable[[Any], Any] | None = None

    def canonical(self, value: Any) -> Any:
        """Return the value in the one form in which it is stored and compared.

        :raises InvalidValue: the value is not allowed.
        """
        if self.type == "int":
            value = _integer(value)
            if self.bounds and not self.bounds[0] <= value <= self.bounds[1]:
                raise InvalidValue(f"{value} is not in {self.bounds[0]}–{self.bounds[1]}")
        elif self.type == "str":
            value = text_of(value)
            if self.choices and value not in self.choices:
                raise InvalidValue(f"{value!r} is not one of {', '.join(self.choices)}{self.hints.get(value, '')}")
        elif self.type == "float":
            value = _number(value)
        elif self.type == "bool":
            value = _truth(value)
        elif self.type == "dict":
            if not isinstance(value, dict):
                raise InvalidValue(f"{shown(value)} is not a dictionary")
        elif not isinstance(value, list):
            raise InvalidValue(f"{shown(value)} is not a list")
        return self.check(value) if self.check else value


def shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,12}", value, re.ASCII):
        return int(value)
    raise InvalidValue(f"{shown(value)} is not a whole number")


def _number(value: Any) -> float:
    if not isinstance(value, bool):
        try:
            return float(value)
        except (OverflowError, TypeError, ValueError):
            pass
    raise InvalidValue(f"{shown(value)} is not a number")


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if str(value).lower() in words:
        return words[str(value).lower()]
    raise InvalidValue(f"{shown(value)} is not true or false")


def text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InvalidValue(f"{shown(value)} is not text")


def defaults(options: dict[str, Option]) -> dict[str, Any]:
    """Return the value of each option that is not given."""
    return {name: option.default for name, option in options.items()}


def argument_spec(options: dict[str, Option]) -> dict[str, dict[str, Any]]:
    """Describe options to Ansible.

    Defaults are left out: an option that a task does not name keeps its live value.
    """
    spec: dict[str, dict[str, Any]] = {}
    for name, option in options.items():
        entry: dict[str, Any] = {"type": option.type}
        if option.choices:
            entry["choices"] = list(option.choices)
        if option.elements:
            entry["elements"] = option.elements
        if option.required:
            entry["required"] = True
        if option.options:
            entry["options"] = argument_spec(option.options)
            if option.default is None:
                # An empty dict is allowed, so the library tells what is missing in another.
                for nested in entry["options"].values():
                    nested.pop("required", None)
        spec[name] = entry
    return spec
