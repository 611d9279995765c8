# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP requests at a steady rate, for the length of a block."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from .nodes import Node
from .traffic import Load, Record, finish, start_load, wait_for_answers


class SteadyLoad:
    """A load that runs inside a `with` block, from the first answer until `end` is called.

    Every request that was begun has a record, so that no failed request is missed.
    """

    def __init__(self, node: Node, targets: Sequence[str], *, rate: float) -> None:
        self._node, self._targets, self._rate = node, targets, rate
        self._load: Load | None = None

    def __enter__(self) -> SteadyLoad:
        self._load = start_load(self._node, "http", self._targets, rate=self._rate)
        wait_for_answers(self._load, 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._load:
            self._load.abandon()

    def end(self, least: int = 1) -> list[Record]:
        """End the load after at least `least` requests and return the records. Raise LoadEnded if it ended before."""
        assert self._load
        records = finish(self._load, least=least)
        self._load = None
        return records
