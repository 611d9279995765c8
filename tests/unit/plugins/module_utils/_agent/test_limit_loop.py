# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of when flows are counted to deal places of limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.limit_loop import LimitLoop
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
    ("small", "large", "is_counted"),
    [(100, MOST, False), (25, MOST // 4, False), (24, MOST, True), (0, MOST, True), (100, MOST // 4 - 1, True)],
)
def test_flows_are_counted_only_where_few_places_are_left(small: int, large: int, is_counted: bool) -> None:
    loop = LimitLoop(cast(Node, FakeNode({"small": small, "large": large})))
    assert [loop.tick() for _tick in range(3)] == [is_counted] * 3
