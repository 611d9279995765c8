# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of when flows are counted to deal places of limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.limit_loop import SOME, LimitLoop
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.limits import MOST, Limit
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.node import Node

LIMITS = {
    "small": Limit("small", 100, (1,), "limit_backend", 1),
    "large": Limit("large", 1000000, (2,), "limit_backend", 2),
}


class FakeNode:
    """A node that only asks whether flows are to be counted."""

    def __init__(self, left: dict[str, int]) -> None:
        self.left = left

    def deal_places(self, is_due: Callable[[Mapping[str, Limit], Mapping[str, int]], bool]) -> bool:
        return is_due(LIMITS, dict(self.left))


@pytest.mark.parametrize(
    ("small", "large", "counted"),
    [
        (100, MOST, 0),
        (50, MOST // 2, 0),
        (49, MOST, 2),
        (100, MOST // 2 - 1, 2),
        (25, MOST // 4, 2),
        (24, MOST, 2 * SOME),
        (0, MOST, 2 * SOME),
        (100, MOST // 4 - 1, 2 * SOME),
    ],
)
def test_flows_are_counted_the_more_often_the_fewer_places_are_left(small: int, large: int, counted: int) -> None:
    loop = LimitLoop(cast(Node, FakeNode({"small": small, "large": large})))
    assert sum(loop.tick() for _tick in range(2 * SOME)) == counted
