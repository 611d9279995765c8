# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The figures of the demo distinguish right from wrong."""

from __future__ import annotations

from typing import Any

from lab.tally import phase, rates, traffic
from lab.traffic import Record

WEIGHTS = {"b1": 3, "b2": 2, "b3": 1}


def test_traffic_with_exact_shares_is_as_expected() -> None:
    counted = traffic("web", _records(b1=300, b2=200, b3=100), _reports("wrr", 5), _reports("wrr", 305))
    assert (counted.flows, counted.failed, counted.same_peer) == (600, 0, 600)
    assert [(row.flows, round(row.expected, 3), row.forwarded) for row in counted.rows] == [
        (300, 0.5, {"lb1": 300, "lb2": 300}),
        (200, 0.333, {"lb1": 300, "lb2": 300}),
        (100, 0.167, {"lb1": 300, "lb2": 300}),
    ]
    assert counted.as_expected


def test_traffic_off_its_shares_is_not() -> None:
    off_by_five = _records(b1=305, b2=195, b3=100)
    assert not traffic("web", off_by_five, _reports("wrr", 0), _reports("wrr", 1)).as_expected
    assert traffic("web", off_by_five, _reports("mh", 0), _reports("mh", 1)).as_expected
    assert not traffic("web", _records(b1=400, b2=100, b3=100), _reports("mh", 0), _reports("mh", 1)).as_expected
    assert not traffic("web", [], _reports("wrr", 0), _reports("wrr", 1)).as_expected


def test_phase_counts_its_own_requests() -> None:
    records = [*_records(b1=30, b2=20, b3=10), _record("b1", t=7.0), _record(None, t=2.0)]
    counted = phase("one", records, 0.0, 1.0, 3.0, WEIGHTS)
    assert (counted.requests, counted.failed, counted.flows) == (61, 1, {"b1": 30, "b2": 20, "b3": 10})
    assert counted.as_expected(0.001)
    assert not phase("none", records, 0.0, 10.0, 11.0, WEIGHTS).as_expected(0.5)


def test_one_request_at_weight_0_is_too_many() -> None:
    weights = {**WEIGHTS, "b1": 0}
    assert phase("out", _records(b2=200, b3=100), 0.0, 0.0, 3.0, weights).as_expected(0.02)
    assert not phase("out", _records(b1=1, b2=200, b3=100), 0.0, 0.0, 3.0, weights).as_expected(0.02)


def test_rates_are_per_second() -> None:
    records = [_record("b1", t=time) for time in (0.0, 0.4, 0.5, 1.2)] + [_record("b2", t=0.7), _record(None, t=0.1)]
    assert rates(records, 0.0, 1.4, 0.5) == {"b1": [4.0, 2.0], "b2": [0.0, 2.0]}


def _record(backend: str | None, t: float) -> Record:
    return Record(
        t,
        "http",
        "198.18.100.1:80",
        backend is not None,
        backend,
        "198.18.0.10",
        1,
        "198.18.0.10",
        1,
        None if backend else "timeout",
        0.01,
        None,
    )


def _records(**counts: int) -> list[Record]:
    return [_record(backend, t=1.5) for backend, count in counts.items() for _number in range(count)]


def _reports(scheduler: str, flows: int) -> dict[str, dict[str, Any]]:
    """Return results of lb_info on two nodes, with the same count of flows at every backend."""
    backends = [
        {"name": name, "weight": weight, "slots": weight, "counters": {"flows": flows}}
        for name, weight in WEIGHTS.items()
    ]
    listener = {"name": "web", "table": {"size": 6, "scheduler": scheduler}, "backends": backends}
    return {node: {"listeners": [listener]} for node in ("lb1", "lb2")}
