# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the difference between two configurations."""

from __future__ import annotations

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.difference import difference
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, document, listener
from ansible_collections.evenflow.l4lb.tests.unit.strategies import documents
from hypothesis import given

ONE, TWO, THREE = "198.19.0.1", "198.19.0.2", "198.19.0.3"


def test_added_removed_and_modified_entries_of_one_change() -> None:
    before = document(listener("gone", backend(ONE)), listener("web", backend(ONE), backend(TWO), ports=["80"]))
    after = document(
        listener("new", backend(ONE), ports=["81"]),
        listener("web", backend(ONE, weight=5), backend(THREE, 81), ports=["80", "443"]),
    )
    result = difference(before, after)
    assert result.added == [{"listener": "new"}, {"listener": "web", "address": THREE, "port": 81}]
    assert result.removed == [{"listener": "gone"}, {"listener": "web", "address": TWO, "port": 0}]
    assert result.modified == [
        {"listener": "web", "option": "ports", "before": ["80"], "after": ["80", "443"]},
        {"listener": "web", "address": ONE, "port": 0, "option": "weight", "before": 100, "after": 5},
    ]
    assert result.listeners() == ["gone", "new", "web"]


@given(documents(), documents())
def test_the_difference_is_empty_only_for_equal_configurations(before: Document, after: Document) -> None:
    result = difference(before, after)
    assert bool(result) is (before != after)
    assert result.listeners() == sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )


@given(documents(), documents())
def test_the_reverse_difference_is_symmetric(before: Document, after: Document) -> None:
    forward, backward = difference(before, after), difference(before=after, after=before)
    assert (forward.added, forward.removed) == (backward.removed, backward.added)
    swapped = [{**entry, "before": entry["after"], "after": entry["before"]} for entry in backward.modified]
    assert forward.modified == swapped
