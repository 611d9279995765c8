# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare timings that were taken in interleaved pairs, because the speed of a shared machine drifts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb


@dataclass(frozen=True)
class Ratio:
    """The median of the pairs' ratios and its 95 % confidence interval."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.3f} (95 %: {self.low:.3f} to {self.high:.3f}, {self.pairs} pairs)"


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Return the ratio of the first to the second timing of each pair.

    The interval consists of order statistics, as the sign test gives it: it assumes nothing about how timings are
    distributed. Raise ValueError for fewer than 6 pairs, which give no such interval.
    """
    ratios = sorted(numerator / denominator for numerator, denominator in zip(numerators, denominators, strict=True))
    if len(ratios) < 6:
        raise ValueError(f"{len(ratios)} pairs are too few for an interval; take 6 or more")
    below = _rank(len(ratios))
    return Ratio(statistics.median(ratios), ratios[below], ratios[-1 - below], len(ratios))


def _rank(count: int) -> int:
    """Return the largest rank whose value exceeds the true median with a probability of at most 2.5 %."""
    summed, rank = 0, -1
    while (summed + comb(count, rank + 1)) / 2**count <= 0.025:
        rank += 1
        summed += comb(count, rank)
    return rank
