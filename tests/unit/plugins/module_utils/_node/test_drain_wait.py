# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the wait until backends have no flows, with a clock that only sleeping advances."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.drain_wait import GRACE_SECONDS, wait
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.drain import RemainingFlows


class FakeDrain:
    """A node and the progress of a drain, with a clock that only sleeping advances."""

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


def _remaining(connections: int, deadline: float | None = None, **options: Any) -> RemainingFlows:
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


def _wait_result(fake: FakeDrain, max_connections: int = 0, seconds: float = 30, at_most: float = float("inf")) -> Any:
    began = fake.now
    result = wait(fake, fake, max_connections, seconds, 1.0, at_most)  # type: ignore[arg-type]
    return result.is_done, result.timed_out, result.ended, round(fake.now - began)


def test_a_wait_without_remaining_flows_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for left in ([], [_remaining(0)], [_remaining(5, is_dead=True)], [_remaining(5, is_draining=False)]):
        assert _wait_result(FakeDrain(monkeypatch, left)) == (True, False, 0, 0)
    assert _wait_result(FakeDrain(monkeypatch, [_remaining(3)]), max_connections=3) == (True, False, 0, 0)


def test_a_deadline_ends_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    done, timed_out, ended, seconds_taken = _wait_result(FakeDrain(monkeypatch, [_remaining(7, 1010.0)]))
    assert (done, timed_out, ended) == (True, True, 7) and 12 <= seconds_taken <= 14


def test_a_wait_without_a_deadline_ends_at_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _wait_result(FakeDrain(monkeypatch, [_remaining(7)])) == (False, True, 0, 30)


def test_a_wait_ends_after_the_grace_time_if_flows_do_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDrain(monkeypatch, [_remaining(7, 1010.0)], is_ended=False)
    done, timed_out, _ended, seconds_taken = _wait_result(fake)
    assert (done, timed_out) == (False, True) and seconds_taken >= 10 + GRACE_SECONDS and fake.processed


def test_a_part_of_a_wait_does_not_end_shortly_before_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _wait_result(FakeDrain(monkeypatch, [_remaining(7, 1100.0)]), at_most=10) == (False, False, 0, 10)
    assert _wait_result(FakeDrain(monkeypatch, [_remaining(7, 1012.0)]), at_most=10)[:3] == (True, True, 7)
