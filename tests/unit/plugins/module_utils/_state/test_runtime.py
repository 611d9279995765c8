# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the runtime state as a value."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.evenflow.l4lb.plugins.module_utils._state.runtime import (
    Drain,
    DrainCause,
    Runtime,
    with_clock_set_back,
)


def test_times_move_with_a_clock_that_is_set_back() -> None:
    known = Runtime(
        drains={
            "a": Drain(1000, 1060, DrainCause.DRAINED),
            "natural": Drain(1000, None, DrainCause.REMOVED),
            "again": Drain(1000, 1060, DrainCause.DRAINED),
        },
        joined={"b": 1010.0, "rejoined": 1010.0},
        ending={1: 1012.0, 2: 1012.0},
    )
    # What was begun after the clock was set back has the new clock's time already.
    later = Runtime(
        drains={
            **known.drains,
            "again": Drain(401, 461, DrainCause.DRAINED),
            "new": Drain(401, 461, DrainCause.DRAINED),
        },
        joined={**known.joined, "rejoined": 401.0},
        ending={1: 1012.0, 2: 403.0},
        ramps={"b": 3},
    )
    moved = with_clock_set_back(later, known, 600)
    assert moved == replace(
        later,
        drains={
            "a": Drain(400, 460, DrainCause.DRAINED),
            "natural": Drain(400, None, DrainCause.REMOVED),
            "again": Drain(401, 461, DrainCause.DRAINED),
            "new": Drain(401, 461, DrainCause.DRAINED),
        },
        joined={"b": 410.0, "rejoined": 401.0},
        ending={1: 412.0, 2: 403.0},
    )
    assert with_clock_set_back(moved, known, 600) == moved
