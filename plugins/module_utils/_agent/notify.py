# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the service manager is told: sd_notify's protocol, datagrams to a socket that the environment names."""

from __future__ import annotations

import os
import socket


def notify(**told: str) -> None:
    """Tell the service manager, if there is one: ``READY="1"``, ``STATUS="…"``, ``WATCHDOG="1"``."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    text = "\n".join(f"{name}={value}" for name, value in told.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.sendto(text.encode("utf-8"), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            # Nobody to tell is no reason to stop.
            pass


def watchdog_interval() -> float | None:
    """Return how often the service manager wants to hear of us, in seconds; ``None`` if it does not."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() else None
