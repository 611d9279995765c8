# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits of connections: the elements that count, and the flows that they do not know.

The kernel counts from the moment an element is made. One that is made anew, because its limit was edited or the table
was lost, knows none of the flows that live then; these are taken off the limit, until fewer are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping

from .._config.identity import backend_ids
from .._config.model import Configuration, Listener
from .objects import Element, LiveTable

BACKENDS = "limit_backend"
"""The set that counts the flows of backends, by id."""

FULL = "full"
"""The set of backends that are passed over, because they have been found full."""


@dataclass(frozen=True)
class Limit:
    """A limit and what counts for it.

    :ivar name: what it is known by.
    :ivar marks: the ids of the backends whose flows count.
    :ivar set_name: the set whose element counts.
    :ivar key: that element.
    """

    name: str
    maximum: int
    marks: tuple[int, ...]
    set_name: str
    key: Any


def backend_limit_name(mark: int) -> str:
    """Return what the limit of a backend is known by; no listener is called so."""
    return f"{mark:#010x}"


def listener_set_name(listener: str) -> str:
    """Return the name of the set that counts the flows of a listener."""
    return f"cap_{listener}"


def listener_key(listener: Listener) -> str:
    """Return the element of that set: what all the listener's packets have."""
    return f"ipv{listener.family}"


def over(maximum: int, uncounted: int) -> Element:
    """Return an element that matches what is above a limit, when so many of its flows are not in the kernel's count."""
    return Element(f"ct count over {max(0, maximum - uncounted)}")


def uncounted(
    configuration: Configuration,
    found: LiveTable | None,
    before: Mapping[str, int],
    active: Callable[[], Mapping[int, int]],
) -> dict[str, int]:
    """Tell how many flows the element of each limit does not count, or will not once it is made; 0 is left out.

    :param found: the table, if it is kept.
    :param before: what this function told the last time.
    :param active: counts the flows of each id. Called where it matters.
    """
    told: dict[str, int] = {}
    flows: Mapping[int, int] | None = None
    for limit in _limits(configuration):
        known = before.get(limit.name, 0)
        is_kept = _is_there(limit, known, found)
        if is_kept and not known:
            continue
        flows = active() if flows is None else flows
        alive = sum(flows.get(mark, 0) for mark in limit.marks)
        # With as many alive as were there when counting began, nothing tells that one of those has ended.
        left = known if is_kept and alive >= known else alive
        if left:
            told[limit.name] = left
    return told


def _limits(configuration: Configuration) -> Iterator[Limit]:
    limited = [one for one in configuration.listeners_and_leaving if one.max_connections or one.is_limited]
    ids = backend_ids(configuration) if limited else {}
    for listener in limited:
        marks = tuple(ids[(listener.name, *backend.endpoint)] for backend in listener.backends)
        if listener.max_connections:
            set_name = listener_set_name(listener.name)
            yield Limit(listener.name, listener.max_connections, marks, set_name, listener_key(listener))
        for mark, backend in zip(marks, listener.backends):
            if backend.max_connections:
                yield Limit(backend_limit_name(mark), backend.max_connections, (mark,), BACKENDS, mark)


def _is_there(limit: Limit, known: int, found: LiveTable | None) -> bool:
    if found is None or limit.set_name not in found.sets:
        return False
    elements = found.sets[limit.set_name].elements
    return isinstance(elements, dict) and elements.get(limit.key) == over(limit.maximum, known)
