# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting for what a test is to observe, instead of sleeping until it has perhaps happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds after which a wait gives up: far more than a busy machine takes, because only a failure takes them."""

_PAUSE = 0.1


def wait_until(
    look: Callable[[], T], what: str, *, is_so: Callable[[T], object] = bool, seconds: float = PATIENCE
) -> T:
    """Call `look` until `is_so` accepts what it returns, and return that. AssertionError if it never does."""
    deadline = time.monotonic() + seconds
    while not is_so(seen := look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}; seen last: {seen!r}"
        time.sleep(_PAUSE)
    return seen
