# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the configuration as an object, and of the fingerprint."""

from __future__ import annotations

import json

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.address import address_bytes
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document, fingerprint
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.ports import PortRange
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP6, backend, document, listener
from ansible_collections.evenflow.l4lb.tests.unit.strategies import documents
from hypothesis import given


def test_a_configuration_from_plain_data() -> None:
    six = listener("a", backend("2001:db8::1", 8080, weight=3), address=VIP6, ports=["80", "443"])
    listeners = Configuration.from_document(document(listener("b"), six)).listeners
    assert [each.name for each in listeners] == ["a", "b"]
    assert (listeners[0].family, listeners[0].backends[0].endpoint) == ("6", ("2001:db8::1", 8080))
    assert listeners[0].ports == (PortRange(80, 80), PortRange(443, 443))
    assert (listeners[1].family, listeners[1].backends) == ("4", ())


def test_addresses_sort_as_numbers() -> None:
    addresses = ["198.18.0.10", "198.18.0.9", "198.18.1.1"]
    assert sorted(addresses, key=address_bytes) == ["198.18.0.9", "198.18.0.10", "198.18.1.1"]


def test_fingerprints_do_not_change_between_versions() -> None:
    """If these texts change, every fingerprint that a caller has stored is refused."""
    assert fingerprint({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@given(documents(), documents())
def test_equal_fingerprints_mean_equal_configurations(first: Document, second: Document) -> None:
    assert (fingerprint(first) == fingerprint(second)) is (first == second)


@given(documents())
def test_the_fingerprint_does_not_depend_on_json_or_the_order_of_keys(configured: Document) -> None:
    reordered = json.loads(
        json.dumps({name: dict(reversed(list(configured[name].items()))) for name in reversed(list(configured))})
    )
    assert fingerprint(reordered) == fingerprint(configured)
