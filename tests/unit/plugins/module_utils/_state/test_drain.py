# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whom a drain is about, how long it lasts, what it may not take away, and how it is waited for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
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

FLEET = document(
    listener("api", backend(B1, name="b1"), backend(B2, name="b2"), connection_draining_timeout_sec=20),
    listener(
        "web", backend(B1, name="b1"), backend(B2, name="b2"), connection_draining_timeout_sec=10, address="198.18.0.99"
    ),
    listener("db", backend(B3, name="b3"), drain_mode="natural", address="198.18.0.98"),
)


def request(*machines: str, **options: Any) -> DrainRequest:
    faults = Faults()
    found = DrainRequest.from_options(parse_drain({"backends": list(machines), **options}, faults))
    faults.raise_if_any()
    return found


def states(found: Any) -> dict[str, str]:
    return {f"{name}/{one['name']}": one["admin_state"] for name in found for one in found[name]["backends"]}


@pytest.mark.parametrize("machine", ["b1", B1])
def test_a_machine_in_all_its_listeners(machine: str) -> None:
    after = request(machine).edit(FLEET, Faults())
    changed = {name for name, state in states(after).items() if state != states(FLEET)[name]}
    assert changed == {"api/b1", "web/b1"}
    assert request(machine, state="active").edit(after, Faults()) == FLEET
    assert request(machine).edit(after, Faults()) == after


def test_one_listener() -> None:
    after = request("b1", "b2", listener=["web"]).edit(FLEET, Faults())
    assert {name for name, state in states(after).items() if state == "drained"} == {"web/b1", "web/b2"}


def test_disabled_stays_disabled() -> None:
    before = document(listener("web", backend(B1, admin_state="disabled"), backend(B2)))
    assert request(B1).edit(before, Faults()) == before
    assert request(B1, state="active").edit(before, Faults()) == before


def test_what_there_is_not() -> None:
    faults = Faults()
    request("b9", listener=["web", "nowhere"]).edit(FLEET, faults)
    assert faults.errors == [
        "listener: 'nowhere' is not a listener of this node; there are ['api', 'db', 'web']",
        "backends: 'b9' is neither name nor address of a backend there; there are ['b1', 'b2', 'b3']",
    ]
    faults = Faults()
    assert request("b9", not_found="ignore").edit(FLEET, faults) == FLEET
    assert not faults.errors


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, 20.0),
        ({"timeout": 5}, 5.0),
        ({"on_timeout": "fail"}, None),
        ({"on_timeout": "continue", "timeout": 5}, None),
    ],
)
def test_timeouts(options: dict[str, Any], wanted: float | None) -> None:
    asked = request("b1", **options)
    assert asked.timeouts(asked.edit(FLEET, Faults())) == {f"api/{B1}/0": wanted, f"web/{B1}/0": wanted}


def test_natural_mode_ends_only_with_a_timeout() -> None:
    for options, wanted in (({}, None), ({"timeout": 5}, 5.0)):
        asked = request("b3", **options)
        assert asked.timeouts(asked.edit(FLEET, Faults())) == {f"db/{B3}/0": wanted}


def test_a_second_drain_does_not_move_the_deadline_but_another_timeout_does() -> None:
    first = request("b1")
    after = first.edit(FLEET, Faults())
    old, new = Configuration.from_document(FLEET), Configuration.from_document(after)
    begun = transition(EMPTY_RUNTIME, Event(old, new, 100.0, drain_timeouts=first.timeouts(after)), dict)
    assert {drain.deadline for drain in begun.drains.values()} == {120.0}
    again = transition(begun, Event(new, new, 110.0, drain_timeouts=first.timeouts(after)), dict)
    assert again.drains == begun.drains
    longer = transition(begun, Event(new, new, 110.0, drain_timeouts=request("b1", timeout=60).timeouts(after)), dict)
    assert {drain.deadline for drain in longer.drains.values()} == {160.0}


def test_a_drain_by_configuration_has_each_listeners_own_time() -> None:
    after = request("b1").edit(FLEET, Faults())
    old, new = Configuration.from_document(FLEET), Configuration.from_document(after)
    begun = transition(EMPTY_RUNTIME, Event(old, new, 100.0), dict)
    found = {name: drain.deadline for name, drain in begun.drains.items()}
    assert found == {f"api/{B1}/0": 120.0, f"web/{B1}/0": 110.0}


def _guard(asked: DrainRequest, **health: str) -> None:
    checked = {name: {**one, "health_check": check()} for name, one in FLEET.items()}
    known = {
        f"{name}/{one['address']}/0": Health(HealthState(health.get(one["name"], "healthy")), 0.0)
        for name in FLEET
        for one in FLEET[name]["backends"]
    }
    runtime = replace(EMPTY_RUNTIME, health=known)
    before, after = (
        effective(Configuration.from_document(found), runtime) for found in (checked, asked.edit(checked, Faults()))
    )
    asked.guard(before, after)


def test_guard() -> None:
    """Row 38: what counts is healthy, takes new flows, and is not out on another node."""
    _guard(request("b1"))
    _guard(request("b1", "b2", min_eligible=0))
    _guard(request("b1", min_eligible=2), b1="unhealthy")
    with pytest.raises(InvalidInput, match=r"min_eligible: 2: api would keep 1 eligible backends \(b2\) of 2; "):
        _guard(request("b1", min_eligible=2))
    with pytest.raises(InvalidInput, match="api would keep 0 eligible backends of 1"):
        _guard(request("b1"), b2="unhealthy")
    with pytest.raises(InvalidInput, match="api would keep 0 eligible backends of 1"):
        _guard(request("b1", out_elsewhere=["b2"]))
    with pytest.raises(InvalidInput, match="db would keep 0"):
        _guard(request("b3"))
