# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the comparison of the reports of several nodes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Callable

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._fleet import disagreements

BACKEND = {
    "name": "web1",
    "address": "198.19.0.1",
    "port": 0,
    "id": "0x80000001",
    "weight": 100,
    "status": "healthy",
    "active_flows": 3,
    "health": {"state": "healthy"},
}
REPORT = {
    "fingerprint": "f",
    "table_digest": "d",
    "node": {"hash_seed": 1, "agent": {"running": True}},
    "listeners": [{"name": "web", "scheduler": "mh", "status": "online", "backends": [BACKEND]}],
}
PLACE = "listener web: backend web1 198.19.0.1 port 0"


def _backend(report: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = report["listeners"][0]["backends"][0]
    return entry


def test_equal_nodes_agree() -> None:
    other = deepcopy(REPORT)
    _backend(other)["active_flows"] = 9
    assert not disagreements({"lb1": REPORT, "lb2": other})


@pytest.mark.parametrize(
    ("change", "differences"),
    [
        (lambda report: _backend(report).update(weight=7), [f"{PLACE}: weight: 100 on lb1, 7 on lb2"]),
        (
            lambda report: _backend(report).update(status="initial"),
            [f"{PLACE}: status: healthy on lb1, initial on lb2"],
        ),
        (
            lambda report: report["listeners"][0].update(scheduler="rr"),
            ["listener web: scheduler: mh on lb1, rr on lb2"],
        ),
        (lambda report: report["listeners"][0]["backends"].clear(), [f"{PLACE}: present on lb1, absent on lb2"]),
        (lambda report: report["listeners"].clear(), ["listener web: present on lb1, absent on lb2"]),
        (lambda report: report["node"].update(hash_seed=2), ["node hash_seed: 1 on lb1, 2 on lb2"]),
        (lambda report: report["node"]["agent"].update(running=False), ["agent of lb2: not running"]),
        (
            lambda report: report.update(table_digest="e"),
            ["table_digest: the nodes would not send every flow to the same backend"],
        ),
    ],
)
def test_differences_are_named(change: Callable[[dict[str, Any]], None], differences: list[str]) -> None:
    other = deepcopy(REPORT)
    change(other)
    assert disagreements({"lb1": REPORT, "lb2": other}) == differences
