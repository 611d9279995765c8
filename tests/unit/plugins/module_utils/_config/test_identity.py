# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the ids of backends."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config import identity
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.identity import ANCHOR, OURS, backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, configuration, listener
from ansible_collections.evenflow.l4lb.tests.unit.strategies import documents
from hypothesis import given

WEB = listener("web", backend("198.19.0.1"), backend("198.19.0.1", 81), backend("198.19.0.2"))
DNS = listener("dns", backend("198.19.0.1"), ports=["53"], protocol="udp")


@given(documents())
def test_ids_are_unique_and_in_the_range_of_marks(document: Document) -> None:
    ids = backend_ids(Configuration.from_document(document))
    assert set(ids) == {
        (name, entry["address"], entry["port"]) for name, options in document.items() for entry in options["backends"]
    }
    assert len(set(ids.values())) == len(ids)
    assert all(OURS <= mark < ANCHOR for mark in ids.values())


def test_ids_do_not_change_between_versions() -> None:
    """If these numbers change, a node does not recognise the replicated flows of an older node."""
    assert {key: f"{mark:#x}" for key, mark in backend_ids(configuration(WEB, DNS)).items()} == {
        ("dns", "198.19.0.1", 0): "0xb7eda0bb",
        ("web", "198.19.0.1", 0): "0xb453286f",
        ("web", "198.19.0.1", 81): "0x94fe2667",
        ("web", "198.19.0.2", 0): "0x8f8fcf3a",
    }


def test_ids_do_not_depend_on_other_listeners() -> None:
    both, alone = backend_ids(configuration(WEB, DNS)), backend_ids(configuration(WEB))
    assert {key: both[key] for key in alone} == alone


def test_ids_do_not_depend_on_options() -> None:
    changed = [backend("198.19.0.2", weight=0, admin_state="drained", name="other")]
    other = backend_ids(configuration(listener("web", *changed, address="198.18.0.99", scheduler="rr")))
    assert other["web", "198.19.0.2", 0] == backend_ids(configuration(WEB))["web", "198.19.0.2", 0]


def colliding(candidates: list[int]) -> Any:
    """Return a hash function that returns the same candidates for every backend."""
    return lambda backend_key, attempt: candidates[attempt]


def test_colliding_backends_get_candidates_in_sorted_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_hash", colliding([OURS | 5, OURS | 6, OURS | 3, OURS | 4]))
    assert backend_ids(configuration(WEB, DNS)) == {
        ("dns", "198.19.0.1", 0): OURS | 5,
        ("web", "198.19.0.1", 0): OURS | 6,
        ("web", "198.19.0.1", 81): OURS | 3,
        ("web", "198.19.0.2", 0): OURS | 4,
    }


def test_collisions_are_resolved_independently_of_the_input_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_hash", colliding([OURS | number for number in range(9)]))
    shuffled = listener("web", backends=WEB["backends"][::-1])
    assert backend_ids(configuration(shuffled, DNS)) == backend_ids(configuration(DNS, WEB))


def test_each_attempt_has_another_hash() -> None:
    backend_key = ("web", "198.19.0.1", 0)
    marks = {identity._hash(backend_key, attempt) for attempt in range(100)}
    assert len(marks) == 100
    assert all(mark & OURS for mark in marks)


def test_no_backend_gets_the_anchor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_hash", colliding([ANCHOR, OURS | 1]))
    assert backend_ids(configuration(DNS)) == {("dns", "198.19.0.1", 0): OURS | 1}
