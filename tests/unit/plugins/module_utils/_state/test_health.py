# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of row 23: the results of checks that change a health state."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import HealthCheck
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import (
    CheckResult,
    Health,
    HealthState,
)
from ansible_collections.evenflow.l4lb.tests.unit.factories import check, configuration, listener

INITIAL, HEALTHY, UNHEALTHY = HealthState


def _check(healthy: int, unhealthy: int) -> HealthCheck:
    options = check(healthy_threshold=healthy, unhealthy_threshold=unhealthy)
    health_check = configuration(listener("web", health_check=options)).listeners[0].health_check
    if health_check is None:
        raise ValueError("there is a check")
    return health_check


def _after(state: HealthState, results: str, healthy: int, unhealthy: int) -> HealthState:
    health = Health(state, 0.0)
    for number, letter in enumerate(results, 1):
        health = health.after(CheckResult(letter == "+", letter), _check(healthy, unhealthy), float(number))
    return health.state


@pytest.mark.parametrize(
    ("state", "results", "expected"),
    [
        (HEALTHY, "--", HEALTHY),
        (HEALTHY, "---", UNHEALTHY),
        (HEALTHY, "--+--+--", HEALTHY),
        (HEALTHY, "-+" * 20, HEALTHY),
        (UNHEALTHY, "+", UNHEALTHY),
        (UNHEALTHY, "++", HEALTHY),
        (UNHEALTHY, "+-" * 20, UNHEALTHY),
        (INITIAL, "+", HEALTHY),
        (INITIAL, "--", INITIAL),
        (INITIAL, "---", UNHEALTHY),
        (INITIAL, "---+", UNHEALTHY),
        (INITIAL, "--+", HEALTHY),
    ],
)
def test_a_threshold_of_equal_results_in_a_row_changes_the_state(
    state: HealthState, results: str, expected: HealthState
) -> None:
    assert _after(state, results, healthy=2, unhealthy=3) == expected


@pytest.mark.parametrize("threshold", range(1, 11))
def test_fewer_results_than_the_threshold_change_nothing(threshold: int) -> None:
    assert _after(HEALTHY, "-" * (threshold - 1), 1, threshold) == HEALTHY
    assert _after(HEALTHY, "-" * threshold, 1, threshold) == UNHEALTHY
    assert _after(UNHEALTHY, "+" * (threshold - 1), threshold, 1) == UNHEALTHY
    assert _after(UNHEALTHY, "+" * threshold, threshold, 1) == HEALTHY


def test_since_is_the_time_of_the_change_and_message_is_the_last_result() -> None:
    health = Health(HEALTHY, 1.0)
    health = health.after(CheckResult(False, "refused"), _check(2, 2), 5.0)
    assert (health.since, health.message) == (1.0, "refused")
    health = health.after(CheckResult(False, "timed out after 2 s"), _check(2, 2), 6.0)
    assert (health.state, health.since, health.message) == (UNHEALTHY, 6.0, "timed out after 2 s")


def test_a_failure_keeps_the_reported_weight() -> None:
    health = Health(HEALTHY, 1.0).after(CheckResult(True, "ok", 7), _check(1, 3), 2.0)
    assert health.after(CheckResult(False, "refused"), _check(1, 3), 3.0).weight == 7


@pytest.mark.parametrize("state", HealthState)
def test_no_result_changes_only_the_message(state: HealthState) -> None:
    """Row 59: trouble on the node itself says nothing about a backend."""
    before = Health(state, 5.0, streak=1, message="refused", weight=3)
    after = before.after(CheckResult(None, "not checked: too many open files"), _check(1, 1), 9.0)
    assert after == replace(before, message="not checked: too many open files")
