# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Validation of input: all errors are collected, each with the path of its option."""

from __future__ import annotations

from typing import Any, Iterable

from .._errors import InvalidInput
from .option import InvalidValue, Option, defaults
from .options import BACKEND, DRAIN, LISTENER


class Faults:
    """The errors in a user's input, and the paths by which the user wrote listeners and backends."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._prefixes: dict[tuple[Any, ...], str] = {}

    def add(self, path: str, text: str) -> None:
        """Add an error of the option with this path."""
        self.errors.append(f"{path}: {text}")

    def record_prefix(self, prefix: str, *identity: Any) -> None:
        """Record what precedes the options of a listener (name) or a backend (name, address, port) in paths."""
        self._prefixes[identity] = prefix

    def prefix(self, name: str, *key: Any) -> str:
        """Return what precedes the options of a listener or backend in paths: its place in the input, or its name."""
        if (name, *key) in self._prefixes:
            return self._prefixes[(name, *key)]
        if key:
            return f"{self.prefix(name)}backend {key[0]} port {key[1]}."
        return f"listener {name}."

    def mentions(self, name: str) -> bool:
        """Return whether the listener is in the input."""
        return (name,) in self._prefixes

    def has_error(self, path: str) -> bool:
        """Return whether the option or an item in it has an error."""
        return any(error.startswith((f"{path}:", f"{path}[")) for error in self.errors)

    def raise_if_any(self) -> None:
        """Raise the errors.

        :raises InvalidInput: there is an error.
        """
        if self.errors:
            raise InvalidInput(self.errors)


def parse_listeners(items: Any, faults: Faults, path: str = "listeners") -> list[dict[str, Any]]:
    """Validate a list of listeners as a user wrote it.

    :returns: the listeners in canonical form, with only those options that were given and are valid.
    """
    parsed: list[dict[str, Any]] = []
    seen: set[str] = set()
    for index, item in enumerate(_list(items, path, faults)):
        place = f"{path}[{index}]"
        listener = parse_listener(item, faults, f"{place}.", ("ignore",))
        name = listener.get("name")
        if name in seen:
            faults.add(f"{place}.name", f"{name!r} is listed twice")
        elif name is not None:
            seen.add(name)
        parsed.append(listener)
    return parsed


def parse_listener(item: Any, faults: Faults, prefix: str = "", extra: Iterable[str] = ()) -> dict[str, Any]:
    """Validate one listener as a user wrote it.

    :param prefix: what precedes the names of options in error messages.
    :param extra: names of further options, whose values are returned unchanged.
    """
    listener = _parse(item, LISTENER, faults, prefix, ("backends", *extra))
    name = listener.get("name")
    if name is not None:
        faults.record_prefix(prefix, name)
    elif isinstance(item, dict) and not faults.has_error(f"{prefix}name"):
        faults.add(f"{prefix}name", "required")
    if "backends" in listener:
        listener["backends"] = _parse_backends(listener["backends"], faults, f"{prefix}backends", name)
    return listener


def _parse_backends(items: Any, faults: Faults, path: str, listener: str | None) -> list[dict[str, Any]]:
    parsed: list[dict[str, Any]] = []
    seen: set[tuple[str, int]] = set()
    for index, item in enumerate(_list(items, path, faults)):
        place = f"{path}[{index}]"
        backend = parse_backend(item, faults, f"{place}.", listener)
        if "address" not in backend or faults.has_error(f"{place}.port"):
            continue
        key = backend["address"], backend["port"]
        if key in seen:
            faults.add(place, f"{key[0]} port {key[1]} is listed twice")
        seen.add(key)
        parsed.append(backend)
    return parsed


def parse_backend(item: Any, faults: Faults, prefix: str = "", listener: str | None = None) -> dict[str, Any]:
    """Validate one backend as a user wrote it.

    :param listener: the name of the backend's listener, for errors that concern both.
    :returns: the options that were given and are valid, and always the port.
    """
    backend = _parse(item, BACKEND, faults, prefix)
    backend.setdefault("port", BACKEND["port"].default)
    if "address" in backend:
        faults.record_prefix(prefix, listener, backend["address"], backend["port"])
    elif isinstance(item, dict) and not faults.has_error(f"{prefix}address"):
        faults.add(f"{prefix}address", "required")
    return backend


def parse_drain(params: dict[str, Any], faults: Faults) -> dict[str, Any]:
    """Validate the options of a drain as a user wrote them.

    :returns: all options. Those that are not given or not valid have their defaults.
    """
    given: dict[str, Any] = {}
    for name, option in DRAIN.items():
        value = params.get(name)
        # Ansible splits a text where it expects a list.
        given[name] = value.split(",") if option.type == "list" and isinstance(value, str) else value
    parsed = _parse(given, DRAIN, faults, "")
    if "backends" not in parsed and not faults.has_error("backends"):
        faults.add("backends", "required")
    return {**defaults(DRAIN), **parsed}


def _parse(
    item: Any, options: dict[str, Option], faults: Faults, prefix: str, extra: Iterable[str] = ()
) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    if not isinstance(item, dict):
        faults.add(prefix.rstrip("."), f"{item!r} is not a dictionary")
        return parsed
    for name, value in item.items():
        if name in extra:
            if value is not None:
                parsed[name] = value
        elif name not in options:
            faults.add(f"{prefix}{name}", f"unknown option; allowed: {', '.join([*options, *extra])}")
        elif value is not None:
            try:
                parsed[name] = options[name].canonical(value)
            except InvalidValue as error:
                faults.add(f"{prefix}{name}", str(error))
            else:
                if options[name].options:
                    parsed[name] = _parse_whole(value, options[name], faults, f"{prefix}{name}.")
    return parsed


def _parse_whole(value: dict[str, Any], option: Option, faults: Faults, prefix: str) -> dict[str, Any] | None:
    if option.default is None and all(item is None for item in value.values()):
        return None
    given = _parse(value, option.options, faults, prefix)
    for name, rule in option.options.items():
        if rule.required and name not in given and not faults.has_error(f"{prefix}{name}"):
            faults.add(f"{prefix}{name}", f"required{_choices(rule)}")
    return {**defaults(option.options), **given}


def _choices(option: Option) -> str:
    return f"; one of {', '.join(option.choices)}" if option.choices else ""


def _list(items: Any, path: str, faults: Faults) -> list[Any]:
    if isinstance(items, list):
        return items
    if items is None:
        faults.add(path, "required")
        return []
    faults.add(path, f"{items!r} is not a list")
    return []
