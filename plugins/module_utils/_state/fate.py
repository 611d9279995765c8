# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of the flows that a backend has: one table, by what happens to the backend and what the flow is.

To keep is to do nothing. To move is to forget the flow, so that its next packet is scheduled anew. To end is to reset
both sides of a TCP flow at their next packets and to refuse others, and to forget the flow then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from .._config.model import Backend, Listener
from .eligibility import FAILOVER, PRIMARY, Selection, is_candidate, is_healthy, select
from .health import UNHEALTHY

KEEP, MOVE, END = "keep", "move", "end"

CLASSES = (
    "stream, persistent",
    "stream, not persistent",
    "stream, always persistent",
    "datagram",
    "datagram, always persistent",
)
"""Kinds of flows. Streams are TCP and SCTP, everything else is a datagram."""

_ALL_KEEP = (KEEP, KEEP, KEEP, KEEP, KEEP)

FATES: Mapping[str, tuple[str, ...]] = {
    "serving": _ALL_KEEP,
    "unhealthy, others healthy": (KEEP, MOVE, KEEP, MOVE, KEEP),
    "all unhealthy, fail open": _ALL_KEEP,
    "all unhealthy, drop": (KEEP, END, KEEP, END, KEEP),
    "weight 0": _ALL_KEEP,
    "draining": _ALL_KEEP,
    "draining, unhealthy": (KEEP, MOVE, KEEP, MOVE, KEEP),
    "drained": (END, END, END, MOVE, MOVE),
    "disabled": (END, END, END, MOVE, MOVE),
    "pool left": _ALL_KEEP,
    "pool left, past its time": (END, KEEP, KEEP, MOVE, KEEP),
    "pool left, not drained": (END, END, END, KEEP, KEEP),
}
"""Fate by situation and class."""


@dataclass(frozen=True)
class Fate:
    """What becomes of a backend's flows, by kind. A listener for one protocol has one kind."""

    stream: str = KEEP
    datagram: str = KEEP

    def __bool__(self) -> bool:
        return (self.stream, self.datagram) != (KEEP, KEEP)

    def having(self, wanted: str) -> str:
        """Return which flows have a fate: ``all``, ``stream``, ``datagram``, or none of them as empty text."""
        kinds = [kind for kind in ("stream", "datagram") if getattr(self, kind) == wanted]
        return "all" if len(kinds) == 2 else "".join(kinds)


def fates(listener: Listener) -> tuple[Fate, ...]:
    """Tell what becomes of the flows of each backend of a listener, as things stand.

    :returns: a fate for each, in their order. Where the listener has one kind of flow only, both kinds have the same.
    """
    selection = select(listener)
    situations = [situation(listener, backend, selection) for backend in listener.backends]
    found = {one: _fate(listener, one) for one in set(situations)}
    return tuple(found[one] for one in situations)


def situation(listener: Listener, backend: Backend, selection: Selection) -> str:
    """Say in what situation a backend is; a key of :data:`FATES`.

    :param selection: of the listener, as :func:`~._eligibility.select` gives it.
    """
    if backend.admin_state == "disabled":
        return "disabled"
    if backend.admin_state == "drained" or backend.is_leaving:
        if backend.is_drain_expired:
            return "drained"
        return "draining, unhealthy" if backend.health == UNHEALTHY else "draining"
    if not is_candidate(backend):
        return "weight 0"
    if not is_healthy(backend):
        if selection.is_fail_open:
            return "all unhealthy, fail open"
        return "unhealthy, others healthy" if selection.backends else "all unhealthy, drop"
    if pool_of(backend) == selection.pool:
        return "serving"
    if listener.failover_policy.disable_connection_drain_on_failover:
        return "pool left, not drained"
    return "pool left, past its time" if backend.is_drain_expired else "pool left"


def _fate(listener: Listener, found: str) -> Fate:
    by_class = dict(zip(CLASSES, FATES[found]))
    stream, datagram = by_class[_stream_class(listener)], by_class[_datagram_class(listener)]
    if listener.protocol in ("tcp", "sctp"):
        return Fate(stream, stream)
    if listener.protocol == "any":
        return Fate(stream, datagram)
    return Fate(datagram, datagram)


def pool_of(backend: Backend) -> str:
    """Return the pool that a backend is in."""
    return FAILOVER if backend.failover else PRIMARY


def _stream_class(listener: Listener) -> str:
    policy = listener.connection_persistence_on_unhealthy_backends
    if policy == "always_persist":
        return "stream, always persistent"
    is_coarse = listener.keeps_sessions and listener.session_affinity not in ("none", "client_ip_port_proto")
    return "stream, not persistent" if policy == "never_persist" or is_coarse else "stream, persistent"


def _datagram_class(listener: Listener) -> str:
    always = listener.connection_persistence_on_unhealthy_backends == "always_persist"
    return "datagram, always persistent" if always else "datagram"
