# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An event loop with virtual time, in which an hour of timers takes a moment and the order is always the same."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

EPOCH = 1_800_000_000.0
"""The wall clock's time when a virtual loop begins."""

_Result = TypeVar("_Result")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while callbacks are ready, and otherwise jumps to the next timer.

    The loop does not wait for threads or other processes.
    """

    def __init__(self) -> None:
        self._virtual_time = 0.0
        self._epoch = EPOCH
        super().__init__(_JumpingSelector(self.advance))

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual_time

    def advance(self, seconds: float) -> None:
        """Advance the time, as work that blocks the loop does."""
        self._virtual_time += seconds

    def wall_clock(self) -> float:
        """Return the virtual time in seconds since the epoch."""
        return self._epoch + self._virtual_time

    def step_clock(self, seconds: float) -> None:
        """Set the wall clock forward, or with a negative number back."""
        self._epoch += seconds


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("the loop would wait for ever: there is neither a timer nor an event")
            self._jump(timeout)
        return ready


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, _Result]]) -> _Result:
    """Run a coroutine in a virtual loop, and fail if it leaves tasks running."""
    loop = VirtualLoop()
    try:
        result = loop.run_until_complete(main(loop))
        # Cancelled tasks need one iteration of the loop to end.
        loop.run_until_complete(asyncio.sleep(0))
        left = asyncio.all_tasks(loop)
        if left:
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left))
            raise RuntimeError(f"still running: {left}")
        return result
    finally:
        loop.close()
