# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the edits of a configuration."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.edit import (
    checked,
    with_backend,
    with_listeners,
    without_backend,
    without_listener,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.validation import (
    Faults,
    parse_backend,
    parse_listeners,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import InvalidInput
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP6, backend, document, listener
from ansible_collections.evenflow.l4lb.tests.unit.strategies import documents
from hypothesis import given
from hypothesis import strategies as st

ONE, TWO, THREE = "198.19.0.1", "198.19.0.2", "198.19.0.3"
WEB = listener("web", backend(ONE, weight=5, name="one"), backend(TWO), description="kept", scheduler="wrr")
API = listener("api", backend(ONE), ports=["443"])
BEFORE = document(WEB, API)


def parsed_listeners(*items: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the listeners of a user's task as an edit receives them."""
    faults = Faults()
    result = parse_listeners(list(items), faults)
    faults.raise_if_any()
    return result


def all_listeners_of(configuration: Document) -> list[dict[str, Any]]:
    """Return all listeners of a configuration as an edit receives them from a user's task."""
    return parsed_listeners(*(configuration[name] for name in sorted(configuration, reverse=True)))


class TestMerged:
    def test_a_new_listener_gets_the_defaults(self) -> None:
        item = {
            "name": "web",
            "address": "198.18.0.10",
            "protocol": "tcp",
            "ports": [80],
            "backends": [{"address": ONE}],
        }
        assert with_listeners({}, parsed_listeners(item)) == document(listener("web", backend(ONE)))

    def test_options_that_are_not_given_keep_their_values(self) -> None:
        after = with_listeners(
            BEFORE, parsed_listeners({"name": "web", "scheduler": "rr", "backends": [{"address": ONE, "weight": 6}]})
        )
        expected = listener("web", backend(ONE, weight=6, name="one"), backend(TWO), description="kept", scheduler="rr")
        assert after == document(expected, API)

    def test_a_backend_is_identified_by_address_and_port(self) -> None:
        after = with_listeners(
            BEFORE, parsed_listeners({"name": "web", "backends": [{"address": ONE, "port": 81, "name": "b"}]})
        )
        assert after["web"]["backends"] == [*WEB["backends"][:1], backend(ONE, 81, name="b"), *WEB["backends"][1:]]

    def test_another_spelling_of_an_address_is_the_same_backend(self) -> None:
        before = document(listener("web", backend("2001:db8::1"), address=VIP6))
        item = {"name": "web", "address": VIP6.upper(), "backends": [{"address": "2001:DB8:0::1"}]}
        assert with_listeners(before, parsed_listeners(item)) == before

    def test_the_input_is_not_changed(self) -> None:
        before, items = copy.deepcopy(BEFORE), parsed_listeners({"name": "web", "backends": [{"address": THREE}]})
        given_items = copy.deepcopy(items)
        assert with_listeners(before, items, purge="all") != before
        assert (before, items) == (BEFORE, given_items)

    @given(documents(), documents(), st.sampled_from(["none", "backends", "listeners", "all"]), st.booleans())
    def test_an_edit_is_idempotent(self, before: Document, desired: Document, purge: str, replaced: bool) -> None:
        once = with_listeners(before, all_listeners_of(desired), purge, replaced)
        assert with_listeners(once, all_listeners_of(desired), purge, replaced) == once

    @given(documents(), documents(), st.booleans())
    def test_a_whole_configuration_with_purge_all_is_the_result(
        self, before: Document, desired: Document, replaced: bool
    ) -> None:
        expected = {name: dict(options) for name, options in desired.items()}
        for name in expected.keys() & before.keys():
            # An option that is not given keeps its value, so a merge cannot unset it.
            for option in () if replaced else desired[name]:
                if desired[name][option] is None:
                    expected[name][option] = before[name][option]
        assert with_listeners(before, all_listeners_of(desired), "all", replaced) == expected

    @given(documents(), documents())
    def test_a_merge_keeps_all_listeners_and_backends(self, before: Document, desired: Document) -> None:
        after = with_listeners(before, all_listeners_of(desired))
        assert after.keys() == before.keys() | desired.keys()
        for name in after:
            keys = [(item["address"], item["port"]) for item in after[name]["backends"]]
            before_keys, desired_keys = (
                {(item["address"], item["port"]) for item in side.get(name, {}).get("backends", ())}
                for side in (before, desired)
            )
            assert set(keys) == before_keys | desired_keys
            assert len(keys) == len(set(keys))


class TestReplaced:
    def test_options_that_are_not_given_get_their_defaults(self) -> None:
        item = {
            "name": "web",
            "address": "198.18.0.10",
            "protocol": "tcp",
            "ports": [80],
            "backends": [{"address": ONE}],
        }
        after = with_listeners(BEFORE, parsed_listeners(item), replaced=True)
        assert after == document(listener("web", backend(ONE), backend(TWO)), API)

    def test_a_listener_that_is_not_named_is_unchanged(self) -> None:
        after = with_listeners(BEFORE, parsed_listeners({"name": "web"}), replaced=True)
        assert after["api"] == API

    def test_required_options_must_be_given_again(self) -> None:
        faults = Faults()
        edit = checked(partial(with_listeners, items=parsed_listeners({"name": "web"}), replaced=True), faults)
        with pytest.raises(InvalidInput, match="address: required.*protocol: required.*ports: required"):
            edit(BEFORE)


class TestPurge:
    ITEM = {"name": "web", "backends": [{"address": ONE}]}

    @pytest.mark.parametrize(
        ("purge", "listeners", "web"),
        [
            ("none", {"web", "api"}, [ONE, TWO]),
            ("backends", {"web", "api"}, [ONE]),
            ("listeners", {"web"}, [ONE, TWO]),
            ("all", {"web"}, [ONE]),
        ],
    )
    def test_what_each_value_of_purge_removes(self, purge: str, listeners: set[str], web: list[str]) -> None:
        after = with_listeners(BEFORE, parsed_listeners(self.ITEM), purge)
        assert set(after) == listeners
        assert [item["address"] for item in after["web"]["backends"]] == web
        assert after["web"]["backends"][0] == WEB["backends"][0]

    @pytest.mark.parametrize("purge", ["backends", "all"])
    def test_backends_stay_if_the_list_is_not_given(self, purge: str) -> None:
        assert with_listeners(BEFORE, parsed_listeners({"name": "web"}), purge)["web"] == WEB

    @pytest.mark.parametrize("purge", ["backends", "all"])
    def test_an_empty_list_removes_all_backends(self, purge: str) -> None:
        assert with_listeners(BEFORE, parsed_listeners({"name": "web", "backends": []}), purge)["web"]["backends"] == []

    def test_purge_with_an_empty_list_of_listeners(self) -> None:
        assert with_listeners(BEFORE, [], "all") == {}
        assert with_listeners(BEFORE, [], "backends") == BEFORE


class TestIgnore:
    @pytest.mark.parametrize("purge", ["none", "backends", "listeners", "all"])
    def test_an_ignored_listener_is_unchanged(self, purge: str) -> None:
        item = {"name": "web", "scheduler": "rr", "backends": [], "ignore": True}
        assert with_listeners(BEFORE, parsed_listeners(item), purge)["web"] == WEB

    def test_an_ignored_listener_is_not_created(self) -> None:
        assert with_listeners({}, parsed_listeners({**WEB, "ignore": True})) == {}

    def test_ignore_false_is_not_ignored(self) -> None:
        assert with_listeners({}, parsed_listeners({**WEB, "ignore": False})) == document(WEB)


class TestOneListener:
    def test_remove_a_listener(self) -> None:
        assert without_listener(BEFORE, "web") == document(API)
        assert without_listener(BEFORE, "none") == BEFORE


class TestOneBackend:
    SIX = listener("six", address=VIP6)

    def test_add_to_one_several_or_all_listeners_of_the_family(self) -> None:
        before = document(WEB, API, self.SIX)
        new = parse_backend({"address": THREE, "weight": 7}, Faults())
        for listeners, concerned in ((["web"], {"web"}), (["web", "api"], {"web", "api"}), (["all"], {"web", "api"})):
            faults = Faults()
            after = with_backend(before, listeners, new, faults)
            assert {name for name in after if after[name] != before[name]} == concerned
            assert all(after[name]["backends"][-1] == backend(THREE, weight=7) for name in concerned)
            assert not faults.errors

    def test_a_change_of_a_backend_keeps_other_options(self) -> None:
        after = with_backend(BEFORE, ["web"], parse_backend({"address": ONE, "weight": 0}, Faults()), Faults())
        assert after["web"]["backends"][0] == backend(ONE, weight=0, name="one")

    def test_a_listener_that_does_not_exist_is_an_error(self) -> None:
        faults = Faults()
        with_backend(BEFORE, ["web", "wep"], parse_backend({"address": ONE}, faults), faults)
        assert faults.errors == ["listener: 'wep' is not a listener of this node; there are ['api', 'web']"]

    @pytest.mark.parametrize("listeners", [["web"], ["all"]])
    @pytest.mark.parametrize("options", [{"address": "nowhere"}, {"weight": 5}, {"address": ONE, "port": 65536}])
    def test_an_invalid_backend_is_refused(self, listeners: list[str], options: dict[str, Any]) -> None:
        faults = Faults()
        edit = partial(with_backend, listeners=listeners, backend=parse_backend(options, faults), faults=faults)
        with pytest.raises(InvalidInput):
            checked(edit, faults)(BEFORE)

    @pytest.mark.parametrize("options", [{"address": "nowhere"}, {"weight": 5}])
    def test_an_invalid_backend_cannot_be_removed(self, options: dict[str, Any]) -> None:
        faults = Faults()
        edit = partial(without_backend, listeners=["all"], backend=parse_backend(options, faults))
        with pytest.raises(InvalidInput):
            checked(edit, faults)(BEFORE)

    def test_remove_from_one_several_or_all_listeners(self) -> None:
        old = parse_backend({"address": ONE}, Faults())
        for listeners, concerned in ((["web"], {"web"}), (["web", "api"], {"web", "api"}), (["all"], {"web", "api"})):
            after = without_backend(BEFORE, listeners, old)
            assert {name for name in after if after[name] != BEFORE[name]} == concerned
        assert without_backend(BEFORE, ["web"], old)["web"] == {**WEB, "backends": WEB["backends"][1:]}

    def test_another_port_is_another_backend(self) -> None:
        assert without_backend(BEFORE, ["all"], parse_backend({"address": ONE, "port": 80}, Faults())) == BEFORE


class TestChecked:
    def test_faults_of_input_and_result_are_reported_together(self) -> None:
        faults = Faults()
        items = parse_listeners([{"name": "web", "weight": 5, "protocol": "udp"}], faults)
        with pytest.raises(InvalidInput) as refused:
            checked(partial(with_listeners, items=items), faults)(BEFORE)
        assert [error.split(":")[0] for error in refused.value.errors] == [
            "listeners[0].weight",
            "listeners[0].protocol",
        ]

    def test_a_valid_edit_returns_the_configuration(self) -> None:
        faults = Faults()
        assert checked(partial(without_listener, name="web"), faults)(BEFORE) == document(API)

    def test_the_protocol_may_change_after_a_removal(self) -> None:
        gone = checked(partial(without_listener, name="web"), Faults())(BEFORE)
        item = {"name": "web", "address": "198.18.0.10", "protocol": "udp", "ports": ["80"]}
        assert (
            checked(partial(with_listeners, items=parsed_listeners(item)), Faults())(gone)["web"]["protocol"] == "udp"
        )
