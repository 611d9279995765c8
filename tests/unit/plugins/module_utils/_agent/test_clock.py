# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests that a clock which is set back is noticed, and nothing else is."""

from __future__ import annotations

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.clock import Clock


class Times:
    """Two clocks that the test sets.

    :ivar pauses: what passes before each of the next readings of the steady clock.
    """

    def __init__(self) -> None:
        self.offset, self.now = 1000.0, 0.0
        self.pauses: list[float] = []

    def wall(self) -> float:
        return self.offset + self.now

    def steady(self) -> float:
        if self.pauses:
            self.now += self.pauses.pop(0)
        return self.now


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([0], [0]),
        ([-3600, 0], [3600, 0]),
        ([3600, 0], [0, 0]),
        ([3600, -3600], [0, 3600]),
        ([-0.2, -0.2, -0.2, 0], [0, 0, 0.6, 0]),
        ([-0.2, 0.2, -0.2, -0.2], [0, 0, 0, 0]),
    ],
)
def test_steps(steps: list[float], expected: list[float]) -> None:
    times = Times()
    clock = Clock(times.wall, times.steady)
    seen = []
    for step in steps:
        times.now += 10
        times.offset += step
        seen.append(clock.take_set_back())
    assert seen == pytest.approx(expected)


@pytest.mark.parametrize("pauses", [[0, 7], [7, 0]])
def test_a_comparison_that_is_interrupted_is_no_step(pauses: list[float]) -> None:
    times = Times()
    clock = Clock(times.wall, times.steady)
    times.pauses = pauses
    assert clock.take_set_back() == 0
    times.offset -= 60
    assert clock.take_set_back() == pytest.approx(60)
