# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The processor time that a check may take while others wait for the same event loop."""

from __future__ import annotations

import signal
import time
import types
from contextvars import ContextVar
from typing import Any, Coroutine, Generator, Optional, TypeVar

MAX_STEP = 1.0
"""Maximum number of seconds of processor time that a single step may take."""

_Result = TypeVar("_Result")

_budget: ContextVar[Optional[float]] = ContextVar("budget", default=None)


class Costly(Exception):
    """A check takes more processor time than it may where others wait for it."""


def announce(seconds: float) -> None:
    """Announce work of about this length that cannot be interrupted.

    :raises Costly: the budget of the current check is smaller.
    """
    budget = _budget.get()
    if budget is not None and seconds > budget:
        raise Costly


@types.coroutine
def within(budget: float, work: Coroutine[Any, Any, _Result]) -> Generator[Any, Any, _Result]:
    """Run a coroutine, and raise :class:`Costly` in it once its steps have taken this many seconds in all.

    A step is what runs between two points at which the coroutine waits. The kernel ends the process if one takes more
    than :data:`MAX_STEP`, whatever library is at work.
    """
    _budget.set(budget)
    spent, error, is_over = 0.0, None, False
    while True:
        began = time.thread_time()
        signal.setitimer(signal.ITIMER_PROF, MAX_STEP)
        try:
            waiting = work.send(None) if error is None else work.throw(error)
        except StopIteration as stop:
            if spent + time.thread_time() - began > budget:
                raise Costly from None
            result: _Result = stop.value
            return result
        except Exception:
            if spent + time.thread_time() - began > budget:
                raise Costly from None
            raise
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        spent += time.thread_time() - began
        error = None
        ends_now = spent > budget and not is_over
        if ends_now:
            # Only once: what the coroutine does to clean up is not interrupted.
            is_over = True
            if waiting is not None:
                # The event loop forgets the connection before the coroutine closes it.
                waiting.cancel()
        try:
            yield waiting
        except BaseException as raised:  # pylint: disable=broad-exception-caught
            error = raised
        if ends_now:
            error = Costly()
