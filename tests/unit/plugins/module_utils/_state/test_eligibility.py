# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the backends that may get a new flow: all combinations of two primaries and two failover backends."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Backend, FailoverPolicy
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.eligibility import (
    Pool,
    accepts,
    drops,
    select,
)
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, service

GOOD = Backend(**backend("198.19.0.1", weight=1))
WEIGHT_0 = Backend(**backend("198.19.0.2", weight=0))
SCALER_0 = Backend(**backend("198.19.0.4", capacity_scaler=0))
DRAINED = Backend(**backend("198.19.0.3", admin_state="drained"))
DISABLED = Backend(**backend("198.19.0.5", admin_state="disabled"))

STATES = ("healthy", "unhealthy", "initial", "drained", "weight 0")


def _backend(number: int, state: str, failover: bool) -> Backend:
    by_state: dict[str, dict[str, Any]] = {"drained": {"admin_state": "drained"}, "weight 0": {"weight": 0}}
    health = state if state in ("healthy", "unhealthy", "initial") else "healthy"
    return Backend(**backend(f"198.19.0.{number}", failover=failover, **by_state.get(state, {})), health=health)


def _expected(primaries: tuple[str, ...], failovers: tuple[str, ...], ratio: float, drop: bool) -> tuple[str, set[int]]:
    """Return the pool and the numbers of the eligible backends, computed as the specification describes it."""
    monitored = [number for number, state in enumerate(primaries) if state in ("healthy", "unhealthy")]
    healthy = {number for number in monitored if primaries[number] == "healthy"}
    failover = {number + 2 for number, state in enumerate(failovers) if state == "healthy"}
    if healthy and len(healthy) / len(monitored) >= ratio:
        return Pool.PRIMARY, healthy
    if failover:
        return Pool.FAILOVER, failover
    if healthy:
        return Pool.PRIMARY, healthy
    return Pool.PRIMARY, set() if drop else set(monitored)


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.75, 1.0])
def test_every_combination_of_states(ratio: float, drop: bool) -> None:
    policy = FailoverPolicy(ratio, drop, False)
    for states in product(STATES, repeat=4):
        backends = tuple(_backend(number, state, number > 1) for number, state in enumerate(states))
        selection = select(service(backends, failover_policy=policy))
        chosen = {backends.index(entry) for entry in selection.backends}
        assert (selection.pool, chosen) == _expected(states[:2], states[2:], ratio, drop), states


@pytest.mark.parametrize("drop", [False, True])
def test_without_failover_backends(drop: bool) -> None:
    policy = FailoverPolicy(0.0, drop, False)
    for states in product(STATES, repeat=3):
        backends = tuple(_backend(number, state, False) for number, state in enumerate(states))
        healthy = [number for number, state in enumerate(states) if state == "healthy"]
        unhealthy = [number for number, state in enumerate(states) if state == "unhealthy"]
        chosen = [backends.index(entry) for entry in select(service(backends, failover_policy=policy)).backends]
        assert chosen == (healthy or ([] if drop else unhealthy)), states


@pytest.mark.parametrize(
    ("healthy", "pool"), [(4, Pool.PRIMARY), (3, Pool.PRIMARY), (2, Pool.FAILOVER), (0, Pool.FAILOVER)]
)
def test_row_28_strictly_below_the_ratio_fails_over(healthy: int, pool: str) -> None:
    states = ["healthy"] * healthy + ["unhealthy"] * (4 - healthy)
    backends = [_backend(number, state, False) for number, state in enumerate(states)]
    standby = _backend(9, "healthy", True)
    policy = FailoverPolicy(0.75, False, False)
    assert select(service((*backends, standby), failover_policy=policy)).pool == pool


def test_only_enabled_backends_with_a_share_are_eligible() -> None:
    assert select(service((WEIGHT_0, SCALER_0, GOOD, DRAINED, DISABLED))).backends == (GOOD,)


@pytest.mark.parametrize(
    ("backends", "state", "expected"),
    [
        ((GOOD,), "enabled", True),
        ((GOOD,), "disabled", False),
        ((WEIGHT_0, DRAINED), "enabled", False),
        ((), "enabled", False),
    ],
)
def test_a_listener_accepts_flows_if_a_backend_is_eligible(
    backends: tuple[Backend, ...], state: str, expected: bool
) -> None:
    concerned = service(backends, admin_state=state)
    assert accepts(concerned, select(concerned)) is expected


@pytest.mark.parametrize(
    ("state", "health", "expected"),
    [
        ("enabled", "unhealthy", True),
        ("enabled", "healthy", False),
        ("enabled", "initial", False),
        ("disabled", "unhealthy", False),
    ],
)
def test_new_flows_are_dropped_only_if_all_backends_are_unhealthy(state: str, health: str, expected: bool) -> None:
    """New flows are rejected if the listener is disabled or the health is not known yet."""
    listener = service((_backend(1, health, False),), failover_policy=FailoverPolicy(0.0, True, False))
    concerned = service(listener.backends, failover_policy=listener.failover_policy, admin_state=state)
    assert drops(concerned, select(concerned)) is expected
