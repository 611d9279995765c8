# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the transition of the runtime state by configuration, health and time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.identity import backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.plan import Live, plan
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.effective import effective
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.eligibility import select
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.fate import FlowKind
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import Health, HealthState
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.runtime import EMPTY_RUNTIME, Runtime
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.runtime_json import (
    FORMAT,
    HEALTH,
    LASTING,
    SINCE_BOOT,
    checked_sections,
    sections_as_json,
    sections_as_written,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.transition import (
    ENDED_SECONDS,
    GUARD_SECONDS,
    Event,
    SlowStart,
    flows_to_delete,
    next_event,
    transition,
)
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP6, backend, check, document, listener

ALL = frozenset(FlowKind)
B1, B2 = "198.19.0.1", "198.19.0.2"
POLICY = {"failover_ratio": 0.0, "drop_traffic_if_unhealthy": False, "disable_connection_drain_on_failover": False}


def web(*backends: dict[str, Any], **options: Any) -> Document:
    return document(listener("web", *backends, **options))


def ids_by_address(configured: Document) -> dict[str, int]:
    return {key[1]: mark for key, mark in backend_ids(Configuration.from_document(configured)).items()}


def written_and_read(runtime: Runtime) -> Runtime:
    """Return a runtime state after it was written to JSON and read with all checks."""
    sections = LASTING + SINCE_BOOT + HEALTH
    content = json.loads(json.dumps({"format": FORMAT, **sections_as_json(runtime, sections)}))
    fields, rejected = checked_sections(content, sections)
    assert not rejected
    assert sections_as_written(content, sections) == (fields, [])
    return Runtime(**fields)


class Story:
    """A node whose configuration, health and time change step by step."""

    def __init__(self) -> None:
        self.document: Document = {}
        self.runtime = EMPTY_RUNTIME
        self.now = 1000.0
        self.flows: Mapping[int, int] = {}

    def change(self, after: Document, **learned: str) -> dict[int, frozenset[FlowKind]]:
        """Apply a configuration and health states by the last digits of addresses; return the flows to delete."""
        health = {f"web/198.19.0.{name[1:]}/0": Health(HealthState(state), self.now) for name, state in learned.items()}
        old, before = Configuration.from_document(self.document), self.runtime
        new = old if after == self.document else Configuration.from_document(after)
        self.runtime = transition(before, Event(old, new, self.now, health), self._active)
        self.document = after
        return flows_to_delete(before, self.runtime)

    def wait(self, seconds: float) -> dict[int, frozenset[FlowKind]]:
        self.now += seconds
        return self.change(self.document)

    def learn(self, **learned: str) -> dict[int, frozenset[FlowKind]]:
        return self.change(self.document, **learned)

    def present(self) -> Configuration:
        return effective(Configuration.from_document(self.document), self.runtime)

    def chosen(self) -> list[str]:
        return [entry.address for entry in select(self.present().listeners[0]).backends]

    def elements(self, name: str) -> Any:
        planned = plan(self.present(), Settings(), Live(), self.runtime)
        return planned.boot.shared.sets[name].elements if name != "ended" else set(self.runtime.ending)

    def _active(self) -> Mapping[int, int]:
        return self.flows


@pytest.fixture
def story() -> Story:
    """Return a node without listeners."""
    return Story()


def test_a_new_backend_with_a_check_waits_for_a_result(story: Story) -> None:
    story.change(web(backend(B1), backend(B2), health_check=check()))
    assert story.chosen() == []
    story.learn(b1="healthy")
    assert story.chosen() == [B1]


def test_an_unchecked_backend_stays_eligible_when_a_check_is_added(story: Story) -> None:
    """A pool never becomes empty because a check is added."""
    story.change(web(backend(B1)))
    story.change(web(backend(B1), backend(B2), health_check=check()))
    assert story.chosen() == [B1]


def test_a_changed_check_keeps_the_health_states(story: Story) -> None:
    story.change(web(backend(B1), backend(B2), health_check=check()), b1="healthy", b2="unhealthy")
    story.learn(b1="healthy", b2="unhealthy")
    story.change(web(backend(B1), backend(B2), health_check=check("http")))
    assert story.chosen() == [B1]


def test_an_unhealthy_backend_moves_datagrams_once(story: Story) -> None:
    pair = web(backend(B1), backend(B2), protocol="udp", health_check=check())
    story.change(pair)
    story.learn(b1="healthy", b2="healthy")
    assert story.learn(b2="unhealthy") == {ids_by_address(pair)[B2]: ALL}
    assert story.wait(1) == {}
    assert story.learn(b2="healthy") == {}
    assert story.learn(b2="unhealthy") == {ids_by_address(pair)[B2]: ALL}


def test_a_disabled_backend_ends_flows_in_two_steps(story: Story) -> None:
    pair = web(backend(B1), backend(B2))
    story.change(pair)
    assert story.change(web(backend(B1), backend(B2, admin_state="disabled"))) == {}
    mark = ids_by_address(pair)[B2]
    assert set(story.runtime.ending) == {mark}
    assert next_event(story.runtime) == story.now + ENDED_SECONDS
    assert story.wait(ENDED_SECONDS) == {mark: ALL}
    assert not story.runtime.ending
    assert story.wait(10) == {}
    # Enable the backend and disable it again.
    story.change(pair)
    story.change(web(backend(B1), backend(B2, admin_state="disabled")))
    assert set(story.runtime.ending) == {mark}


def test_flows_end_though_the_clock_is_set_back(story: Story) -> None:
    story.change(web(backend(B1), backend(B2)))
    story.change(web(backend(B1), backend(B2, admin_state="disabled")))
    assert story.wait(-3600) == {}
    assert next_event(story.runtime) == story.now + ENDED_SECONDS
    assert story.wait(ENDED_SECONDS)


def test_the_deadline_of_a_drain_does_not_move(story: Story) -> None:
    story.change(web(backend(B1), backend(B2), connection_draining_timeout_sec=20))
    story.change(web(backend(B1), backend(B2, admin_state="drained"), connection_draining_timeout_sec=20))
    begun = story.runtime.drains
    assert next_event(story.runtime) == 1020.0
    story.wait(19)
    assert story.runtime.drains == begun and not story.runtime.expired
    story.runtime = written_and_read(story.runtime)
    assert story.runtime.drains == begun
    story.wait(1)
    assert story.runtime.expired and story.runtime.ending
    assert story.wait(ENDED_SECONDS)
    assert not story.wait(1000)


def test_a_natural_drain_has_no_deadline(story: Story) -> None:
    story.change(web(backend(B1, admin_state="drained"), drain_mode="natural"))
    story.wait(100000)
    assert not story.runtime.expired
    assert next_event(story.runtime) is None


def test_a_cancelled_drain_leaves_no_trace(story: Story) -> None:
    story.change(web(backend(B1, admin_state="drained"), backend(B2)))
    story.wait(10)
    story.change(web(backend(B1), backend(B2)))
    assert not story.runtime.drains
    assert story.wait(1000) == {}
    assert story.chosen() == [B1, B2]


def test_a_removed_backend_drains_ends_and_is_guarded(story: Story) -> None:
    both = web(backend(B1), backend(B2), connection_draining_timeout_sec=10)
    mark = ids_by_address(both)[B2]
    story.flows = {mark: 1}
    story.change(both)
    story.change(web(backend(B1), connection_draining_timeout_sec=10))
    assert story.chosen() == [B1]
    assert (B2, "tcp", 80) in story.elements("endpoints4")
    story.wait(10)
    assert set(story.runtime.ending) == {mark}
    assert story.wait(ENDED_SECONDS) == {mark: ALL}
    assert (B2, "tcp", 80) in story.elements("endpoints4")
    assert (B2, "tcp", 80) in story.elements("closed4")
    story.wait(GUARD_SECONDS)
    assert (B2, "tcp", 80) not in story.elements("endpoints4")
    assert replace(story.runtime, completed_fates={}) == EMPTY_RUNTIME


def test_a_removed_backend_without_flows_is_removed_at_once(story: Story) -> None:
    story.flows = {}
    story.change(web(backend(B1), backend(B2)))
    story.change(web(backend(B1)))
    assert story.runtime == EMPTY_RUNTIME


@pytest.mark.parametrize("is_listener_removed", [True, False])
@pytest.mark.parametrize("state", ["disabled", "drained", "unhealthy"])
def test_a_backend_whose_flows_were_taken_from_it_is_guarded_after_its_removal(
    story: Story, state: str, is_listener_removed: bool
) -> None:
    """It has no entry left, and its server may still speak."""
    options: dict[str, Any] = {"protocol": "udp", "connection_draining_timeout_sec": 10, "health_check": check()}
    story.change(web(backend(B1), backend(B2), **options))
    story.learn(b1="healthy", b2="healthy")
    taken = web(backend(B1), backend(B2, admin_state="enabled" if state == "unhealthy" else state), **options)
    story.change(taken, b2="unhealthy" if state == "unhealthy" else "healthy")
    story.wait(10)
    story.wait(ENDED_SECONDS)
    story.change({} if is_listener_removed else web(backend(B1), **options))
    assert (B2, "udp", 80) in story.elements("endpoints4")
    story.wait(1)
    assert (B2, "udp", 80) in story.elements("endpoints4")
    story.wait(GUARD_SECONDS)
    assert (B2, "udp", 80) not in story.elements("endpoints4")


def test_a_removed_backend_that_is_added_again_keeps_its_flows(story: Story) -> None:
    both = web(backend(B1), backend(B2))
    story.flows = {ids_by_address(both)[B2]: 1}
    story.change(both)
    story.change(web(backend(B1)))
    story.change(both)
    assert story.chosen() == [B1, B2]
    assert story.runtime == EMPTY_RUNTIME


def test_a_removed_listener_rejects_until_its_drains_end(story: Story) -> None:
    single = web(backend(B1), connection_draining_timeout_sec=10)
    story.flows = {ids_by_address(single)[B1]: 1}
    story.change(single)
    story.change({})
    assert story.elements("listeners4") == {("198.18.0.10", "tcp", 80): "goto refuse"}
    assert list(story.elements("vips4")) == ["198.18.0.10"]
    story.wait(10)
    story.wait(ENDED_SECONDS)
    assert not story.elements("listeners4") and not story.elements("vips4")


def test_a_removed_listener_gives_its_port_to_a_new_listener(story: Story) -> None:
    single = web(backend(B1))
    story.flows = {ids_by_address(single)[B1]: 1}
    story.change(single)
    story.change(document(listener("www", backend(B1))))
    assert story.elements("listeners4") == {("198.18.0.10", "tcp", 80): "goto l_www"}


def test_a_removed_backend_of_another_family(story: Story) -> None:
    """A listener may get a VIP of the other family, with other backends, while the old ones drain."""
    single = web(backend(B1))
    story.flows = {ids_by_address(single)[B1]: 1}
    story.change(single)
    story.change(document(listener("web", backend("2001:db8:1::1"), address=VIP6)))
    assert set(story.elements("to4")) == {ids_by_address(single)[B1]}
    assert (B1, "tcp", 80) in story.elements("endpoints4")
    assert not [key for key in story.elements("endpoints6") if key[0] == B1]
    assert story.elements("listeners4") == {("198.18.0.10", "tcp", 80): "goto refuse"}


def test_removed_ranges_that_overlap(story: Story) -> None:
    first = document(listener("a", backend(B1), ports=["80-90"]))
    second = document(listener("b", backend(B1), ports=["85-95"]))
    story.flows = {mark: 1 for each in (first, second) for mark in ids_by_address(each).values()}
    story.change(first)
    story.change(second)
    story.change({})
    assert list(story.elements("ranges4")) == [("198.18.0.10", "tcp", "80-90")]


def test_a_failover_drains_the_pool_that_is_left(story: Story) -> None:
    pair = web(
        backend(B1),
        backend(B2, failover=True),
        health_check=check(),
        protocol="udp",
        connection_draining_timeout_sec=10,
    )
    story.change(pair)
    story.learn(b1="healthy", b2="healthy")
    assert not story.runtime.drains
    story.learn(b1="unhealthy")
    assert story.chosen() == [B2]
    # After the failback, the flows of the failover backend may end by themselves.
    assert story.learn(b1="healthy") == {}
    assert story.chosen() == [B1]
    assert list(story.runtime.drains) == [f"web/{B2}/0"]
    assert story.wait(10) == {ids_by_address(pair)[B2]: ALL}
    story.learn(b1="unhealthy")
    assert f"web/{B2}/0" not in story.runtime.drains


def test_a_backend_that_joins_starts_slowly(story: Story) -> None:
    options = {"slow_start_sec": 10, "scheduler": "rr", "health_check": check()}
    story.change(web(backend(B1), backend(B2), **options))
    story.learn(b1="healthy")
    story.wait(20)
    story.learn(b2="healthy")
    assert _ramps(story) == [1.0, 0.05]
    story.wait(5)
    assert _ramps(story) == [1.0, 0.5]
    story.wait(5)
    assert _ramps(story) == [1.0, 1.0]


def test_a_module_leaves_slow_start_to_the_agent(story: Story) -> None:
    """Otherwise a run without an edit would change the table; without an agent the slow start ends at once."""
    options = {"slow_start_sec": 10, "scheduler": "rr"}
    story.change(web(backend(B1), **options))
    story.wait(20)
    story.change(web(backend(B1), backend(B2), **options))
    story.now += 5
    same = Configuration.from_document(story.document)
    held = transition(story.runtime, Event(same, same, story.now, slow_start=SlowStart.HOLD), dict)
    assert held == story.runtime
    at_once = transition(story.runtime, Event(same, same, story.now, slow_start=SlowStart.AT_ONCE), dict)
    assert not at_once.ramps and not at_once.joined


def test_a_weight_that_the_server_reports(story: Story) -> None:
    story.change(web(backend(B1), backend(B2), health_check=check("script", dynamic_weight=True)))
    health = {
        f"web/{B1}/0": Health(HealthState.HEALTHY, 1.0, weight=0),
        f"web/{B2}/0": Health(HealthState.HEALTHY, 1.0, weight=9),
    }
    story.runtime = replace(story.runtime, health=health)
    assert story.chosen() == [B2]
    present = story.present()
    assert present.listeners[0].backends[1].weight == 9


def _ramps(story: Story) -> list[float]:
    present = story.present()
    return [entry.ramp for entry in present.listeners[0].backends]


def test_the_runtime_state_is_written_and_read(story: Story) -> None:
    both = web(backend(B1), backend(B2, admin_state="disabled"), health_check=check(), slow_start_sec=10)
    story.change(both)
    story.learn(b1="healthy")
    assert written_and_read(story.runtime) == story.runtime
