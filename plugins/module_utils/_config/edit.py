# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of a configuration as pure functions: the document before, what is asked for, the document after."""

from __future__ import annotations

from typing import Any, Callable

from .address import address_bytes, family
from .document import Document
from .options import BACKEND, LISTENER
from .rules import check_document
from .validation import Faults

Edit = Callable[[Document], Document]
"""Takes the configuration before and gives the one after, or raises :class:`InvalidInput`."""


def with_listeners(
    before: Document, items: list[dict[str, Any]], purge: str = "none", replaced: bool = False
) -> Document:
    """Put listeners in.

    :param items: listeners as :func:`parse_listeners` gives them; one with ``ignore`` is left alone.
    :param purge: what goes if it is not in the items: ``backends`` of the listeners named, ``listeners``, ``all``.
    :param replaced: an option that is not given gets its default instead of keeping its value.
    """
    after = dict(before)
    for item in items:
        name = item.get("name")
        if name is None or item.get("ignore"):
            continue
        after[name] = _merged_listener(before.get(name), item, purge in ("backends", "all"), replaced)
    if purge in ("listeners", "all"):
        named = {item.get("name") for item in items}
        after = {name: listener for name, listener in after.items() if name in named}
    return after


def without_listener(before: Document, name: str) -> Document:
    """Take a listener out; nothing happens if there is none."""
    return {key: listener for key, listener in before.items() if key != name}


def with_backend(before: Document, listeners: list[str], backend: dict[str, Any], faults: Faults) -> Document:
    """Put one registration into listeners.

    :param listeners: their names, or ``all`` alone: every listener of the backend's address family.
    :param faults: gets told of a listener that does not exist.
    """
    if "address" not in backend:
        return before
    if listeners == ["all"]:
        names = [name for name in before if family(before[name]["address"]) == family(backend["address"])]
    else:
        names = [name for name in listeners if name in before]
        for name in listeners:
            if name not in before:
                faults.add("listener", f"{name!r} is not a listener of this node; there are {sorted(before)}")
    return with_listeners(before, [{"name": name, "backends": [backend]} for name in names])


def without_backend(before: Document, listeners: list[str], backend: dict[str, Any]) -> Document:
    """Take one registration, by address and port, out of listeners; those without it stay as they are."""
    after = dict(before)
    if "address" not in backend:
        return after
    for name in before if listeners == ["all"] else before.keys() & set(listeners):
        kept = [
            found
            for found in before[name]["backends"]
            if (found["address"], found["port"]) != (backend["address"], backend["port"])
        ]
        after[name] = dict(before[name], backends=kept)
    return after


def checked(edit: Edit, faults: Faults) -> Edit:
    """Make an edit refuse a result that breaks a rule, together with the faults found in the input."""

    def edit_and_check(before: Document) -> Document:
        after = edit(before)
        check_document(after, before, faults)
        faults.refuse()
        return after

    return edit_and_check


def _merged_listener(
    before: dict[str, Any] | None, item: dict[str, Any], purge_backends: bool, replaced: bool
) -> dict[str, Any]:
    listener = _merged(before, item, LISTENER, replaced)
    live = {(backend["address"], backend["port"]): backend for backend in (before or {}).get("backends", ())}
    backends = {} if purge_backends and "backends" in item else dict(live)
    for backend in item.get("backends", ()):
        key = backend["address"], backend["port"]
        backends[key] = _merged(live.get(key), backend, BACKEND, replaced)
        backends[key]["name"] = backends[key]["name"] or backend["address"]
    listener["backends"] = sorted(
        backends.values(), key=lambda backend: (address_bytes(backend["address"]), backend["port"])
    )
    return listener


def _merged(
    before: dict[str, Any] | None, item: dict[str, Any], options: dict[str, Any], replaced: bool
) -> dict[str, Any]:
    kept = before if before and not replaced else {}
    return {name: item.get(name, kept.get(name, option.default)) for name, option in options.items()}
