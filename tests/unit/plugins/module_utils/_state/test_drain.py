# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of a drain request: the backends it selects, the timeouts, and the guard of the eligible backends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.derived import Derived
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.validation import Faults, parse_drain
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import InvalidInput
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.drain import DrainRequest
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.effective import effective
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import Health, HealthState
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.runtime import EMPTY_RUNTIME
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.transition import Event, transition
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, check, document, listener

B1, B2, B3 = "198.19.0.1", "198.19.0.2", "198.19.0.3"

LISTENERS = document(
    listener("api", backend(B1, name="b1"), backend(B2, name="b2"), connection_draining_timeout_sec=20),
    listener(
        "web", backend(B1, name="b1"), backend(B2, name="b2"), connection_draining_timeout_sec=10, address="198.18.0.99"
    ),
    listener("db", backend(B3, name="b3"), drain_mode="natural", address="198.18.0.98"),
)


def drain_request(*machines: str, **options: Any) -> DrainRequest:
    faults = Faults()
    result = DrainRequest.from_options(parse_drain({"backends": list(machines), **options}, faults))
    faults.raise_if_any()
    return result


def admin_states(configured: Any) -> dict[str, str]:
    return {
        f"{name}/{entry['name']}": entry["admin_state"] for name in configured for entry in configured[name]["backends"]
    }


@pytest.mark.parametrize("machine", ["b1", B1])
def test_a_machine_is_drained_in_all_listeners(machine: str) -> None:
    after = drain_request(machine).edit(LISTENERS, Faults())
    changed = {name for name, state in admin_states(after).items() if state != admin_states(LISTENERS)[name]}
    assert changed == {"api/b1", "web/b1"}
    assert drain_request(machine, state="active").edit(after, Faults()) == LISTENERS
    assert drain_request(machine).edit(after, Faults()) == after


def test_a_drain_in_a_single_listener() -> None:
    after = drain_request("b1", "b2", listener=["web"]).edit(LISTENERS, Faults())
    assert {name for name, state in admin_states(after).items() if state == "drained"} == {"web/b1", "web/b2"}


def test_a_disabled_backend_stays_disabled() -> None:
    before = document(listener("web", backend(B1, admin_state="disabled"), backend(B2)))
    assert drain_request(B1).edit(before, Faults()) == before
    assert drain_request(B1, state="active").edit(before, Faults()) == before


def test_unknown_listeners_and_backends() -> None:
    faults = Faults()
    drain_request("b9", listener=["web", "nowhere"]).edit(LISTENERS, faults)
    assert faults.errors == [
        "listener: 'nowhere' is not a listener of this node; there are ['api', 'db', 'web']",
        "backends: 'b9' is neither name nor address of a backend there; there are ['b1', 'b2', 'b3']",
    ]
    faults = Faults()
    assert drain_request("b9", not_found="ignore").edit(LISTENERS, faults) == LISTENERS
    assert not faults.errors


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 20.0),
        ({"timeout": 5}, 5.0),
        ({"on_timeout": "fail"}, None),
        ({"on_timeout": "continue", "timeout": 5}, None),
    ],
)
def test_timeouts_by_option(options: dict[str, Any], expected: float | None) -> None:
    drain = drain_request("b1", **options)
    assert drain.timeouts(drain.edit(LISTENERS, Faults())) == {f"api/{B1}/0": expected, f"web/{B1}/0": expected}


def test_natural_mode_ends_only_with_a_timeout() -> None:
    for options, expected in (({}, None), ({"timeout": 5}, 5.0)):
        drain = drain_request("b3", **options)
        assert drain.timeouts(drain.edit(LISTENERS, Faults())) == {f"db/{B3}/0": expected}


def test_a_second_drain_does_not_move_the_deadline_but_another_timeout_does() -> None:
    first = drain_request("b1")
    after = first.edit(LISTENERS, Faults())
    old, new = Configuration.from_document(LISTENERS), Configuration.from_document(after)
    begun = transition(EMPTY_RUNTIME, Event(old, new, 100.0, drain_timeouts=first.timeouts(after)), dict)
    assert {drain.deadline for drain in begun.drains.values()} == {120.0}
    again = transition(begun, Event(new, new, 110.0, drain_timeouts=first.timeouts(after)), dict)
    assert again.drains == begun.drains
    longer = transition(
        begun, Event(new, new, 110.0, drain_timeouts=drain_request("b1", timeout=60).timeouts(after)), dict
    )
    assert {drain.deadline for drain in longer.drains.values()} == {160.0}


def test_a_drain_by_configuration_has_the_timeout_of_each_listener() -> None:
    after = drain_request("b1").edit(LISTENERS, Faults())
    old, new = Configuration.from_document(LISTENERS), Configuration.from_document(after)
    begun = transition(EMPTY_RUNTIME, Event(old, new, 100.0), dict)
    deadlines = {name: drain.deadline for name, drain in begun.drains.items()}
    assert deadlines == {f"api/{B1}/0": 120.0, f"web/{B1}/0": 110.0}


def _guard(drain: DrainRequest, **health: str) -> None:
    checked = {name: {**entry, "health_check": check()} for name, entry in LISTENERS.items()}
    health_by_backend = {
        f"{name}/{entry['address']}/0": Health(HealthState(health.get(entry["name"], "healthy")), 0.0)
        for name in LISTENERS
        for entry in LISTENERS[name]["backends"]
    }
    runtime = replace(EMPTY_RUNTIME, health=health_by_backend)
    before, after = (
        effective(Configuration.from_document(configured), runtime)
        for configured in (checked, drain.edit(checked, Faults()))
    )
    drain.guard(before, after, Derived())


def test_the_guard_counts_eligible_backends() -> None:
    """Row 38: a backend counts if it is healthy, accepts new flows and is not drained on another node."""
    _guard(drain_request("b1"))
    _guard(drain_request("b1", "b2", min_eligible=0))
    _guard(drain_request("b1", min_eligible=2), b1="unhealthy")
    with pytest.raises(InvalidInput, match=r"min_eligible: 2: api would keep 1 eligible backends \(b2\) of 2; "):
        _guard(drain_request("b1", min_eligible=2))
    with pytest.raises(InvalidInput, match="api would keep 0 eligible backends of 1"):
        _guard(drain_request("b1"), b2="unhealthy")
    with pytest.raises(InvalidInput, match="api would keep 0 eligible backends of 1"):
        _guard(drain_request("b1", out_elsewhere=["b2"]))
    with pytest.raises(InvalidInput, match="db would keep 0"):
        _guard(drain_request("b3"))
