# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the counters of limits do not know."""

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
    """A listener with a limit and backends with theirs."""
    backends = [backend(f"198.19.0.{number}", max_connections=each) for number, each in enumerate(limits, 1)]
    return listener("web", *backends, max_connections=limit)


def marks(of: dict[str, Any]) -> list[int]:
    ids = backend_ids(configuration(of))
    return [ids["web", each["address"], each["port"]] for each in of["backends"]]


def live(of: dict[str, Any], told: Mapping[str, int] | None = None) -> LiveTable:
    return desired_table(configuration(of), Settings(), runtime=Runtime(uncounted=told or {})).as_live()


def never() -> dict[int, int]:
    raise AssertionError("nobody has to count")


def test_what_is_as_it_was_needs_no_count() -> None:
    limited = web(7, 2, 0)
    assert uncounted(configuration(limited), live(limited), {}, never) == {}
    unlimited = web(0, 0, 0)
    assert uncounted(configuration(unlimited), None, {}, never) == {}


@pytest.mark.parametrize("is_there", [True, False])
def test_flows_from_before_an_edit_are_told(is_there: bool) -> None:
    """Whether an element is made anew because the limit differs or because the table is gone."""
    before, after = web(7, 2, 3), web(9, 4, 3)
    one, two = marks(after)
    found = live(before) if is_there else None
    told = uncounted(configuration(after), found, {}, lambda: {one: 2, two: 3, 99: 50})
    expected = {"web": 5, f"{one:#010x}": 2}
    assert told == (expected if is_there else {**expected, f"{two:#010x}": 3})


def test_an_idle_limit_knows_all() -> None:
    assert uncounted(configuration(web(9, 4, 3)), live(web(7, 2, 3)), {}, lambda: {}) == {}


@pytest.mark.parametrize(("alive", "left"), [(6, 5), (5, 5), (4, 4), (0, 0)])
def test_what_ended_is_given_back(alive: int, left: int) -> None:
    """Fewer alive than were there when counting began: some of those must have ended."""
    limited = web(0, 8)
    name = f"{marks(limited)[0]:#010x}"
    told = uncounted(configuration(limited), live(limited, {name: 5}), {name: 5}, lambda: {marks(limited)[0]: alive})
    assert told == ({name: left} if left else {})


@pytest.mark.parametrize(
    ("told", "backend_over", "reached_over", "listener_over"),
    [
        (0, 3, 2, 10),
        (1, 2, 1, 9),
        (3, 0, 0, 7),
        (50, 0, 0, 0),
    ],
)
def test_elements(told: int, backend_over: int, reached_over: int, listener_over: int) -> None:
    limited = web(10, 3)
    mark = marks(limited)[0]
    sets = live(limited, {"web": told, f"{mark:#010x}": told}).sets
    assert sets["limit_backend"].elements == {mark: Element(f"ct count over {backend_over}")}
    assert sets["limit_reached"].elements == {mark: Element(f"ct count over {reached_over}")}
    assert sets["cap_web"].elements == {"ipv4": Element(f"ct count over {listener_over}")}
