# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests that derived objects are reused only for the inputs that they were derived from."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.derived import Derived
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document, listener_text
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration, Listener
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import desired_table as table_module
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.desired_table import desired_table
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.limits import Dealing, backend_limit_name
from ansible_collections.evenflow.l4lb.plugins.module_utils._state import effective as effective_module
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.effective import effective
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.eligibility import Selection
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import Health, HealthState
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.runtime import Runtime
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, check, configuration, listener
from ansible_collections.evenflow.l4lb.tests.unit.strategies import documents
from hypothesis import given
from hypothesis import strategies as st


class DerivedWithoutField(Derived):
    """A store of derived objects that ignores one field of the inputs, like a key in which an input is missing."""

    def __init__(self, field: str) -> None:
        super().__init__()
        self._field = field

    def get(self, derive: Callable[..., Any], subject: Any, *inputs: Any) -> Any:
        place = derive, id(subject)
        compared = tuple(self._without(each) for each in inputs)
        kept = self._kept.get(place)
        if kept is not None and kept[0] is subject and kept[1] == compared:
            return kept[2]
        result = derive(subject, *inputs)
        self._kept[place] = subject, compared, result
        return result

    def _without(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._without(each) for each in value]
        return value._replace(**{self._field: None}) if self._field in getattr(value, "_fields", ()) else value


class TestDerived:
    def test_equal_inputs_return_the_same_object(self) -> None:
        derived = Derived()
        subject = object()
        assert derived.get(_pair, subject, 1) is derived.get(_pair, subject, 1)

    def test_a_different_input_is_derived_again(self) -> None:
        derived = Derived()
        subject = object()
        assert [derived.get(_pair, subject, number)[1] for number in (1, 2, 1)] == [1, 2, 1]

    def test_results_of_different_functions_are_kept_apart(self) -> None:
        derived = Derived()
        subject = object()
        assert derived.get(_pair, subject, 1) != derived.get(_triple, subject, 1)

    def test_results_of_subjects_with_the_same_identity_are_kept_apart(self) -> None:
        """A new object may have the memory address of a deleted one."""
        derived = Derived()
        assert all(derived.get(_pair, [number])[0] == [number] for number in range(1000))


RUNTIMES = st.builds(
    Runtime,
    shares=st.sampled_from([{}, {"web": {}}]),
    health=st.dictionaries(
        st.sampled_from([f"{name}/198.19.0.{number}/0" for name in ("web", "api") for number in (1, 2)]),
        st.builds(Health, st.sampled_from(HealthState), st.just(1.0), weight=st.sampled_from([None, 0, 7])),
    ),
    expired=st.frozensets(st.sampled_from(["web/198.19.0.1/0", "api/198.19.0.2/80"])),
    ramps=st.dictionaries(st.sampled_from(["web/198.19.0.1/0", "api/198.19.0.1/0"]), st.integers(1, 19)),
    uncounted=st.dictionaries(st.sampled_from(["web", "api"]), st.integers(1, 3)),
    dealt=st.dictionaries(st.sampled_from(["web", "api"]), st.sampled_from(Dealing)),
)
SETTINGS = st.builds(Settings, hash_seed=st.integers(0, 1), vip_dedicated=st.sampled_from([None, True, False]))


@given(st.data(), st.lists(documents(), min_size=1, max_size=3))
def test_a_table_does_not_depend_on_earlier_derived_objects(data: st.DataObject, changes: list[Document]) -> None:
    derived, configurations = Derived(), [Configuration.from_document({})]
    for document in changes:
        after = {name: {**options, "health_check": data.draw(CHECKS)} for name, options in document.items()}
        # Share equal listeners, as the configurations before and after a change do.
        before = configurations[-1]
        after = {
            name: before.document[name] if before.document.get(name) == after[name] else after[name] for name in after
        }
        configurations.append(Configuration.from_document(after, before))
    for configured in [*configurations, *configurations]:
        settings, runtime = data.draw(SETTINGS), data.draw(RUNTIMES)
        owned = data.draw(st.sampled_from([(), ("198.18.0.10",)]))
        effective_configuration = effective(configured, runtime, derived)
        assert effective_configuration == effective(configured, runtime)
        table = desired_table(effective_configuration, settings, owned, runtime, derived)
        assert table == desired_table(effective_configuration, settings, owned, runtime)
        assert configured.texts == {
            name: listener_text(configured.document[name]) for name in sorted(configured.document)
        }


CHECKS = st.sampled_from([None, check(), check("http", dynamic_weight=True)])


def _web(**options: Any) -> Listener:
    backends = [backend(f"198.19.0.{number}", max_connections=50) for number in (1, 2)]
    return configuration(listener("web", *backends, **options)).listeners[0]


# Two values of each input, for which the listener below has different parts.
INPUTS: dict[str, tuple[Any, Any]] = {
    "selection": (Selection(_web().backends), Selection(_web().backends[:1])),
    "marks": ((0x80000001, 0x80000002), (0x80000001, 0x80000003)),
    "settings": (Settings(hash_seed=1), Settings(hash_seed=2)),
    "is_owned": (True, False),
    "shares": ({0x80000001: 200, 0x80000002: 56}, {0x80000001: 100, 0x80000002: 156}),
    "uncounted": ({}, {backend_limit_name(0x80000001): 2}),
    "dealt": ({}, {backend_limit_name(0x80000001): "some"}),
}
APPLIED: dict[str, tuple[Any, Any]] = {
    "health": (HealthState.HEALTHY, HealthState.UNHEALTHY),
    "weight": (None, 7),
    "step": (None, 3),
    "is_drain_expired": (False, True),
}


@pytest.mark.parametrize("field", table_module._Inputs._fields)
def test_every_input_of_a_listeners_part_is_compared(field: str) -> None:
    subject = _web(scheduler="wlc" if field == "shares" else "mh", session_affinity="none")
    first = table_module._Inputs(**{name: values[0] for name, values in INPUTS.items()})
    other = first._replace(**{field: INPUTS[field][1]})
    _assert_not_stale(Derived, table_module._listener_part, subject, first, other)
    with pytest.raises(AssertionError, match="stale"):
        _assert_not_stale(lambda: DerivedWithoutField(field), table_module._listener_part, subject, first, other)


@pytest.mark.parametrize("field", effective_module._Applied._fields)
def test_every_input_of_an_effective_listener_is_compared(field: str) -> None:
    subject = _web(health_check=check("http", dynamic_weight=True))
    first = effective_module._Applied(**{name: values[0] for name, values in APPLIED.items()})
    other = first._replace(**{field: APPLIED[field][1]})
    arguments = [first, first], [first, other]
    _assert_not_stale(Derived, effective_module._effective_listener, subject, *arguments)
    with pytest.raises(AssertionError, match="stale"):
        _assert_not_stale(lambda: DerivedWithoutField(field), effective_module._effective_listener, subject, *arguments)


def _assert_not_stale(
    make: Callable[[], Derived], derive: Callable[..., Any], subject: Any, first: Any, other: Any
) -> None:
    derived = make()
    derived.get(derive, subject, first)
    assert derived.get(derive, subject, other) == derive(subject, other), "stale"


def _pair(subject: Any, *inputs: Any) -> tuple[Any, ...]:
    return (subject, *inputs)


def _triple(subject: Any, *inputs: Any) -> tuple[Any, ...]:
    return (subject, *inputs, None)
