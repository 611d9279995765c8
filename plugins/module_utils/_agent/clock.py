# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Notice that the clock of the node was set back."""

from __future__ import annotations

from typing import Callable

STEP_SECONDS = 0.5
"""By how much the clock must be set back at least; smaller steps add up."""

_READ_SECONDS = 0.05
"""A comparison of two clocks that took longer than this says nothing: something else has run in between."""


class Clock:
    """Compares the wall clock with one that always goes forward.

    :param wall: seconds since the epoch.
    :param steady: seconds of the clock that always goes forward.
    """

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self.wall = wall
        self._steady = steady
        self._offset = wall() - steady()

    def take_set_back(self) -> float:
        """Return by how many seconds the clock was set back since the last call that returned some; usually 0."""
        began = self._steady()
        wall = self.wall()
        ended = self._steady()
        if ended - began > _READ_SECONDS:
            return 0.0
        seconds = self._offset - (wall - ended)
        if 0 <= seconds < STEP_SECONDS:
            return 0.0
        self._offset = wall - ended
        return max(0.0, seconds)
