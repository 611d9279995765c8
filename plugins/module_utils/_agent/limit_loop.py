# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The loop that deals the places of limits by the number of active flows."""

from __future__ import annotations

import time
from typing import Callable, Mapping

from .._nft.limits import MOST, Limit
from .._node.node import Node

FEW = 4
"""Flows are counted at every tick while fewer than one of this number of a limit's places are left."""

PAUSE_SECONDS = 1.0
"""Seconds until flows are counted again although places are not few, so that those of ended flows can be taken."""

PAUSE_FACTOR = 50
"""The pause is at least this multiple of what counting took: to list all flows of a busy node takes long."""


class LimitLoop:
    """Deals the places of a node's limits.

    :param clock: seconds that only grow.
    """

    def __init__(self, node: Node, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._clock = clock
        self._pause_end = 0.0
        self._has_counted = False

    def tick(self) -> bool:
        """Deal places of limits. To be called every :data:`~.._schedule.least_conn.TICK` seconds.

        :returns: whether a table changed.
        :raises NodeError: the node could not be read or changed.
        """
        began, self._has_counted = self._clock(), False
        try:
            return self._node.deal_places(self._is_due)
        finally:
            if self._has_counted:
                ended = self._clock()
                self._pause_end = ended + max(PAUSE_SECONDS, PAUSE_FACTOR * (ended - began))

    def _is_due(self, limits: Mapping[str, Limit], left: Mapping[str, int]) -> bool:
        part = FEW if self._clock() < self._pause_end else 1
        self._has_counted = any(number * part < min(limits[name].maximum, MOST) for name, number in left.items())
        return self._has_counted
