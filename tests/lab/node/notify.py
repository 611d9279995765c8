# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell systemd that a service is ready."""

from __future__ import annotations

import os
import socket


def notify_ready() -> None:
    """Send READY=1 to the service manager that started this process; nothing happens without one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.send(b"READY=1")
