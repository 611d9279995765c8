# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of source ranges: how they are stored, and the intervals that they make."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.option import InvalidValue
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.options import LISTENER
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.source_ranges import MAX_RANGES, merged, sort_key
from hypothesis import given
from hypothesis import strategies as st

canonical = LISTENER["source_ranges"].canonical


def test_ranges_are_stored_sorted_and_without_duplicates() -> None:
    """An overlap is allowed, because lists of customers and offices overlap; it is stored as it was written."""
    written = ["198.18.5.1", "198.18.0.0/16", "2001:DB8:0::/48", "198.18.5.1/32", "198.18.0.0/15", "2001:db8::/48"]
    assert canonical(written) == ["198.18.0.0/15", "198.18.0.0/16", "198.18.5.1/32", "2001:db8::/48"]
    assert canonical(canonical(written)) == canonical(written)


def test_bits_after_the_prefix_are_an_error_that_names_the_network() -> None:
    with pytest.raises(InvalidValue) as refused:
        canonical(["198.18.5.1/24"])
    assert str(refused.value) == "'198.18.5.1/24' has bits set after its prefix; the network is 198.18.5.0/24"


def test_an_address_has_the_text_of_the_c_library_on_every_version_of_python() -> None:
    assert canonical(["::ffff:0:0/96"]) == ["::ffff:0.0.0.0/96"]
    assert canonical(["::ffff:198.18.0.0/112"]) == ["::ffff:198.18.0.0/112"]


def test_at_most_so_many_ranges() -> None:
    ranges = [f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}/32" for number in range(MAX_RANGES + 1)]
    assert len(canonical(ranges[:-1])) == MAX_RANGES
    with pytest.raises(InvalidValue, match="65537 networks are more than 65536"):
        canonical(ranges)


@pytest.mark.parametrize(
    ("ranges", "intervals"),
    [
        ([], []),
        (["0.0.0.0/0"], []),
        (["0.0.0.0/0", "198.18.0.0/24"], []),
        (["0.0.0.0/1", "128.0.0.0/1"], []),
        (["::/0"], []),
        (["198.18.0.1/32"], ["198.18.0.1"]),
        (["198.18.0.0/24", "198.18.0.7/32"], ["198.18.0.0/24"]),
        (["198.18.0.0/24", "198.18.1.0/24"], ["198.18.0.0/23"]),
        (["198.18.1.0/24", "198.18.2.0/24", "198.18.4.0/24"], ["198.18.1.0-198.18.2.255", "198.18.4.0/24"]),
        (["::ffff:0.0.0.0/96", "2001:db8::/32"], ["::ffff:0.0.0.0/96", "2001:db8::/32"]),
        (["2001:db8::1/128", "2001:db8::2/128"], ["2001:db8::1-2001:db8::2"]),
    ],
)
def test_intervals(ranges: list[str], intervals: list[str]) -> None:
    assert merged(ranges) == intervals


NETWORKS = st.builds(
    lambda address, prefix: f"{ipaddress.ip_network((address >> (32 - prefix) << (32 - prefix), prefix))}",
    st.integers(0xC6120000, 0xC612003F),
    st.integers(27, 32),
)


@given(st.lists(NETWORKS, unique=True))
def test_intervals_have_the_addresses_of_the_ranges_and_do_not_touch(networks: list[str]) -> None:
    covered: list[int] = []
    for interval in merged(sorted(networks, key=sort_key)):
        first, _hyphen, last = interval.partition("-")
        network = ipaddress.ip_network(first)
        begin = int(network.network_address)
        assert not covered or begin > covered[-1] + 1
        covered += range(begin, int(ipaddress.ip_address(last) if last else network.broadcast_address) + 1)
    assert set(covered) == {int(address) for text in networks for address in ipaddress.ip_network(text)}
