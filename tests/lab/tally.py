# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The figures of the demo: flows of each backend beside the expected ones, from records and results of `lb_info`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .traffic import Record, failures, shares

# In any part of a wrr cycle a backend is less than two flows off its exact share, and every node has a separate cycle.
_WINDOW_FLOWS = 2
# A hash chooses at random: five standard deviations are exceeded less than once in a million runs.
_DEVIATIONS = 5


@dataclass(frozen=True)
class Row:
    """A backend of a listener. Shares are 0 to 1; `forwarded` counts the flows at each load balancer."""

    backend: str
    weight: int
    flows: int
    share: float
    expected: float
    forwarded: dict[str, int]


@dataclass(frozen=True)
class Traffic:
    """The flows to one listener. `allowed`: maximum difference in flows of each backend from its share."""

    listener: str
    scheduler: str
    flows: int
    failed: int
    same_peer: int
    allowed: dict[str, float]
    rows: tuple[Row, ...]

    @property
    def as_expected(self) -> bool:
        """Return whether every backend had its share."""
        return bool(self.flows) and all(
            abs(row.flows - row.expected * self.flows) <= self.allowed[row.backend] for row in self.rows
        )


@dataclass(frozen=True)
class Phase:
    """A stretch of a load, in seconds since its start. `expected` is empty while the weights are being changed."""

    name: str
    begin: float
    end: float
    requests: int
    failed: int
    flows: dict[str, int]
    expected: dict[str, float]

    def share(self, backend: str) -> float:
        """Return the backend's part of the answered requests, 0 to 1."""
        answered = self.requests - self.failed
        return self.flows.get(backend, 0) / answered if answered else 0.0

    def as_expected(self, points: float) -> bool:
        """Return whether each share is within `points` (0 to 1) of the expected share, and 0 where that is 0."""
        return self.requests > 0 and all(
            abs(self.share(backend) - part) <= (points if part else 0) for backend, part in self.expected.items()
        )


def traffic(listener: str, records: Sequence[Record], before: Mapping[str, Any], after: Mapping[str, Any]) -> Traffic:
    """Count the flows to one listener. `before` and `after` are the results of `lb_info` by node."""
    answered = shares(records)
    total = sum(answered.values())
    shown = _listener(next(iter(after.values())), listener)
    size, scheduler = shown["table"]["size"], shown["table"]["scheduler"]
    rows, allowed = [], {}
    for number, backend in enumerate(shown["backends"]):
        name, part = backend["name"], backend["slots"] / size
        rows.append(
            Row(
                name,
                backend["weight"],
                answered[name],
                answered[name] / total if total else 0.0,
                part,
                {
                    node: _flows(after[node], listener, number) - _flows(before[node], listener, number)
                    for node in after
                },
            )
        )
        spread = _DEVIATIONS * (total * part * (1 - part)) ** 0.5
        allowed[name] = spread if scheduler == "mh" else float(_WINDOW_FLOWS * len(after))
    return Traffic(
        listener,
        scheduler,
        total,
        len(failures(records)),
        sum(record.ok and record.peer == record.source for record in records),
        allowed,
        tuple(rows),
    )


def phase(
    name: str,
    records: Iterable[Record],
    start: float,
    begin: float,
    end: float,
    weights: Mapping[str, int] | None = None,
) -> Phase:
    """Count the requests that began from `begin` to before `end`; times and `start` are seconds since the epoch."""
    chosen = [record for record in records if begin <= record.t < end]
    total = sum(weights.values()) if weights else 0
    expected = {backend: weight / total for backend, weight in weights.items()} if weights else {}
    return Phase(
        name,
        round(begin - start, 3),
        round(end - start, 3),
        len(chosen),
        len(failures(chosen)),
        dict(sorted(shares(chosen).items())),
        expected,
    )


def rates(records: Iterable[Record], start: float, end: float, width: float) -> dict[str, list[float]]:
    """Return the answered requests per second of each backend in consecutive whole stretches of `width` seconds."""
    count = int((end - start) / width)
    bins: dict[str, Counter[int]] = {}
    for record in records:
        if record.ok and record.backend:
            bins.setdefault(record.backend, Counter())[int((record.t - start) / width)] += 1
    return {backend: [bins[backend][number] / width for number in range(count)] for backend in sorted(bins)}


def _listener(report: Mapping[str, Any], name: str) -> Any:
    return next(listener for listener in report["listeners"] if listener["name"] == name)


def _flows(report: Mapping[str, Any], listener: str, number: int) -> int:
    return int(_listener(report, listener)["backends"][number]["counters"]["flows"])
