# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which backends may get a new flow. Everything that needs to know asks here."""

from __future__ import annotations

from dataclasses import dataclass

from .._config.model import Backend, Listener
from .._config.str_enum import StrEnum
from .health import HealthState


class Pool(StrEnum):
    """The two groups of a listener's backends."""

    PRIMARY = "primary"
    FAILOVER = "failover"


# Thousands of backends are compared with these: looking a member up in its class takes longer than the comparison.
_INITIAL = HealthState.INITIAL
_USABLE = ("", HealthState.HEALTHY)


@dataclass(frozen=True)
class Selection:
    """The eligible backends of a listener.

    :ivar backends: the backends among which the scheduler may choose, in the listener's order.
    :ivar pool: the pool that gets new flows.
    :ivar is_fail_open: whether no backend is healthy and the primary ones get flows all the same.
    """

    backends: tuple[Backend, ...]
    pool: Pool = Pool.PRIMARY
    is_fail_open: bool = False


def select(listener: Listener) -> Selection:
    """Return the backends that may get a new flow.

    With failover backends these are the healthy primaries as long as enough of them are healthy, else the healthy
    failovers, else the healthy primaries that are left. If no backend is healthy, these are all primaries, or none
    with ``drop_traffic_if_unhealthy``. The source is docs/behaviour.md, "Selection".

    :param listener: the effective listener.
    """
    candidates = tuple(backend for backend in listener.backends if is_candidate(backend))
    primaries = tuple(backend for backend in candidates if not backend.failover)
    healthy = tuple(backend for backend in primaries if is_healthy(backend))
    standby = tuple(backend for backend in candidates if backend.failover and is_healthy(backend))
    # Tolerance for rounding: ratios have six decimals.
    is_enough = len(healthy) >= listener.failover_policy.failover_ratio * len(primaries) - 1e-6
    if healthy and (is_enough or not standby):
        return Selection(healthy)
    if standby:
        return Selection(standby, Pool.FAILOVER)
    if listener.failover_policy.drop_traffic_if_unhealthy:
        return Selection(())
    return Selection(primaries, is_fail_open=bool(primaries))


def is_candidate(backend: Backend) -> bool:
    """Return whether a backend can be eligible: it is enabled, has a share and has left the initial state."""
    return backend.admin_state == "enabled" and backend.has_share and backend.health != _INITIAL


def is_healthy(backend: Backend) -> bool:
    """Return whether a backend is healthy by its check; a backend without a check is."""
    return backend.health in _USABLE


def pool_of(backend: Backend) -> Pool:
    """Return the pool that a backend belongs to."""
    return Pool.FAILOVER if backend.failover else Pool.PRIMARY


def accepts(listener: Listener, selection: Selection) -> bool:
    """Return whether a listener takes new flows.

    :param selection: what :func:`select` returns for the listener.
    """
    return listener.admin_state == "enabled" and bool(selection.backends)


def drops(listener: Listener, selection: Selection) -> bool:
    """Return whether new flows of a listener get no answer, instead of being rejected.

    :param selection: what :func:`select` returns for the listener.
    """
    return (
        listener.admin_state == "enabled"
        and listener.failover_policy.drop_traffic_if_unhealthy
        and any(is_candidate(backend) for backend in listener.backends)
        and not selection.backends
    )
