# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runtime state of a node: the health of its backends, their drains, shares and slow starts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, Mapping

from .._config.str_enum import StrEnum
from .fate import BackendFate
from .health import Health

RAMP_STEPS = 20
"""In how many steps a backend that joins rises to its share."""

Shares = Mapping[str, Mapping[int, int]]
"""Slots by backend id, by the name of a listener."""


class DrainCause(StrEnum):
    """Why a backend drains. It is gone when it was removed and its flows have ended."""

    DRAINED = "drained"
    REMOVED = "removed"
    GONE = "gone"
    POOL_LEFT = "pool left"


@dataclass(frozen=True)
class Drain:
    """The drain of a backend, whose flows end by themselves until a deadline. Times in seconds since the epoch.

    :ivar deadline: ``None`` without one.
    :ivar removed: the listener as it was, with this backend as its only one, where the configuration no longer has the
        backend.
    """

    since: float
    deadline: float | None
    cause: DrainCause
    removed: Dict[str, Any] | None = None

    def is_expired(self, now: float) -> bool:
        """Return whether the deadline has passed."""
        return self.deadline is not None and self.deadline <= now


@dataclass(frozen=True)
class Runtime:
    """The runtime state of a node. Backends are named by :func:`~.._config.model.backend_key_of`.

    :ivar shares: the shares last dealt to the listeners with lc and wlc.
    :ivar uncounted: number of flows that a limit's element does not count, by the limit's name.
    :ivar dealt: how the agent deals the places of a limit, by the limit's name.
    :ivar health: of the backends that are checked.
    :ivar drains: by backend.
    :ivar expired: backends whose drain has passed its deadline.
    :ivar failed_over: listeners whose failover pool has the flows.
    :ivar joined: when a backend began to rise to its share.
    :ivar ramps: the step to which a backend has risen.
    :ivar ending: when the conntrack entries of flows that end are to be deleted, by backend id.
    :ivar completed_fates: fates that have been carried out, by backend id.
    """

    shares: Shares = field(default_factory=dict)
    uncounted: Mapping[str, int] = field(default_factory=dict)
    dealt: Mapping[str, str] = field(default_factory=dict)
    health: Mapping[str, Health] = field(default_factory=dict)
    drains: Mapping[str, Drain] = field(default_factory=dict)
    expired: frozenset[str] = frozenset()
    failed_over: frozenset[str] = frozenset()
    joined: Mapping[str, float] = field(default_factory=dict)
    ramps: Mapping[str, int] = field(default_factory=dict)
    ending: Mapping[int, float] = field(default_factory=dict)
    completed_fates: Mapping[int, BackendFate] = field(default_factory=dict)

    @property
    def visible_in_kernel(self) -> dict[str, Any]:
        """The parts of the state that the kernel's table follows from, as JSON can hold them."""
        return {
            "shares": {name: {str(mark): slots[mark] for mark in slots} for name, slots in self.shares.items()},
            "uncounted": dict(self.uncounted),
            "dealt": dict(self.dealt),
            "expired": sorted(self.expired),
            "ramps": dict(self.ramps),
            "health": {name: [health.state, health.weight] for name, health in self.health.items()},
            "removed": {name: [drain.cause, drain.removed] for name, drain in self.drains.items() if drain.removed},
            "ending": sorted(self.ending),
        }

    @property
    def across_reboot(self) -> Runtime:
        """The parts of the state that still hold after a reboot."""
        return replace(self, shares={}, uncounted={}, dealt={}, ending={})


EMPTY_RUNTIME = Runtime()
"""The state of a node on which nothing has happened yet."""


def with_clock_set_back(runtime: Runtime, known: Runtime, seconds: float) -> Runtime:
    """Return a runtime state whose times have moved with a clock that was set back, so that nothing takes longer.

    :param known: the state before that; only times that it has too move. Later ones are of the new clock.
    """
    drains = {
        key: replace(
            drain,
            since=drain.since - seconds,
            deadline=None if drain.deadline is None else drain.deadline - seconds,
        )
        if key in known.drains and _times(known.drains[key]) == _times(drain)
        else drain
        for key, drain in runtime.drains.items()
    }
    joined = {
        key: since - seconds if known.joined.get(key) == since else since for key, since in runtime.joined.items()
    }
    ending = {
        backend_id: due - seconds if known.ending.get(backend_id) == due else due
        for backend_id, due in runtime.ending.items()
    }
    return replace(runtime, drains=drains, joined=joined, ending=ending)


def _times(drain: Drain) -> tuple[float, float | None]:
    return drain.since, drain.deadline
