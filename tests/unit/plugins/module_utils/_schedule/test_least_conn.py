# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shares by load: what they keep to, and how near they come to asking for the least connections at every flow."""

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
    def test_what_it_always_keeps_to(self, weights: dict[int, int], data: st.DataObject, arrivals: float) -> None:
        active = {one: data.draw(st.integers(0, 3000)) for one in weights}
        slots = deal(weights, active, arrivals, LEAST_CONN_SLOTS)
        total = sum(weights.values())
        assert slots.keys() == weights.keys()
        assert sum(slots.values()) == LEAST_CONN_SLOTS
        assert slots == deal(weights, active, arrivals, LEAST_CONN_SLOTS)
        for one, weight in weights.items():
            fair = LEAST_CONN_SLOTS * weight / total
            # A slot that is dealt cannot be less than one.
            assert slots[one] <= max(CAP * fair + 1, 1)
            for other, its_weight in weights.items():
                if active[one] / weight <= active[other] / its_weight and slots[one] < int(CAP * fair):
                    assert slots[one] / weight >= (slots[other] - 2) / its_weight

    @given(WEIGHTS, st.integers(0, 100))
    def test_even_levels_give_plain_shares(self, weights: dict[int, int], level: int) -> None:
        slots = deal(weights, {one: level * weight for one, weight in weights.items()}, 50, LEAST_CONN_SLOTS)
        assert slots == dict(zip(weights, apportion(list(weights.values()), LEAST_CONN_SLOTS)))

    def test_who_holds_all_flows_gets_no_more(self) -> None:
        """Row 16, whatever was expected."""
        for arrivals in (0, 1, 30):
            assert deal({1: 1, 2: 1, 3: 1}, {1: 30}, arrivals, 256) == {1: 0, 2: 128, 3: 128}

    def test_one_who_has_just_joined_gets_twice_its_share(self) -> None:
        active = {one: 100 for one in range(1, 10)}
        slots = deal({one: 1 for one in range(10)}, active, 100, 250)
        assert slots[0] == 50
        assert set(slots.values()) <= {50, 22, 23}

    def test_an_only_one_gets_all(self) -> None:
        assert deal({7: 3}, {7: 1000}, 0, 256) == {7: 256}

    def test_the_estimate_follows_what_came(self) -> None:
        arrivals = Arrivals()
        for _tick in range(30):
            arrivals = arrivals.after(100)
        assert arrivals.per_tick == pytest.approx(100, rel=1e-3)
        assert arrivals.after(-5).per_tick < 100


@dataclass
class Result:
    """A run: greatest over mean load, on average and at the 99th percentile; flows begun by second, by backend."""

    mean: float
    p99: float
    started: list[list[int]]


class TestAgainstExact:
    """400 flows a second with heavy-tailed lifetimes; the same arrivals for each."""

    RATE = 400

    @pytest.mark.parametrize("weights", [[1] * 10, [3, 2, 1, 5, 1, 2, 4, 1, 1, 2]], ids=["lc", "wlc"])
    @pytest.mark.parametrize("lifetime", ["lognormal", "pareto"])
    def test_evenness(self, weights: list[int], lifetime: str) -> None:
        """The bounds: mean 1.08, 99th percentile 1.20. Exact least connections and round robin stand beside it."""
        exact, ours, turns = (simulated(chooser, weights, lifetime) for chooser in (Exact, Dealt, Turns))
        assert ours.mean <= 1.08
        assert ours.p99 <= 1.20
        assert exact.mean <= ours.mean <= turns.mean

    def test_a_backend_that_joins(self) -> None:
        """It takes no more than twice its fair share of new flows, and comes to the level of the others."""
        run = simulated(Dealt, [1] * 10, "lognormal", joins_at=20)
        for second in range(20, 40):
            assert run.started[second][0] <= CAP / 10 * sum(run.started[second]) * 1.05 + 2
        assert sum(run.started[second][0] for second in range(20)) == 0
        assert run.p99 <= 1.20


class Chooser:
    """Who gets the next flow. `active` is kept by the simulation."""

    def __init__(self, weights: list[int]) -> None:
        self.weights = weights
        self.active = [0] * len(weights)
        self.members = list(range(len(weights)))

    def tick(self, came: int) -> None:
        """A tick has passed."""

    def choose(self) -> int:
        raise NotImplementedError


class Exact(Chooser):
    """Least connections asked for at every flow."""

    def choose(self) -> int:
        return min(self.members, key=lambda one: (self.active[one] + 1) / self.weights[one])


class Turns(Chooser):
    """Weighted round robin."""

    turn = -1

    def choose(self) -> int:
        self.turn += 1
        order = smooth_order(tuple(self.weights[one] for one in self.members))
        return self.members[order[self.turn % len(order)]]


class Dealt(Chooser):
    """A table that is dealt at every tick and read by a counter that never stops."""

    turn = -1
    arrivals = Arrivals()

    def __init__(self, weights: list[int]) -> None:
        super().__init__(weights)
        self.tick(0)

    def tick(self, came: int) -> None:
        self.arrivals = self.arrivals.after(came)
        weights = {one: self.weights[one] for one in self.members}
        slots = deal(weights, dict(enumerate(self.active)), self.arrivals.per_tick, LEAST_CONN_SLOTS)
        self.table = [self.members[index] for index in smooth_order(tuple(slots.values()))]

    def choose(self) -> int:
        self.turn += 1
        return self.table[self.turn % LEAST_CONN_SLOTS]


def simulated(make: Callable[[list[int]], Chooser], weights: list[int], lifetime: str, joins_at: int = 0) -> Result:
    """Run 60 s and measure the last 40, or from 20 s after the first backend has joined."""
    draw = random.Random(f"{lifetime} {len(weights)}")
    lives = {"lognormal": lambda: draw.lognormvariate(0.5, 1.2), "pareto": lambda: min(600.0, draw.paretovariate(1.5))}
    chooser = make(weights)
    if joins_at:
        chooser.members = chooser.members[1:]
        chooser.tick(0)
    ends: list[tuple[float, int]] = []
    now, next_tick, came, total = 0.0, TICK, 0, sum(weights)
    samples: list[float] = []
    started = [[0] * len(weights) for _second in range(61)]
    while now < 60:
        now += draw.expovariate(TestAgainstExact.RATE)
        while next_tick <= now:
            while ends and ends[0][0] <= next_tick:
                chooser.active[heapq.heappop(ends)[1]] -= 1
            if joins_at and next_tick >= joins_at:
                chooser.members = list(range(len(weights)))
            chooser.tick(came)
            if next_tick > 20 + joins_at:
                load = max(count / weight for count, weight in zip(chooser.active, weights))
                samples.append(load * total / sum(chooser.active))
            came = 0
            next_tick += TICK
        while ends and ends[0][0] <= now:
            chooser.active[heapq.heappop(ends)[1]] -= 1
        one = chooser.choose()
        chooser.active[one] += 1
        came += 1
        started[int(now)][one] += 1
        heapq.heappush(ends, (now + lives[lifetime](), one))
    samples.sort()
    return Result(sum(samples) / len(samples), samples[int(len(samples) * 0.99)], started)
