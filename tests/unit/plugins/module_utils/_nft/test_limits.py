# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the flows that the counters of limits do not include."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.identity import backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.desired_table import desired_table
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.limits import uncounted
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import Element, LiveTable
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.runtime import Runtime
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, configuration, listener


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
