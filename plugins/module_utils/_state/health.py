# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What checks have told of a registration, and when it is healthy."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .._config.model import HealthCheck

INITIAL, HEALTHY, UNHEALTHY = "initial", "healthy", "unhealthy"


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    :ivar message: why, for people: ``refused``, ``status 503, wanted 200``.
    :ivar weight: the weight that the server asks for.
    """

    success: bool
    message: str
    weight: int | None = None


@dataclass(frozen=True)
class Health:
    """A registration's health.

    :ivar state: :data:`INITIAL` until the first success or enough failures.
    :ivar since: when it came into this state, in seconds since the epoch.
    :ivar streak: results in a row that speak against the state.
    :ivar message: the last result.
    :ivar weight: the weight that the server asked for last.
    """

    state: str
    since: float
    streak: int = 0
    message: str = "not checked yet"
    weight: int | None = None

    def after(self, result: CheckResult, check: HealthCheck, now: float) -> Health:
        """Return what it is after one more result.

        A new registration is healthy at its first success; everything else takes a threshold's results in a row.
        """
        known = replace(self, message=result.message, weight=result.weight if result.success else self.weight)
        if self.state == (HEALTHY if result.success else UNHEALTHY):
            return replace(known, streak=0)
        streak = self.streak + 1
        if result.success:
            state, needed = HEALTHY, 1 if self.state == INITIAL else check.healthy_threshold
        else:
            state, needed = UNHEALTHY, check.unhealthy_threshold
        if streak < needed:
            return replace(known, streak=streak)
        return replace(known, state=state, since=now, streak=0)
