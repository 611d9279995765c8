# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The slots in which scripts run: a bound on how many run at once, and an end for all processes of each.

Each slot is a control group of its own below that of the service, so that also a process that has left its script's
process group, or has become a daemon, ends with the script.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextlib import suppress

log = logging.getLogger("evenflow")

AT_ONCE = 256
"""Maximum number of scripts that run at once."""

_LOG_SECONDS = 60.0
_LOOK_SECONDS = 0.02
_CONTROL_GROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
"""Where version 2 of control groups is: alone, and beside version 1."""


class Slot:
    """The processes of one script at a time.

    :param folder: of the control group; ``None`` where there is none, which leaves only the process group.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._processes = -1
        if folder:
            os.makedirs(folder, exist_ok=True)
            self._processes = os.open(os.path.join(folder, "cgroup.procs"), os.O_WRONLY)

    def enter(self) -> None:
        """Move the calling process into the slot. It runs between fork and exec."""
        if self._processes >= 0:
            os.write(self._processes, b"0")

    def kill(self, group: int) -> None:
        """Kill all processes in the slot.

        :param group: the process group of the script.
        """
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        if self._folder:
            with open(os.path.join(self._folder, "cgroup.kill"), "w", encoding="ascii") as file:
                file.write("1")

    async def wait_empty(self) -> None:
        """Wait until no process is left in the slot."""
        while self._folder:
            with open(os.path.join(self._folder, "cgroup.events"), encoding="ascii") as file:
                if "populated 0" in file.read():
                    return
            await asyncio.sleep(_LOOK_SECONDS)


class Slots:
    """Lends slots to scripts. Create it in the event loop that uses it.

    :param folder: of the service's own control group, in which it may make others; ``None`` without one.
    """

    def __init__(self, folder: str | None = None, at_once: int = AT_ONCE) -> None:
        self._folder = folder
        self._at_once = at_once
        self._made = 0
        self._free: list[Slot] = []
        self._returned = asyncio.Condition()
        self._logged = float("-inf")
        self._returning: set[asyncio.Task[None]] = set()

    async def take(self, seconds: float) -> Slot | None:
        """Return a slot, or ``None`` if none is free within some seconds."""
        async with self._returned:
            try:
                await asyncio.wait_for(self._returned.wait_for(self._has_room), seconds)
            except asyncio.TimeoutError:
                self._log_late(seconds)
                return None
            if self._free:
                return self._free.pop()
            slot = Slot(os.path.join(self._folder, f"script-{self._made}") if self._folder else None)
            self._made += 1
            return slot

    def give_back(self, slot: Slot) -> None:
        """Lend a slot again when its processes have ended."""
        task = asyncio.ensure_future(self._give_back(slot))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    def _has_room(self) -> bool:
        return bool(self._free) or self._made < self._at_once

    async def _give_back(self, slot: Slot) -> None:
        await slot.wait_empty()
        async with self._returned:
            self._free.append(slot)
            self._returned.notify()

    def _log_late(self, seconds: float) -> None:
        now = time.monotonic()
        if now - self._logged > _LOG_SECONDS:
            self._logged = now
            log.warning("scripts are late: %d run at once, and one has waited %.1f s", self._at_once, seconds)


def own_control_group() -> str | None:
    """Return the folder of this process's control group; ``None`` if it may not make others in it."""
    with open("/proc/self/cgroup", encoding="ascii") as file:
        own = [line[len("0::/") :].strip() for line in file if line.startswith("0::/")]
    for base in _CONTROL_GROUPS if own else ():
        folder = os.path.join(base, own[0])
        if os.path.exists(os.path.join(folder, "cgroup.kill")) and os.access(folder, os.W_OK):
            return folder
    return None
