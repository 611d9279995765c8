# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of when flows are counted to deal places of limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.limit_loop import LimitLoop
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import NodeError
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.limits import MOST, Limit
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.node import Node
from ansible_collections.evenflow.l4lb.plugins.module_utils._schedule.least_conn import TICK

LIMITS = {
    "small": Limit("small", 100, (1,), "limit_backend", 1),
    "large": Limit("large", 1000000, (2,), "limit_backend", 2),
}


class FakeNode:
    """A node that only asks whether flows are to be counted. To count them takes some of its seconds."""

    def __init__(self, left: dict[str, int], seconds: float) -> None:
        self.left = left
        self.seconds = seconds
        self.now = 100.0
        self.counted = 0

    def deal_places(self, is_due: Callable[[Mapping[str, Limit], Mapping[str, int]], bool]) -> bool:
        if is_due(LIMITS, dict(self.left)):
            self.counted += 1
            self.now += self.seconds
        return False


def counted(small: int, large: int, ticks: int, seconds: float = 0.0) -> int:
    """Return how often flows are counted in some ticks."""
    node = FakeNode({"small": small, "large": large}, seconds)
    loop = LimitLoop(cast(Node, node), lambda: node.now)
    for _tick in range(ticks):
        loop.tick()
        node.now += TICK
    return node.counted


@pytest.mark.parametrize(
    ("small", "large", "expected"),
    [
        (100, MOST, 0),
        (99, MOST, 5),
        (100, MOST - 1, 5),
        (25, MOST // 4, 5),
        (24, MOST, 20),
        (0, MOST, 20),
        (100, MOST // 4 - 1, 20),
    ],
)
def test_flows_are_counted_at_each_tick_where_places_are_few_and_else_once_a_second(
    small: int, large: int, expected: int
) -> None:
    assert counted(small, large, 20) == expected


def test_the_pause_follows_the_time_that_counting_takes() -> None:
    assert counted(99, MOST, 400, seconds=1.0) == 2


def test_a_count_that_fails_is_followed_by_a_pause_too() -> None:
    class FailingNode(FakeNode):
        def deal_places(self, is_due: Callable[[Mapping[str, Limit], Mapping[str, int]], bool]) -> bool:
            super().deal_places(is_due)
            raise NodeError("nft")

    node = FailingNode({"small": 99, "large": MOST}, 0.0)
    loop = LimitLoop(cast(Node, node), lambda: node.now)
    for _tick in range(4):
        with pytest.raises(NodeError):
            loop.tick()
        node.now += TICK
    assert node.counted == 1
