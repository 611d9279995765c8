# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Configurations as values."""

from __future__ import annotations

import json

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.address import address_bytes
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document, fingerprint
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.ports import PortRange
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP6, backend, document, listener
from ansible_collections.evenflow.l4lb.tests.unit.strategies import documents
from hypothesis import given


def test_from_plain_data() -> None:
    six = listener("a", backend("2001:db8::1", 8080, weight=3), address=VIP6, ports=["80", "443"])
    found = Configuration.from_document(document(listener("b"), six)).listeners
    assert [one.name for one in found] == ["a", "b"]
    assert (found[0].family, found[0].backends[0].endpoint) == ("6", ("2001:db8::1", 8080))
    assert found[0].ports == (PortRange(80, 80), PortRange(443, 443))
    assert (found[1].family, found[1].backends) == ("4", ())


def test_addresses_sort_as_numbers() -> None:
    addresses = ["198.18.0.10", "198.18.0.9", "198.18.1.1"]
    assert sorted(addresses, key=address_bytes) == ["198.18.0.9", "198.18.0.10", "198.18.1.1"]


def test_the_fingerprints_known_today() -> None:
    """Another text for the same configuration would turn every caller's fingerprint away."""
    assert fingerprint({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@given(documents(), documents())
def test_equal_fingerprints_mean_equal_configurations(one: Document, other: Document) -> None:
    assert (fingerprint(one) == fingerprint(other)) is (one == other)


@given(documents())
def test_the_fingerprint_survives_the_file_and_another_order(one: Document) -> None:
    again = json.loads(json.dumps({name: dict(reversed(list(one[name].items()))) for name in reversed(list(one))}))
    assert fingerprint(again) == fingerprint(one)
