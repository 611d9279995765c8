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
    Deal,
    Dealing,
    Places,
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
        self.main = self.spare = Bucket(0, 0)

    def take(self) -> bool:
        """Return whether a new flow gets a place."""
        if self.dealing is None:
            return self.active < self.maximum
        if self.dealing.uses_spare:
            self.spare = replace(self.spare, asked=self.spare.asked + 1)
            if self.spare.asked <= self.spare.places:
                return True
        if not self.dealing.uses_main:
            return False
        self.main = replace(self.main, asked=self.main.asked + 1)
        has_place = self.main.asked <= self.main.places
        return has_place and (self.dealing != Dealing.FIRST or self.active < self.maximum)

    def ask(self, flows: int) -> None:
        """Let new flows come."""
        for _flow in range(flows):
            self.active += self.take()

    def deal(self, before: int = 0, during: int = 0) -> None:
        """Deal places; new flows come before the count, and between the count and the commit."""
        left = remaining(self.dealing, self.main, self.spare)
        self.ask(before)
        active = self.active
        self.ask(during)
        dealt = deal(self.maximum, self.dealing, left, active)
        if dealt:
            self.dealing = dealt.dealing
            self.main = self.main if dealt.main is None else Bucket(dealt.main, 0)
            self.spare = self.spare if dealt.spare is None else Bucket(dealt.spare, 0)


@given(
    st.integers(17, 200),
    st.integers(0, 200),
    st.lists(st.tuples(*[st.integers(0, 90)] * 4), max_size=30),
)
def test_no_sequence_of_flows_and_dealing_exceeds_a_limit(
    maximum: int, active: int, steps: list[tuple[int, int, int, int]]
) -> None:
    """Row 39: and all free places can be taken at once soon after the last change."""
    limit = Dealt(maximum, min(active, maximum))
    for closed, new, before, during in steps:
        limit.active -= min(closed, limit.active)
        limit.ask(new)
        limit.deal(before, during)
        assert limit.active <= maximum
    # From what the kernel counts to the main bucket, and one that is taken away and dealt anew.
    for _time in range(4):
        limit.deal()
    assert deal(maximum, limit.dealing, remaining(limit.dealing, limit.main, limit.spare), limit.active) is None
    limit.ask(maximum)
    assert limit.active == maximum


@pytest.mark.parametrize(
    ("maximum", "dealing", "left", "active", "expected"),
    [
        (100, None, Places(), 0, Deal(Dealing.FIRST, main=100, total=100)),
        (100, None, Places(), 100, Deal(Dealing.NONE, main=0, total=0)),
        (100, None, Places(), 300, Deal(Dealing.NONE, main=0, total=0)),
        (100, Dealing.FIRST, Places(100), 0, Deal(Dealing.SOME)),
        (100, Dealing.FIRST, Places(90), 30, Deal(Dealing.FIRST, main=70, total=70)),
        (100, Dealing.FIRST, Places(90), 100, Deal(Dealing.NONE, main=0, total=0)),
        (100, Dealing.FIRST, Places(20), 30, Deal(Dealing.BOTH, spare=50, total=70)),
        (100, Dealing.SOME, Places(), 99, Deal(Dealing.ONE, main=1, total=1)),
        (100, Dealing.SOME, Places(), 100, None),
        (100, Dealing.SOME, Places(60), 40, None),
        (100, Dealing.SOME, Places(60), 45, None),
        (100, Dealing.ONE, Places(1), 98, Deal(Dealing.BOTH, spare=1, total=2)),
        (100, Dealing.SPARE, Places(0, 30), 20, Deal(Dealing.BOTH, main=50, total=80)),
        (100, Dealing.BOTH, Places(30, 20), 50, None),
        (100, Dealing.BOTH, Places(30, 20), 49, Deal(Dealing.SOME)),
        (100, Dealing.BOTH, Places(20, 30), 49, Deal(Dealing.SPARE, main=0)),
        (100, Dealing.BOTH, Places(0, 30), 20, Deal(Dealing.BOTH, main=50, total=80)),
        (100, Dealing.BOTH, Places(), 20, Deal(Dealing.SOME, main=80, total=80)),
        (1000000, Dealing.NONE, Places(), 0, Deal(Dealing.SOME, main=MOST, total=MOST)),
        (1000000, Dealing.BOTH, Places(MOST, MOST), 0, None),
        (1000000, Dealing.BOTH, Places(MOST, MOST - 1), 0, Deal(Dealing.SOME)),
    ],
)
def test_dealing(maximum: int, dealing: Dealing | None, left: Places, active: int, expected: Deal | None) -> None:
    assert deal(maximum, dealing, left, active) == expected


def test_a_bucket_is_never_filled_again_while_it_is_used() -> None:
    """The kernel computes with signed nanoseconds."""
    assert MOST * 7 * 24 * 3600 * 10**9 < 2**63


def test_what_deals_places() -> None:
    limited = web(50, 40, 60)
    first, second = (f"{mark:#010x}" for mark in marks(limited))
    limits = {limit.name: limit for limit in limits_of(configuration(limited))}
    after = {
        first: Deal(Dealing.SOME, main=20, total=20),
        second: Deal(Dealing.NONE, main=0, total=0),
        "web": Deal(Dealing.FIRST, main=25, total=25),
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
    kept = deal_transaction({first: "first", "web": "first"}, dict.fromkeys((first, "web"), Deal(Dealing.SOME)), limits)
    assert kept.lines() == [
        f"delete element inet evenflow dealt {{ {first} }}",
        "delete element inet evenflow dealt_web { ipv4 }",
        f"add element inet evenflow dealt {{ {first} : goto places_some }}",
        "add element inet evenflow dealt_web { ipv4 : goto some_web }",
    ]


def test_what_deals_places_of_the_spare_bucket() -> None:
    limited = web(50, 40)
    (first,) = (f"{mark:#010x}" for mark in marks(limited))
    limits = {limit.name: limit for limit in limits_of(configuration(limited))}
    some, both = {first: "some", "web": "some"}, {first: "both", "web": "both"}

    def lines(before: dict[str, str], each: Deal) -> list[str]:
        return deal_transaction(before, dict.fromkeys((first, "web"), each), limits).lines()

    assert lines(some, Deal(Dealing.BOTH, spare=7, total=12)) == [
        f"delete element inet evenflow dealt {{ {first} }}",
        f"delete element inet evenflow last_place {{ {first} }}",
        "delete element inet evenflow dealt_web { ipv4 }",
        f"add element inet evenflow dealt {{ {first} : goto places_both }}",
        f"add element inet evenflow spare {{ {first} counter limit rate over 1/week burst 7 packets }}",
        f"add element inet evenflow last_place {{ {first} limit rate over 1/week burst 11 packets }}",
        "add element inet evenflow dealt_web { ipv4 : goto both_web }",
        "add element inet evenflow spare_web { ipv4 counter limit rate over 1/week burst 7 packets }",
        f"add element inet evenflow full {{ {first} }}",
        f"delete element inet evenflow full {{ {first} }}",
    ]
    assert lines(both, Deal(Dealing.SOME)) == [
        f"delete element inet evenflow dealt {{ {first} }}",
        f"delete element inet evenflow spare {{ {first} }}",
        "delete element inet evenflow dealt_web { ipv4 }",
        "delete element inet evenflow spare_web { ipv4 }",
        f"add element inet evenflow dealt {{ {first} : goto places_some }}",
        "add element inet evenflow dealt_web { ipv4 : goto some_web }",
    ]
    assert lines(both, Deal(Dealing.SPARE, main=0)) == [
        f"delete element inet evenflow bucket {{ {first} }}",
        f"delete element inet evenflow dealt {{ {first} }}",
        "delete element inet evenflow bucket_web { ipv4 }",
        "delete element inet evenflow dealt_web { ipv4 }",
        f"add element inet evenflow bucket {{ {first} counter limit rate over 1/week burst 1 packets }}",
        f"add element inet evenflow dealt {{ {first} : goto places_spare }}",
        "add element inet evenflow bucket_web { ipv4 counter limit rate over 1/week burst 1 packets }",
        "add element inet evenflow dealt_web { ipv4 : goto spare_web }",
    ]


def test_dealing_ends_where_the_limit_or_the_table_changed() -> None:
    limited = web(50, 40, 60)
    first, second = (f"{mark:#010x}" for mark in marks(limited))
    dealt = {first: "both", second: "none", "web": "first"}
    live = desired_table(configuration(limited), Settings(), runtime=Runtime(dealt=dealt)).as_live()
    assert still_dealt(configuration(limited), live, dealt, {}) == dealt
    assert still_dealt(configuration(web(50, 41, 60)), live, dealt, {}) == {second: "none", "web": "first"}
    assert still_dealt(configuration(web(50, 16, 0)), live, dealt, {}) == {"web": "first"}
    assert still_dealt(configuration(limited), live, {**dealt, second: "some"}, {}) == {first: "both", "web": "first"}
    assert still_dealt(configuration(limited), live, {**dealt, "web": "both"}, {}) == {first: "both", second: "none"}
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
