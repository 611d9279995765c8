# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The regular ticks at which shares and places are dealt."""

from __future__ import annotations

import asyncio
import logging
from typing import Awaitable, Callable

from .._errors import EvenflowError
from .._schedule.least_conn import TICK

log = logging.getLogger("evenflow")

PAUSE_FACTOR = 3
"""The pause before dealing is at least this multiple of what dealing took the last time."""


async def deal_regularly(subject: str, deal_once: Callable[[], Awaitable[None]], is_needed: Callable[[], bool]) -> None:
    """Deal every :data:`TICK` seconds while a listener needs it, until this task is cancelled.

    :param subject: what is dealt, for the log.
    """
    loop = asyncio.get_running_loop()
    while True:
        duration = 0.0
        if is_needed():
            began = loop.time()
            try:
                await deal_once()
            except (EvenflowError, OSError) as error:
                log.error("%s: %s", subject, error)
            duration = loop.time() - began
        await asyncio.sleep(max(TICK - duration, PAUSE_FACTOR * duration))
