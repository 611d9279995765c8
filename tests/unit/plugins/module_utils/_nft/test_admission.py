# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the chain that admits clients, and of what a change of its options does to the table."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.admission import REASONS, reasons
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.desired_table import desired_table
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import DesiredTable
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.plan import Live, plan
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.static_rules import STATIC_CHAINS
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP6, backend, configuration, listener

ALL: dict[str, Any] = {
    "source_ranges": ["198.18.0.0/24", "198.18.1.0/24", "198.18.7.7/32"],
    "max_connection_rate": {"rate": 1000, "burst": None},
    "max_connection_rate_per_client": {"rate": 10, "burst": 35, "prefix": 24},
    "max_connections_per_client": {"limit": 20, "prefix": None},
}


def web(**options: Any) -> dict[str, Any]:
    return listener("web", backend("198.19.0.1"), backend("198.19.0.2"), **options)


def table_of(*listeners: dict[str, Any]) -> DesiredTable:
    return desired_table(configuration(*listeners), Settings())


def lines(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the statements that lead from one listener to another."""
    live = table_of(before).as_live()
    return plan(configuration(after), Settings(), Live(live)).transaction.lines()


def test_a_listener_that_limits_no_client_has_nothing_for_it() -> None:
    every = table_of(web(source_ranges=["0.0.0.0/0"]))
    for table in (table_of(web()), every):
        assert set(table.chains) == {*STATIC_CHAINS, "l_web"}
        assert set(table.listeners["web"].sets) == {"slots_web"}
        assert not any("admit" in rule for rule in table.chains["l_web"].rules)


def test_the_chain_of_all_options() -> None:
    table = table_of(web(**ALL))
    assert table.chains["l_web"].rules[0] == "jump admit_web"
    assert table.chains["admit_web"].rules == (
        "ip saddr != @sources4_web ct mark set 1 ct mark @refused_web goto refuse",
        "update @rates4_web_10_35_24 { ip saddr & 255.255.255.0 timeout 5s limit rate over 10/second burst 35 packets }"
        " ct mark set 2 ct mark @refused_web goto exceeded",
        "add @counts4_web_20_32 { ip saddr ct count over 20 } ct mark set 3 ct mark @refused_web goto exceeded",
        "limit rate over 1000/second burst 1000 packets ct mark set 4 ct mark @refused_web goto exceeded",
    )
    assert STATIC_CHAINS["exceeded"].rules == ("meta l4proto { tcp, sctp } goto refuse", "drop")
    sets = table.listeners["web"].sets
    assert sets["sources4_web"].elements == {"198.18.0.0/23": None, "198.18.7.7": None}
    assert sets["refused_web"].elements == {1: None, 2: None, 3: None, 4: None}
    assert {name: (each.declaration, each.is_ours) for name, each in sets.items() if name.endswith(("_24", "_32"))} == {
        "rates4_web_10_35_24": ("type ipv4_addr; size 65536; flags dynamic,timeout;", False),
        "counts4_web_20_32": ("type ipv4_addr; size 65536; flags dynamic;", False),
    }


def test_a_session_is_looked_up_after_admission() -> None:
    table = table_of(web(tracking_mode="per_session", session_affinity="client_ip", **ALL))
    assert table.chains["l_web"].rules[0] == "jump admit_web"
    assert "@sess_web" in table.chains["l_web"].rules[1]


def test_ipv6() -> None:
    options = {
        "source_ranges": ["2001:db8::/64"],
        "max_connection_rate_per_client": {"rate": 1000000, "burst": None, "prefix": 56},
        "max_connections_per_client": {"limit": 1, "prefix": None},
    }
    api = listener("api", backend("2001:db8:1::1"), address=VIP6, **options)
    assert [rule.partition(" ct mark")[0] for rule in table_of(api).chains["admit_api"].rules] == [
        "ip6 saddr != @sources6_api",
        "update @rates6_api_1000000_1000000_56 { ip6 saddr & ffff:ffff:ffff:ff00:: timeout 3s "
        "limit rate over 1000000/second burst 1000000 packets }",
        "add @counts6_api_1_128 { ip6 saddr ct count over 1 }",
    ]


@pytest.mark.parametrize(
    ("rate", "burst", "seconds"), [(1, 1, 3), (10, 10, 3), (10, 99, 11), (1, 1000000, 60), (1000000, 1, 2)]
)
def test_a_client_is_remembered_until_its_burst_is_back(rate: int, burst: int, seconds: int) -> None:
    table = table_of(web(max_connection_rate_per_client={"rate": rate, "burst": burst, "prefix": None}))
    assert f" timeout {seconds}s " in table.chains["admit_web"].rules[0]


def test_a_range_more_or_less_is_an_element() -> None:
    before = ["198.18.0.0/24", "198.18.4.0/24"]
    after = ["198.18.4.0/24", "198.18.6.0/24"]
    assert lines(web(source_ranges=before), web(source_ranges=after)) == [
        "delete element inet evenflow sources4_web { 198.18.0.0/24 }",
        "add element inet evenflow sources4_web { 198.18.6.0/24 }",
    ]


def test_a_change_of_the_scheduler_resets_no_rate() -> None:
    statements = lines(web(**ALL, scheduler="wrr"), web(**ALL, scheduler="mh"))
    assert statements
    assert not any("admit_web" in line and not line.startswith("add rule inet evenflow l_web") for line in statements)


def test_another_limit_counts_in_another_set() -> None:
    """An element keeps the limit with which it was made."""
    statements = lines(
        web(max_connections_per_client={"limit": 5, "prefix": None}),
        web(max_connections_per_client={"limit": 6, "prefix": None}),
    )
    assert any(line.startswith("add set inet evenflow counts4_web_6_32 ") for line in statements)
    assert "delete set inet evenflow counts4_web_5_32" in statements


def test_reasons() -> None:
    assert reasons(configuration(web()).listeners[0]) == []
    assert reasons(configuration(web(**ALL)).listeners[0]) == list(REASONS)


def test_another_family_of_the_address_needs_other_sets() -> None:
    """A set that exists keeps the type of its keys."""
    limit = {"max_connections_per_client": {"limit": 5, "prefix": 24}}
    before = listener("web", source_ranges=["198.18.0.0/24"], **limit)
    after = listener("web", address=VIP6, source_ranges=["2001:db8::/64"], **limit)
    types: dict[str, str] = {}
    for item in (before, after):
        for name, each in table_of(item).sets.items():
            assert types.setdefault(name, each.declaration) == each.declaration
