# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shares for lc and wlc: nftables has no least-connection scheduler, so slots are dealt anew at each tick.

The flows that are expected until the next tick are poured like water onto levels of different height, where a backend's
level is its number of active flows divided by its weight: the lowest levels are filled first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from .scheduler import apportion

TICK = 0.25
"""Seconds between two deals."""

CAP = 2.0
"""A backend gets at most this multiple of its fair share, so that one that has just joined is not flooded."""

_MEMORY = 0.7
"""The part of the old estimate of arrivals that remains at a tick."""

_PARTS = 1000000
_HALVINGS = 60


@dataclass(frozen=True)
class Arrivals:
    """An estimate of the flows that arrive in a tick: an exponentially weighted mean of those that arrived."""

    per_tick: float = 0.0

    def after(self, arrived: int) -> Arrivals:
        """Return the estimate after one more tick.

        :param arrived: number of flows that arrived in it.
        """
        return Arrivals(_MEMORY * self.per_tick + (1 - _MEMORY) * max(arrived, 0))


def deal(weights: Mapping[int, int], active: Mapping[int, int], arrivals: float, size: int) -> dict[int, int]:
    """Divide the slots of a table among backends.

    :param weights: weight by backend id, each above 0.
    :param active: active flows by id; an id that is missing has none.
    :param arrivals: number of flows expected until the next tick; less than one counts as one.
    :param size: number of slots.
    :returns: slots by id, ``size`` in sum; 0 for ids whose level is too high.
    """
    total = sum(weights.values())
    expected = max(arrivals, 1.0)
    caps = {key: expected * min(1.0, CAP * weight / total) for key, weight in weights.items()}
    levels = {key: active.get(key, 0) / weight for key, weight in weights.items()}

    def poured(level: float) -> dict[int, float]:
        return {key: min(max((level - levels[key]) * weight, 0.0), caps[key]) for key, weight in weights.items()}

    low, high = min(levels.values()), max(levels[key] + expected / weight for key, weight in weights.items())
    for _turn in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(poured(middle).values()) < expected:
            low = middle
        else:
            high = middle
    shares = {key: round(share / expected * _PARTS) for key, share in poured(high).items()}
    chosen = [key for key, share in shares.items() if share]
    slots = dict(zip(chosen, apportion([shares[key] for key in chosen], size)))
    return {key: slots.get(key, 0) for key in weights}
