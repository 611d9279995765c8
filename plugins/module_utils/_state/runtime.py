# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node has learned and begun: health, drains, shares."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, Mapping

from .._config.str_enum import StrEnum
from .fate import BackendFate, Fate
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
    """Flows that are left to end by themselves for a while. Times in seconds since the epoch.

    :ivar deadline: ``None`` waits for as long as it takes.
    :ivar removed: the listener as it was, with this registration as its only backend, where the configuration no longer
        has the registration.
    """

    since: float
    deadline: float | None
    cause: DrainCause
    removed: Dict[str, Any] | None = None

    def is_expired(self, now: float) -> bool:
        """Tell whether its time is over."""
        return self.deadline is not None and self.deadline <= now


@dataclass(frozen=True)
class Runtime:
    """What a node has learned and begun. Registrations are named by :func:`~.._config.model.backend_key`.

    :ivar shares: what was last dealt to the listeners with lc and wlc.
    :ivar uncounted: flows that a limit's element does not count, by the limit's name.
    :ivar health: by registration; only those that are checked.
    :ivar drains: by registration.
    :ivar expired: registrations whose drain is over.
    :ivar failed_over: listeners whose failover pool has the flows.
    :ivar joined: when a registration that rises to its share began, by registration.
    :ivar ramps: the steps that it has risen, by registration.
    :ivar ending: when the entries of flows that end are to go, by backend id.
    :ivar completed_fates: fates that have been carried out, by backend id.
    """

    shares: Shares = field(default_factory=dict)
    uncounted: Mapping[str, int] = field(default_factory=dict)
    health: Mapping[str, Health] = field(default_factory=dict)
    drains: Mapping[str, Drain] = field(default_factory=dict)
    expired: frozenset[str] = frozenset()
    failed_over: frozenset[str] = frozenset()
    joined: Mapping[str, float] = field(default_factory=dict)
    ramps: Mapping[str, int] = field(default_factory=dict)
    ending: Mapping[int, float] = field(default_factory=dict)
    completed_fates: Mapping[int, BackendFate] = field(default_factory=dict)

    @classmethod
    def from_json(cls, found: Any) -> Runtime:
        """Read what :meth:`as_json` gave; anything else is nothing learned."""
        try:
            found = {**_NOTHING, **found}
            return cls(
                {name: {int(mark): int(slots[mark]) for mark in slots} for name, slots in found["shares"].items()},
                {name: int(flows) for name, flows in found["uncounted"].items()},
                {name: Health.from_json(one) for name, one in found["health"].items()},
                {name: Drain(one[0], one[1], DrainCause(one[2]), one[3]) for name, one in found["drains"].items()},
                frozenset(found["past"]),
                frozenset(found["standby"]),
                {name: float(since) for name, since in found["joined"].items()},
                {name: int(step) for name, step in found["ramps"].items()},
                {int(mark): float(when) for mark, when in found["ending"].items()},
                {int(mark): BackendFate(*map(Fate, one)) for mark, one in found["settled"].items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "shares": {name: {str(mark): slots[mark] for mark in slots} for name, slots in self.shares.items()},
            "uncounted": dict(self.uncounted),
            "health": {name: one.as_json() for name, one in self.health.items()},
            "drains": {name: [one.since, one.deadline, one.cause, one.removed] for name, one in self.drains.items()},
            "past": sorted(self.expired),
            "standby": sorted(self.failed_over),
            "joined": dict(self.joined),
            "ramps": dict(self.ramps),
            "ending": {str(mark): when for mark, when in self.ending.items()},
            "settled": {str(mark): [one.stream, one.datagram] for mark, one in self.completed_fates.items()},
        }

    @property
    def visible_in_kernel(self) -> dict[str, Any]:
        """What of it shows in the kernel, as JSON can hold it."""
        found = replace(self, health={}, drains={}).as_json()
        return {
            **{name: found[name] for name in ("shares", "uncounted", "past", "ramps")},
            "health": {name: [one.state, one.weight] for name, one in self.health.items()},
            "removed": {name: [one.cause, one.removed] for name, one in self.drains.items() if one.removed},
            "ending": sorted(self.ending),
        }

    @property
    def across_reboot(self) -> Runtime:
        """What of it holds after a reboot too."""
        return replace(self, shares={}, uncounted={}, ending={})


_NOTHING = Runtime().as_json()

EMPTY_RUNTIME = Runtime()
"""What a node knows at first."""
