# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Edits of a configuration: pure functions from the document before to the document after."""

from __future__ import annotations

from typing import Any, Callable

from .address import address_bytes, family
from .document import Document
from .options import BACKEND, LISTENER
from .rules import check_document
from .validation import Faults

Edit = Callable[[Document], Document]
"""Returns the configuration after from the one before, or raises :class:`InvalidInput`."""


def with_listeners(
    before: Document, items: list[dict[str, Any]], purge: str = "none", replaced: bool = False
) -> Document:
    """Add listeners or merge them with those that exist.

    :param items: listeners as :func:`parse_listeners` returns them. A listener with ``ignore`` is not changed.
    :param purge: what to remove if it is not in the items: ``none``, ``backends`` of the listeners in the items,
        ``listeners``, or ``all`` for both.
    :param replaced: whether an option that is not given gets its default instead of keeping its value.
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
    """Remove a listener, if it exists."""
    return {key: listener for key, listener in before.items() if key != name}


def with_backend(before: Document, listeners: list[str], backend: dict[str, Any], faults: Faults) -> Document:
    """Add one backend to listeners or merge it with the one that exists.

    :param listeners: names of listeners, or ``all`` alone for every listener of the backend's address family.
    :param faults: gets an error for each listener that does not exist.
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
    """Remove one backend, by its address and port, from the listeners that have it."""
    after = dict(before)
    if "address" not in backend:
        return after
    for name in before if listeners == ["all"] else before.keys() & set(listeners):
        kept = [
            other
            for other in before[name]["backends"]
            if (other["address"], other["port"]) != (backend["address"], backend["port"])
        ]
        after[name] = dict(before[name], backends=kept)
    return after


def checked(edit: Edit, faults: Faults) -> Edit:
    """Return an edit that raises all errors: those in the input, and the rules that the result breaks."""

    def edit_and_check(before: Document) -> Document:
        after = edit(before)
        check_document(after, before, faults)
        faults.raise_if_any()
        return after

    return edit_and_check


def _merged_listener(
    before: dict[str, Any] | None, item: dict[str, Any], purge_backends: bool, replaced: bool
) -> dict[str, Any]:
    listener = _merged(before, item, LISTENER, replaced)
    existing = {(backend["address"], backend["port"]): backend for backend in (before or {}).get("backends", ())}
    backends = {} if purge_backends and "backends" in item else dict(existing)
    for backend in item.get("backends", ()):
        key = backend["address"], backend["port"]
        backends[key] = _merged(existing.get(key), backend, BACKEND, replaced)
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
