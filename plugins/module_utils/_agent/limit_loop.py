# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The loop that deals the places of limits by the number of active flows."""

from __future__ import annotations

from typing import Mapping

from .._nft.limits import MOST, Limit
from .._node.node import Node

LOW = 4
"""Flows are counted while fewer than one of this number of a bucket's places are left: to list them all takes long."""


class LimitLoop:
    """Deals the places of a node's limits."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def tick(self) -> bool:
        """Deal places of limits that have few left. To be called every :data:`~.._schedule.least_conn.TICK` seconds.

        :returns: whether a table changed.
        :raises NodeError: the node could not be read or changed.
        """
        return self._node.deal_places(_is_due)


def _is_due(limits: Mapping[str, Limit], left: Mapping[str, int]) -> bool:
    return any(number * LOW < min(limits[name].maximum, MOST) for name, number in left.items())
