# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a change does to a configuration: the one source of ``changed``, ``changes`` and ``diff``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .document import Document


@dataclass
class Difference:
    """Two configurations compared.

    :ivar added: listeners and registrations that come.
    :ivar removed: those that go.
    :ivar modified: options that get another value.
    """

    added: list[dict[str, Any]] = field(default_factory=list)
    removed: list[dict[str, Any]] = field(default_factory=list)
    modified: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.modified)

    def listeners(self) -> list[str]:
        """Return the names of the listeners concerned, sorted."""
        return sorted({entry["listener"] for entry in self.added + self.removed + self.modified})


def difference(before: Document, after: Document) -> Difference:
    """Compare two configurations; a registration is known by its address and port."""
    found = Difference()
    for name in sorted(before.keys() | after.keys()):
        place = {"listener": name}
        if name not in before:
            found.added.append(place)
        elif name not in after:
            found.removed.append(place)
        elif before[name] != after[name]:
            _modified(found, place, before[name], after[name])
            _backends(found, place, before[name]["backends"], after[name]["backends"])
    return found


def _backends(
    found: Difference, place: dict[str, Any], before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    old = {(backend["address"], backend["port"]): backend for backend in before}
    new = {(backend["address"], backend["port"]): backend for backend in after}
    for key in sorted(old.keys() | new.keys()):
        inside = dict(place, address=key[0], port=key[1])
        if key not in old:
            found.added.append(inside)
        elif key not in new:
            found.removed.append(inside)
        else:
            _modified(found, inside, old[key], new[key])


def _modified(found: Difference, place: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> None:
    for option, value in after.items():
        if option != "backends" and before.get(option) != value:
            found.modified.append(dict(place, option=option, before=before.get(option), after=value))
