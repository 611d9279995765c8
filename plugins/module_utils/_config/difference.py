# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The difference between two configurations, from which ``changed``, ``changes`` and ``diff`` are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .document import Document


@dataclass
class Difference:
    """The difference between two configurations.

    :ivar added: listeners, and backends of listeners that are in both configurations.
    :ivar removed: the same, for those that are only in the first configuration.
    :ivar modified: options whose values differ.
    """

    added: list[dict[str, Any]] = field(default_factory=list)
    removed: list[dict[str, Any]] = field(default_factory=list)
    modified: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.modified)

    def listeners(self) -> list[str]:
        """Return the names of the listeners that differ, sorted."""
        return sorted({entry["listener"] for entry in self.added + self.removed + self.modified})


def difference(before: Document, after: Document) -> Difference:
    """Compare two configurations. A backend is identified by its address and port."""
    result = Difference()
    for name in sorted(before.keys() | after.keys()):
        place = {"listener": name}
        if name not in before:
            result.added.append(place)
        elif name not in after:
            result.removed.append(place)
        elif before[name] != after[name]:
            _modified(result, place, before[name], after[name])
            _backends(result, place, before[name]["backends"], after[name]["backends"])
    return result


def _backends(
    result: Difference, place: dict[str, Any], before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    old = {(backend["address"], backend["port"]): backend for backend in before}
    new = {(backend["address"], backend["port"]): backend for backend in after}
    for key in sorted(old.keys() | new.keys()):
        inner_place = dict(place, address=key[0], port=key[1])
        if key not in old:
            result.added.append(inner_place)
        elif key not in new:
            result.removed.append(inner_place)
        else:
            _modified(result, inner_place, old[key], new[key])


def _modified(result: Difference, place: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> None:
    for option, value in after.items():
        if option != "backends" and before.get(option) != value:
            result.modified.append(dict(place, option=option, before=before.get(option), after=value))
