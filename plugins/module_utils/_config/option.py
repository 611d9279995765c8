# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The description of an option, by which values are checked and completed, and argument specs are made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable


class InvalidValue(ValueError):
    """A value is not allowed. The text names the value and what is allowed, but not the option."""


@dataclass(frozen=True)
class Option:
    """The description of one option.

    :ivar type: ``str``, ``int``, ``float``, ``bool``, ``list`` or ``dict``, as in an argument spec.
    :ivar default: the value in a new listener or backend; ``None`` if there is none or it follows from other options.
    :ivar choices: the allowed values; empty if they are not limited to a list.
    :ivar hints: text that is appended to the error for certain wrong values, by value.
    :ivar bounds: the smallest and the largest allowed number.
    :ivar elements: the type of the elements of a list.
    :ivar options: the options of a dict. A value replaces the dict as a whole, so options that are left out get their
        defaults. If the default of the dict is ``None``, an empty dict means ``None``.
    :ivar required: whether a new listener or backend must have it.
    :ivar check: returns a value in its canonical form or raises :class:`InvalidValue`.
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
        """Return a value in its canonical form, in which it is stored and compared.

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

    def from_json(self, value: Any) -> Any:
        """Return the canonical form of a value from a file, which must have the option's own type.

        :raises InvalidValue: the value is not allowed, or it is a text where a number belongs, for example.
        """
        types, description = _JSON_TYPES[self.type]
        if not isinstance(value, types) or (isinstance(value, bool) and self.type != "bool"):
            raise InvalidValue(f"{shown(value)} is not {description}")
        return self.canonical(value)


_JSON_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "list": ((list,), "a list"),
    "dict": ((dict,), "a dictionary"),
}


def shown(value: Any) -> str:
    """Return a value as an error message shows it: a literal of at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


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
    """Return a text, or a whole number as text: YAML reads some texts as numbers.

    :raises InvalidValue: the value is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InvalidValue(f"{shown(value)} is not text")


def defaults(options: dict[str, Option]) -> dict[str, Any]:
    """Return the defaults of options."""
    return {name: option.default for name, option in options.items()}


def argument_spec(options: dict[str, Option]) -> dict[str, dict[str, Any]]:
    """Return an argument spec for options.

    It has no defaults, because an option that is not given keeps the value that it has on the node.
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
                # An empty dict is allowed, so Ansible cannot check what is required in others; the library does.
                for nested in entry["options"].values():
                    nested.pop("required", None)
        spec[name] = entry
    return spec
