# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may get a new flow. Everything that asks this asks here."""

from __future__ import annotations

from dataclasses import dataclass

from .._config.model import Backend, Listener
from .health import HEALTHY, INITIAL

PRIMARY, FAILOVER = "primary", "failover"


@dataclass(frozen=True)
class Selection:
    """The backends among which the scheduler may choose.

    :ivar backends: in the listener's order.
    :ivar pool: whose turn it is, :data:`PRIMARY` or :data:`FAILOVER`.
    :ivar is_fail_open: nobody is healthy, and they get flows all the same.
    """

    backends: tuple[Backend, ...]
    pool: str = PRIMARY
    is_fail_open: bool = False


def select(listener: Listener) -> Selection:
    """Choose who may get a new flow.

    With failover backends, the healthy primaries as long as enough of them are, else the healthy failovers, else the
    healthy primaries that there are. If nobody is healthy, all primaries, or nobody where the listener says so.
    """
    # Many ask, a listener never changes, and its hash would cost as much as the answer.
    known = vars(listener)
    if _SELECTION not in known:
        known[_SELECTION] = _select(listener)
    found: Selection = known[_SELECTION]
    return found


_SELECTION = "_selection"


def _select(listener: Listener) -> Selection:
    candidates = tuple(backend for backend in listener.backends if is_candidate(backend))
    primaries = tuple(backend for backend in candidates if not backend.failover)
    healthy = tuple(backend for backend in primaries if is_healthy(backend))
    standby = tuple(backend for backend in candidates if backend.failover and is_healthy(backend))
    # A ratio of thousandths times a count is off by less than this.
    enough = len(healthy) >= listener.failover_policy.failover_ratio * len(primaries) - 1e-6
    if healthy and (enough or not standby):
        return Selection(healthy)
    if standby:
        return Selection(standby, FAILOVER)
    if listener.failover_policy.drop_traffic_if_unhealthy:
        return Selection(())
    return Selection(primaries, is_fail_open=bool(primaries))


def is_candidate(backend: Backend) -> bool:
    """Tell whether a backend may be asked at all: it is in use, has a share, and something is known of it."""
    return backend.admin_state == "enabled" and backend.has_share and backend.health != INITIAL


def is_healthy(backend: Backend) -> bool:
    """Tell whether a backend is as good as its check says; one without a check is."""
    return backend.health in ("", HEALTHY)


def eligible(listener: Listener) -> tuple[Backend, ...]:
    """Return the backends among which the scheduler may choose, in the listener's order."""
    return select(listener).backends


def accepts(listener: Listener) -> bool:
    """Tell whether the listener takes new flows."""
    return listener.admin_state == "enabled" and bool(eligible(listener))


def drops(listener: Listener) -> bool:
    """Tell whether new flows get no answer; those of other listeners that do not take any are rejected."""
    return (
        listener.admin_state == "enabled"
        and listener.failover_policy.drop_traffic_if_unhealthy
        and any(is_candidate(backend) for backend in listener.backends)
        and not eligible(listener)
    )
