# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of shares by load: their bounds, and how close they are to choosing the least connections for every flow."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from typing import Callable

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._schedule.least_conn import CAP, TICK, Arrivals, deal
from ansible_collections.evenflow.l4lb.plugins.module_utils._schedule.scheduler import (
    LEAST_CONN_SLOTS,
    apportion,
    smooth_order,
)
from hypothesis import given
from hypothesis import strategies as st

WEIGHTS = st.dictionaries(st.integers(1, 50), st.sampled_from([1, 2, 3, 100, 1000]), min_size=1, max_size=20)


class TestDeal:
    @given(WEIGHTS, st.data(), st.floats(0, 10000))
    def test_bounds_of_the_slots(self, weights: dict[int, int], data: st.DataObject, arrivals: float) -> None:
        active = {mark: data.draw(st.integers(0, 3000)) for mark in weights}
        slots = deal(weights, active, arrivals, LEAST_CONN_SLOTS)
        total = sum(weights.values())
        assert slots.keys() == weights.keys()
        assert sum(slots.values()) == LEAST_CONN_SLOTS
        assert slots == deal(weights, active, arrivals, LEAST_CONN_SLOTS)
        for mark, weight in weights.items():
            fair = LEAST_CONN_SLOTS * weight / total
            # A backend cannot have a fraction of a slot.
            assert slots[mark] <= max(CAP * fair + 1, 1)
            for other, other_weight in weights.items():
                if active[mark] / weight <= active[other] / other_weight and slots[mark] < int(CAP * fair):
                    assert slots[mark] / weight >= (slots[other] - 2) / other_weight

    @given(WEIGHTS, st.integers(0, 100))
    def test_even_levels_give_plain_shares(self, weights: dict[int, int], level: int) -> None:
        slots = deal(weights, {mark: level * weight for mark, weight in weights.items()}, 50, LEAST_CONN_SLOTS)
        assert slots == dict(zip(weights, apportion(list(weights.values()), LEAST_CONN_SLOTS)))

    def test_a_backend_with_all_flows_gets_no_slot(self) -> None:
        """Row 16: for any estimate of arrivals."""
        for arrivals in (0, 1, 30):
            assert deal({1: 1, 2: 1, 3: 1}, {1: 30}, arrivals, 256) == {1: 0, 2: 128, 3: 128}

    def test_a_new_backend_gets_twice_its_share(self) -> None:
        active = {mark: 100 for mark in range(1, 10)}
        slots = deal({mark: 1 for mark in range(10)}, active, 100, 250)
        assert slots[0] == 50
        assert set(slots.values()) <= {50, 22, 23}

    def test_a_single_backend_gets_all_slots(self) -> None:
        assert deal({7: 3}, {7: 1000}, 0, 256) == {7: 256}

    def test_the_estimate_follows_the_arrivals(self) -> None:
        arrivals = Arrivals()
        for _tick in range(30):
            arrivals = arrivals.after(100)
        assert arrivals.per_tick == pytest.approx(100, rel=1e-3)
        assert arrivals.after(-5).per_tick < 100


@dataclass
class Result:
    """The ratio of greatest to mean load as mean and 99th percentile, and the flows started by second and backend."""

    mean: float
    p99: float
    started: list[list[int]]


class TestAgainstExact:
    """Compare choosers by the same 400 arrivals per second with heavy-tailed lifetimes."""

    RATE = 400

    @pytest.mark.parametrize("weights", [[1] * 10, [3, 2, 1, 5, 1, 2, 4, 1, 1, 2]], ids=["lc", "wlc"])
    @pytest.mark.parametrize("lifetime", ["lognormal", "pareto"])
    def test_evenness(self, weights: list[int], lifetime: str) -> None:
        """The mean is at most 1.08 and the 99th percentile 1.20; the mean is between exact choice and round robin."""
        exact, dealt, round_robin = (
            simulate(chooser, weights, lifetime) for chooser in (ExactLeastConn, DealtTable, RoundRobin)
        )
        assert dealt.mean <= 1.08
        assert dealt.p99 <= 1.20
        assert exact.mean <= dealt.mean <= round_robin.mean

    def test_a_backend_that_joins(self) -> None:
        """A new backend gets at most twice its fair share of new flows, and reaches the load of the others."""
        run = simulate(DealtTable, [1] * 10, "lognormal", joins_at=20)
        for second in range(20, 40):
            assert run.started[second][0] <= CAP / 10 * sum(run.started[second]) * 1.05 + 2
        assert sum(run.started[second][0] for second in range(20)) == 0
        assert run.p99 <= 1.20


class Chooser:
    """The choice of a backend for each flow; the simulation updates ``active``."""

    def __init__(self, weights: list[int]) -> None:
        self.weights = weights
        self.active = [0] * len(weights)
        self.members = list(range(len(weights)))

    def tick(self, new_flows: int) -> None:
        """Update the choice at the end of a tick."""

    def choose(self) -> int:
        raise NotImplementedError


class ExactLeastConn(Chooser):
    """Least connections, computed for every flow."""

    def choose(self) -> int:
        return min(self.members, key=lambda index: (self.active[index] + 1) / self.weights[index])


class RoundRobin(Chooser):
    """Weighted round robin."""

    turn = -1

    def choose(self) -> int:
        self.turn += 1
        order = smooth_order(tuple(self.weights[index] for index in self.members))
        return self.members[order[self.turn % len(order)]]


class DealtTable(Chooser):
    """A slot table that is computed at every tick and read by a running counter."""

    turn = -1
    arrivals = Arrivals()

    def __init__(self, weights: list[int]) -> None:
        super().__init__(weights)
        self.tick(0)

    def tick(self, new_flows: int) -> None:
        self.arrivals = self.arrivals.after(new_flows)
        weights = {index: self.weights[index] for index in self.members}
        slots = deal(weights, dict(enumerate(self.active)), self.arrivals.per_tick, LEAST_CONN_SLOTS)
        self.table = [self.members[position] for position in smooth_order(tuple(slots.values()))]

    def choose(self) -> int:
        self.turn += 1
        return self.table[self.turn % LEAST_CONN_SLOTS]


def simulate(make: Callable[[list[int]], Chooser], weights: list[int], lifetime: str, joins_at: int = 0) -> Result:
    """Simulate 60 s and measure the last 40, or from 20 s after the first backend has joined."""
    draw = random.Random(f"{lifetime} {len(weights)}")
    draw_lifetime = {
        "lognormal": lambda: draw.lognormvariate(0.5, 1.2),
        "pareto": lambda: min(600.0, draw.paretovariate(1.5)),
    }
    chooser = make(weights)
    if joins_at:
        chooser.members = chooser.members[1:]
        chooser.tick(0)
    ends: list[tuple[float, int]] = []
    now, next_tick, new_flows, total = 0.0, TICK, 0, sum(weights)
    samples: list[float] = []
    started = [[0] * len(weights) for _second in range(61)]
    while now < 60:
        now += draw.expovariate(TestAgainstExact.RATE)
        while next_tick <= now:
            while ends and ends[0][0] <= next_tick:
                chooser.active[heapq.heappop(ends)[1]] -= 1
            if joins_at and next_tick >= joins_at:
                chooser.members = list(range(len(weights)))
            chooser.tick(new_flows)
            if next_tick > 20 + joins_at:
                load = max(count / weight for count, weight in zip(chooser.active, weights))
                samples.append(load * total / sum(chooser.active))
            new_flows = 0
            next_tick += TICK
        while ends and ends[0][0] <= now:
            chooser.active[heapq.heappop(ends)[1]] -= 1
        index = chooser.choose()
        chooser.active[index] += 1
        new_flows += 1
        started[int(now)][index] += 1
        heapq.heappush(ends, (now + draw_lifetime[lifetime](), index))
    samples.sort()
    return Result(sum(samples) / len(samples), samples[int(len(samples) * 0.99)], started)
