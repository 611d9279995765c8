# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The health of a backend: its state, and how results of checks change it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional

from .._config.model import HealthCheck
from .._config.str_enum import StrEnum


class HealthState(StrEnum):
    """Whether a backend is usable by its check. It is initial until the first success or enough failures."""

    INITIAL = "initial"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    :ivar success: ``None`` if the check could not be made for a reason on the node itself, so that there is no result.
    :ivar message: the reason, for people: ``refused``, ``status 503, expected 200``.
    :ivar weight: the weight that the server asks for; ``None`` if it asks for none.
    """

    success: Optional[bool]
    message: str
    weight: int | None = None


@dataclass(frozen=True)
class Health:
    """The health of a backend.

    :ivar since: when it came into this state, in seconds since the epoch.
    :ivar streak: number of successive results that contradict the state.
    :ivar message: the reason given by the last result.
    :ivar weight: the weight that the server asked for last.
    """

    state: HealthState
    since: float
    streak: int = 0
    message: str = "not checked yet"
    weight: int | None = None

    def after(self, result: CheckResult, check: HealthCheck, now: float) -> Health:
        """Return the health after one more result.

        A new backend is healthy at its first success. Every other change of state takes as many successive results as
        the check's threshold says. Without a result only the message changes.
        """
        if result.success is None:
            return replace(self, message=result.message)
        updated = replace(self, message=result.message, weight=result.weight if result.success else self.weight)
        if self.state == (HealthState.HEALTHY if result.success else HealthState.UNHEALTHY):
            return replace(updated, streak=0)
        streak = self.streak + 1
        if result.success:
            state = HealthState.HEALTHY
            threshold = 1 if self.state == HealthState.INITIAL else check.healthy_threshold
        else:
            state, threshold = HealthState.UNHEALTHY, check.unhealthy_threshold
        if streak < threshold:
            return replace(updated, streak=streak)
        return replace(updated, state=state, since=now, streak=0)
