# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP requests at a steady rate, for as long as the caller has something to do."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import TracebackType

from .nodes import Node
from .traffic import Load, Record, finish, start_load

_MORE_SECONDS = 5.0
_PATIENCE = 60.0


class SteadyLoad:
    """A load that runs inside a `with` block, for `seconds` and then in short turns until `end` is called.

    Every request that was begun ends in a record, so that none that failed can go missing. Between turns the load
    pauses while its program starts, so `seconds` is better too long than too short.
    """

    def __init__(self, node: Node, targets: Sequence[str], *, rate: float, seconds: float) -> None:
        self._node, self._targets, self._rate, self._seconds = node, targets, rate, seconds
        self._ending = Event()
        self._load: Load | None = None
        self._pool = ThreadPoolExecutor(max_workers=1)

    def __enter__(self) -> SteadyLoad:
        self._records = self._pool.submit(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if self._load and self._load.process.poll() is None:
            self._load.process.terminate()
        self._pool.shutdown()

    def end(self) -> list[Record]:
        """Wait for the turn that runs and return the records of all."""
        self._ending.set()
        return self._records.result()

    def _run(self) -> list[Record]:
        records: list[Record] = []
        seconds = self._seconds
        while True:
            self._load = start_load(self._node, "http", self._targets, rate=self._rate, seconds=seconds)
            records += finish(self._load, timeout=seconds + _PATIENCE)
            if self._ending.is_set():
                return records
            seconds = _MORE_SECONDS
