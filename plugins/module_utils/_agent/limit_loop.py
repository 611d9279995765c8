# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The loop that deals the places of limits by the number of active flows."""

from __future__ import annotations

from typing import Mapping

from .._nft.limits import MOST, Limit
from .._node.node import Node

FEW = 4
"""Flows are counted at every tick while fewer than one of this number of a limit's places are left."""

HALF = 2
"""Flows are counted at some ticks while fewer than one of this number of a limit's places are left.

Flows that end put no place into the bucket until the next count. So at least half of the free places are in it.
"""

SOME = 4
"""One of this number of ticks counts flows although places are not few: to list all flows takes long."""


class LimitLoop:
    """Deals the places of a node's limits."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ticks = 0

    def tick(self) -> bool:
        """Deal places of limits that have few left. To be called every :data:`~.._schedule.least_conn.TICK` seconds.

        :returns: whether a table changed.
        :raises NodeError: the node could not be read or changed.
        """
        self._ticks = (self._ticks + 1) % SOME
        return self._node.deal_places(self._is_due)

    def _is_due(self, limits: Mapping[str, Limit], left: Mapping[str, int]) -> bool:
        part = FEW if self._ticks else HALF
        return any(number * part < min(limits[name].maximum, MOST) for name, number in left.items())
