# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports to the service manager: sd_notify's protocol, datagrams to a socket that the environment names."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Callable


def notify(**variables: str) -> None:
    """Report to the service manager, if there is one: ``READY="1"``, ``STATUS="…"``, ``WATCHDOG="1"``."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    text = "\n".join(f"{name}={value}" for name, value in variables.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(text.encode("utf-8"), "\0" + address[1:] if address.startswith("@") else address)
    except OSError:
        # The agent works without a service manager too, and while it has no descriptor to report with.
        pass


def watchdog_interval() -> float | None:
    """Return within how many seconds the service manager expects a sign of life; ``None`` if it does not."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() else None


async def feed_watchdog(makes_progress: Callable[[], bool]) -> None:
    """Give the service manager a sign of life three times per interval, until this task is cancelled.

    :param makes_progress: returns whether to give it; after an interval without one, the manager ends the process.
    """
    interval = watchdog_interval()
    while interval:
        if makes_progress():
            notify(WATCHDOG="1")
        await asyncio.sleep(interval / 3)
    await asyncio.Event().wait()
