# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting until backends have no flows left, with a clock that passes by sleeping."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.drain_wait import GRACE_SECONDS, wait
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.drain import RemainingFlows


class Fake:
    """A node, and the progress of its drain, whose time passes by sleeping."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: list[RemainingFlows], is_ended: bool = True) -> None:
        self.left, self.is_ended, self.now, self.processed = left, is_ended, 1000.0, 0
        for name in ("time", "monotonic"):
            monkeypatch.setattr(time, name, lambda: self.now)
        monkeypatch.setattr(time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def count(self) -> list[RemainingFlows]:
        return [
            replace(
                flows,
                is_expired=flows.deadline is not None and self.now >= flows.deadline,
                connections=0
                if self.is_ended and flows.deadline and self.now > flows.deadline + 2
                else flows.connections,
            )
            for flows in self.left
        ]

    def process_deadlines(self) -> None:
        self.processed += 1


def _left(connections: int, deadline: float | None = None, **options: Any) -> RemainingFlows:
    return RemainingFlows(
        "web",
        "b1",
        "198.19.0.1",
        0,
        **{
            "connections": connections,
            "deadline": deadline,
            "is_expired": False,
            "is_dead": False,
            "is_draining": True,
            **options,
        },
    )


def _waited(fake: Fake, max_connections: int = 0, seconds: float = 30, at_most: float = float("inf")) -> Any:
    began = fake.now
    result = wait(fake, fake, max_connections, seconds, 1.0, at_most)  # type: ignore[arg-type]
    return result.is_done, result.timed_out, result.ended, round(fake.now - began)


def test_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for left in ([], [_left(0)], [_left(5, is_dead=True)], [_left(5, is_draining=False)]):
        assert _waited(Fake(monkeypatch, left)) == (True, False, 0, 0)
    assert _waited(Fake(monkeypatch, [_left(3)]), max_connections=3) == (True, False, 0, 0)


def test_a_deadline_ends_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    done, over, ended, took = _waited(Fake(monkeypatch, [_left(7, 1010.0)]))
    assert (done, over, ended) == (True, True, 7) and 12 <= took <= 14


def test_without_a_deadline_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _waited(Fake(monkeypatch, [_left(7)])) == (False, True, 0, 30)


def test_flows_that_do_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch, [_left(7, 1010.0)], is_ended=False)
    done, over, _ended, took = _waited(fake)
    assert (done, over) == (False, True) and took >= 10 + GRACE_SECONDS and fake.processed


def test_a_slice_ends_but_not_near_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _waited(Fake(monkeypatch, [_left(7, 1100.0)]), at_most=10) == (False, False, 0, 10)
    assert _waited(Fake(monkeypatch, [_left(7, 1012.0)]), at_most=10)[:3] == (True, True, 7)
