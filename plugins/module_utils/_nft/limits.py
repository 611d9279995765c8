# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits of connections: the elements that count, and the flows that they do not count.

The kernel counts from the moment an element is made. One that is made anew, because its limit was edited or the table
was lost, does not count the flows that live then. These are subtracted from the limit until fewer are left.
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
"""The set of backends that are skipped, because they were full."""


FULL_TIMEOUT = 3
"""Seconds for which a full backend is skipped, unless one of its TCP flows ends before.

If it is still full after that, the next flow is dropped, because the kernel has counted it; its retry goes elsewhere.
Flows that end without a packet, by their time-out, make room only when this time has passed.
"""

HALF_OPEN_TIMEOUT = 3
"""Seconds after which a TCP flow under a limit is forgotten if its handshake does not go on.

A server repeats its SYN-ACK after 1, 3 and 7 s, so a SYN that is never acknowledged takes a place for 6 s.
"""

PICKED_UP_TIMEOUT = 5
"""Seconds for which a TCP flow under a limit that was picked up in mid-stream waits for its peer.

A flow that is forgotten while a segment is repeated is picked up again.
"""


@dataclass(frozen=True)
class Limit:
    """A limit of connections.

    :ivar name: its name in the runtime state.
    :ivar marks: the ids of the backends whose flows count.
    :ivar set_name: the set with the element that counts.
    :ivar key: the key of that element.
    """

    name: str
    maximum: int
    marks: tuple[int, ...]
    set_name: str
    key: Any


def backend_limit_name(mark: int) -> str:
    """Return the name of a backend's limit, which no listener can have."""
    return f"{mark:#010x}"


def listener_set_name(listener: str) -> str:
    """Return the name of the set that counts the flows of a listener."""
    return f"cap_{listener}"


def listener_key(listener: Listener) -> str:
    """Return the key of the element of that set: a property that all packets of the listener have."""
    return f"ipv{listener.family}"


def over(maximum: int, uncounted: int) -> Element:
    """Return the element that matches flows above a limit, less the flows that the kernel does not count."""
    return Element(f"ct count over {max(0, maximum - uncounted)}")


def uncounted(
    configuration: Configuration,
    live: LiveTable | None,
    before: Mapping[str, int],
    active: Callable[[], Mapping[int, int]],
) -> dict[str, int]:
    """Return the number of flows that the element of each limit does not count, now or once it is made.

    :param configuration: the effective configuration.
    :param live: the live table, if it is not replaced.
    :param before: the result of the last time.
    :param active: counts the active flows of each backend id. It is called only if a limit has uncounted flows.
    :returns: the number by the limit's name, without zeros.
    """
    numbers: dict[str, int] = {}
    flows: Mapping[int, int] | None = None
    for limit in _limits(configuration):
        known = before.get(limit.name, 0)
        is_kept = _is_there(limit, known, live)
        if is_kept and not known:
            continue
        flows = active() if flows is None else flows
        alive = sum(flows.get(mark, 0) for mark in limit.marks)
        # If at least as many live, all of the uncounted flows may be among them; else at most those that live.
        left = known if is_kept and alive >= known else alive
        if left:
            numbers[limit.name] = left
    return numbers


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


def _is_there(limit: Limit, known: int, live: LiveTable | None) -> bool:
    if live is None or limit.set_name not in live.sets:
        return False
    elements = live.sets[limit.set_name].elements
    return isinstance(elements, dict) and elements.get(limit.key) == over(limit.maximum, known)
