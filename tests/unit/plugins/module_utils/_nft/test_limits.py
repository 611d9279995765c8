# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the places that are dealt, and of the flows that the counters of limits do not include."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.identity import backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.desired_table import desired_table
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.limits import (
    MOST,
    Bucket,
    Dealing,
    deal,
    deal_transaction,
    limits_of,
    remaining,
    still_dealt,
    uncounted,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import Element, LiveTable
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.runtime import Runtime
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, configuration, listener
from hypothesis import given
from hypothesis import strategies as st


def web(limit: int = 0, *limits: int) -> dict[str, Any]:
    """Return a listener with a limit, and with a backend for each further limit."""
    backends = [backend(f"198.19.0.{number}", max_connections=each) for number, each in enumerate(limits, 1)]
    return listener("web", *backends, max_connections=limit)


def marks(of: dict[str, Any]) -> list[int]:
    ids = backend_ids(configuration(of))
    return [ids["web", each["address"], each["port"]] for each in of["backends"]]


def live_table_of(of: dict[str, Any], counted: Mapping[str, int] | None = None) -> LiveTable:
    return desired_table(configuration(of), Settings(), runtime=Runtime(uncounted=counted or {})).as_live()


def must_not_count() -> dict[int, int]:
    raise AssertionError("flows must not be counted")


def test_unchanged_limits_need_no_count() -> None:
    limited = web(7, 2, 0)
    assert uncounted(configuration(limited), live_table_of(limited), {}, must_not_count) == {}
    unlimited = web(0, 0, 0)
    assert uncounted(configuration(unlimited), None, {}, must_not_count) == {}


@pytest.mark.parametrize("is_there", [True, False])
def test_flows_from_before_a_change_are_uncounted(is_there: bool) -> None:
    """An element is created again if the limit differs or if the table was lost."""
    before, after = web(7, 2, 3), web(9, 4, 3)
    first, second = marks(after)
    live_table = live_table_of(before) if is_there else None
    result = uncounted(configuration(after), live_table, {}, lambda: {first: 2, second: 3, 99: 50})
    expected = {"web": 5, f"{first:#010x}": 2}
    assert result == (expected if is_there else {**expected, f"{second:#010x}": 3})


def test_a_limit_without_flows_has_no_uncounted_flows() -> None:
    assert uncounted(configuration(web(9, 4, 3)), live_table_of(web(7, 2, 3)), {}, lambda: {}) == {}


@pytest.mark.parametrize(("alive", "left"), [(6, 5), (5, 5), (4, 4), (0, 0)])
def test_uncounted_flows_that_ended_are_subtracted(alive: int, left: int) -> None:
    """If fewer flows are alive than were uncounted, some of the uncounted ones must have ended."""
    limited = web(0, 8)
    name = f"{marks(limited)[0]:#010x}"
    result = uncounted(
        configuration(limited), live_table_of(limited, {name: 5}), {name: 5}, lambda: {marks(limited)[0]: alive}
    )
    assert result == ({name: left} if left else {})


@pytest.mark.parametrize(
    ("flows", "backend_over", "reached_over", "listener_over"),
    [
        (0, 3, 2, 10),
        (1, 2, 1, 9),
        (3, 0, 0, 7),
        (50, 0, 0, 0),
    ],
)
def test_the_elements_of_limits(flows: int, backend_over: int, reached_over: int, listener_over: int) -> None:
    limited = web(10, 3)
    mark = marks(limited)[0]
    sets = live_table_of(limited, {"web": flows, f"{mark:#010x}": flows}).sets
    assert sets["limit_backend"].elements == {mark: Element(f"ct count over {backend_over}")}
    assert sets["limit_reached"].elements == {mark: Element(f"ct count over {reached_over}")}
    assert sets["cap_web"].elements == {"ipv4": Element(f"ct count over {listener_over}")}


class Dealt:
    """A limit whose places are dealt, as the kernel has it."""

    def __init__(self, maximum: int, active: int) -> None:
        self.maximum = maximum
        self.active = active
        self.dealing: Dealing | None = None
        self.bucket = Bucket(0, 0)

    def ask(self, flows: int) -> None:
        """Let new flows come."""
        for _flow in range(flows):
            is_counted = self.dealing in (None, Dealing.FIRST)
            self.bucket = replace(self.bucket, asked=self.bucket.asked + 1)
            has_place = self.dealing is None or (
                self.dealing != Dealing.NONE and self.bucket.asked <= self.bucket.places
            )
            if has_place and (not is_counted or self.active < self.maximum):
                self.active += 1

    def deal(self, before: int = 0, during: int = 0) -> None:
        """Deal places; new flows come before the count, and between the count and the commit."""
        left = remaining(self.dealing, self.bucket)
        self.ask(before)
        active = self.active
        self.ask(during)
        dealt = deal(self.maximum, self.dealing, left, active)
        if dealt:
            self.dealing = dealt[0]
            self.bucket = self.bucket if dealt[1] is None else Bucket(dealt[1], 0)


@given(
    st.integers(17, 200),
    st.integers(0, 200),
    st.lists(st.tuples(*[st.integers(0, 90)] * 4), max_size=30),
)
def test_no_sequence_of_flows_and_dealing_exceeds_a_limit(
    maximum: int, active: int, steps: list[tuple[int, int, int, int]]
) -> None:
    """Row 39."""
    limit = Dealt(maximum, min(active, maximum))
    for closed, new, before, during in steps:
        limit.active -= min(closed, limit.active)
        limit.ask(new)
        limit.deal(before, during)
        assert limit.active <= maximum
    # All places can be taken: each time at least half of those that are left can.
    for _time in range(12):
        limit.deal()
        limit.ask(maximum)
        assert limit.active <= maximum
    assert limit.active == maximum


def test_a_bucket_that_gains_nothing_stays() -> None:
    assert deal(1000, Dealing.SOME, 600, 300) is None
    assert deal(1000, Dealing.SOME, 600, 400) is None
    assert deal(1000, Dealing.SOME, 600, 405) is None
    assert deal(1000, Dealing.NONE, 0, 1000) is None
    assert deal(1000, Dealing.SOME, 100, 300) == (Dealing.SOME, 600)


@pytest.mark.parametrize(
    ("maximum", "dealing", "left", "active", "expected"),
    [
        (100, None, 0, 0, (Dealing.FIRST, 100)),
        (100, None, 0, 100, (Dealing.NONE, 0)),
        (100, None, 0, 300, (Dealing.NONE, 0)),
        (100, Dealing.FIRST, 100, 0, (Dealing.SOME, None)),
        (100, Dealing.FIRST, 90, 30, (Dealing.FIRST, 70)),
        (100, Dealing.FIRST, 90, 100, (Dealing.NONE, 0)),
        (100, Dealing.FIRST, 20, 30, (Dealing.SOME, 50)),
        (100, Dealing.SOME, 0, 99, (Dealing.ONE, 1)),
        (1000000, Dealing.NONE, 0, 0, (Dealing.SOME, MOST)),
    ],
)
def test_dealing(maximum: int, dealing: Dealing | None, left: int, active: int, expected: tuple[Dealing, int]) -> None:
    assert deal(maximum, dealing, left, active) == expected


def test_a_bucket_is_never_filled_again_while_it_is_used() -> None:
    """The kernel computes with signed nanoseconds."""
    assert MOST * 7 * 24 * 3600 * 10**9 < 2**63


def test_what_deals_places() -> None:
    limited = web(50, 40, 60)
    first, second = (f"{mark:#010x}" for mark in marks(limited))
    limits = {limit.name: limit for limit in limits_of(configuration(limited))}
    after: dict[str, tuple[Dealing, int | None]] = {
        first: (Dealing.SOME, 20),
        second: (Dealing.NONE, 0),
        "web": (Dealing.FIRST, 25),
    }
    assert deal_transaction({first: "one"}, after, limits).lines() == [
        f"delete element inet evenflow bucket {{ {first} }}",
        f"delete element inet evenflow dealt {{ {first} }}",
        f"add element inet evenflow bucket {{ {first} counter limit rate over 1/week burst 20 packets, "
        f"{second} counter limit rate over 1/week burst 1 packets }}",
        f"add element inet evenflow dealt {{ {first} : goto places_some, {second} : goto places_none }}",
        f"add element inet evenflow last_place {{ {first} limit rate over 1/week burst 19 packets }}",
        "add element inet evenflow bucket_web { ipv4 counter limit rate over 1/week burst 25 packets }",
        "add element inet evenflow dealt_web { ipv4 : goto first_web }",
        f"add element inet evenflow full {{ {first} }}",
        f"delete element inet evenflow full {{ {first} }}",
    ]
    kept = deal_transaction(
        {first: "first", "web": "first"}, {first: (Dealing.SOME, None), "web": (Dealing.SOME, None)}, limits
    )
    assert kept.lines() == [
        f"delete element inet evenflow dealt {{ {first} }}",
        "delete element inet evenflow dealt_web { ipv4 }",
        f"add element inet evenflow dealt {{ {first} : goto places_some }}",
        "add element inet evenflow dealt_web { ipv4 : goto some_web }",
    ]


def test_dealing_ends_where_the_limit_or_the_table_changed() -> None:
    limited = web(50, 40, 60)
    first, second = (f"{mark:#010x}" for mark in marks(limited))
    dealt = {first: "some", second: "none", "web": "first"}
    live = desired_table(configuration(limited), Settings(), runtime=Runtime(dealt=dealt)).as_live()
    assert still_dealt(configuration(limited), live, dealt, {}) == dealt
    assert still_dealt(configuration(web(50, 41, 60)), live, dealt, {}) == {second: "none", "web": "first"}
    assert still_dealt(configuration(web(50, 16, 0)), live, dealt, {}) == {"web": "first"}
    assert still_dealt(configuration(limited), live, {**dealt, second: "some"}, {}) == {first: "some", "web": "first"}
    assert still_dealt(configuration(limited), None, dealt, {}) == {}
    assert still_dealt(configuration(limited), live, {}, {}) == {}


def test_flows_that_took_dealt_places_are_uncounted_with_the_places_that_are_left() -> None:
    limited = web(0, 40, 60)
    first, second = marks(limited)
    live = live_table_of(limited)
    names = f"{first:#010x}", f"{second:#010x}"
    result = uncounted(
        configuration(limited), live, {}, lambda: {first: 10, second: 7}, {names[1]: "some"}, {names[0]: 5}
    )
    assert result == {names[0]: 15}
