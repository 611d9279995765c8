# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wait for an observation of a test, instead of sleeping until it has perhaps happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from .process import SLOWNESS

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds after which a wait fails: far more than a busy machine needs, because only a failure takes so long."""

_PAUSE = 0.1


def wait_until(
    look: Callable[[], T], what: str, *, accepts: Callable[[T], object] = bool, seconds: float = PATIENCE
) -> T:
    """Call `look` until `accepts` accepts its result, and return that. Raise AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds * SLOWNESS
    while not accepts(seen := look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}; seen last: {seen!r}"
        time.sleep(_PAUSE)
    return seen
