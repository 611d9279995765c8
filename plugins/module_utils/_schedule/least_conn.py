# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Least connections without a kernel that knows them: shares for the next tick, from the flows counted at this one.

Expected arrivals are poured like water onto levels of different height, a backend's level being its active flows for
its weight: those that lie lowest are filled first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from .scheduler import apportion

TICK = 0.25
"""Seconds between two deals."""

CAP = 2.0
"""No backend gets more than this multiple of its fair share, so that one that has just joined is not flooded."""

_MEMORY = 0.7
"""How much of the old estimate of arrivals stays at a tick."""

_PARTS = 1000000
_HALVINGS = 60


@dataclass(frozen=True)
class Arrivals:
    """An estimate of the flows that come in a tick: an exponentially weighted mean of those that came."""

    per_tick: float = 0.0

    def after(self, came: int) -> Arrivals:
        """Return the estimate after a tick in which so many came."""
        return Arrivals(_MEMORY * self.per_tick + (1 - _MEMORY) * max(came, 0))


def deal(weights: Mapping[int, int], active: Mapping[int, int], arrivals: float, size: int) -> dict[int, int]:
    """Deal the slots of a table.

    :param weights: weight by backend id, each above 0.
    :param active: active flows by id; those that are not there have none.
    :param arrivals: flows expected until the next deal. Below one, one is expected.
    :param size: number of slots.
    :returns: slots by id, ``size`` in sum, 0 for those that lie too high.
    """
    total = sum(weights.values())
    expected = max(arrivals, 1.0)
    caps = {one: expected * min(1.0, CAP * weight / total) for one, weight in weights.items()}
    levels = {one: active.get(one, 0) / weight for one, weight in weights.items()}

    def poured(level: float) -> dict[int, float]:
        return {one: min(max((level - levels[one]) * weight, 0.0), caps[one]) for one, weight in weights.items()}

    low, high = min(levels.values()), max(levels[one] + expected / weight for one, weight in weights.items())
    for _turn in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(poured(middle).values()) < expected:
            low = middle
        else:
            high = middle
    shares = {one: round(share / expected * _PARTS) for one, share in poured(high).items()}
    chosen = [one for one, share in shares.items() if share]
    slots = dict(zip(chosen, apportion([shares[one] for one in chosen], size)))
    return {one: slots.get(one, 0) for one in weights}
