# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent reports about itself: to lb_info through a file, and to the service manager."""

from __future__ import annotations

import logging
import os
from typing import Any, Callable, Sequence

from .._errors import EvenflowError
from .._node import agent_status
from .._system.store import Store
from .notify import notify

log = logging.getLogger("evenflow")

REPAIRS = 20
"""Number of repairs that are reported; older ones are forgotten."""

_ERROR_LENGTH = 200


class Status:
    """The agent's report about itself.

    :param clock: seconds since the epoch.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._started = clock()
        self._is_ready = False
        self._counts = "no listener yet"
        self._repairs: list[dict[str, Any]] = []
        self._error = ""
        self._late_checks = 0

    def report_ready(self) -> None:
        """Report that the node has been reconciled, successfully or not. Only the first call has an effect."""
        if not self._is_ready:
            self._is_ready = True
            self._write()
            notify(READY="1", STATUS=self._summary())

    def report_error(self, text: str) -> None:
        """Report an error once for as long as it lasts; an empty text ends it."""
        if text == self._error:
            return
        self._error = text
        if text:
            log.error("%s; the kernel keeps the last good state", text)
        self._write()
        notify(STATUS=self._summary())

    def report_rejected(self, texts: Sequence[str]) -> None:
        """Report records of the runtime state that were damaged."""
        for text in texts:
            log.error("%s", text)

    def add_repairs(self, texts: Sequence[str]) -> None:
        """Report what was repaired."""
        if not texts:
            return
        for text in texts:
            log.warning("put right: %s", text)
        repairs = [{"time": round(self._clock()), "found": text} for text in texts]
        self._repairs = (self._repairs + repairs)[-REPAIRS:]
        self._write()

    def set_counts(self, listeners: int, backends: int) -> None:
        """Report the size of the configuration: all listeners, and the backends that are checked."""
        self._counts = f"{listeners} listeners, {backends} backends checked"
        notify(STATUS=self._summary())

    def set_late_checks(self, count: int) -> None:
        """Report how many checks have begun late."""
        if count != self._late_checks:
            self._late_checks = count
            self._write()

    def _summary(self) -> str:
        return self._error[:_ERROR_LENGTH] or self._counts

    def _write(self) -> None:
        try:
            agent_status.write(
                self._store,
                {
                    "pid": os.getpid(),
                    "started": round(self._started),
                    "repairs": self._repairs,
                    "error": self._error,
                    "late_checks": self._late_checks,
                },
            )
        except (EvenflowError, OSError) as error:
            log.error("the agent's report: %s", error)
