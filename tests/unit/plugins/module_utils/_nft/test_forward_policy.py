# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the forward policy of a node."""

from __future__ import annotations

import dataclasses

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.desired_table import desired_table
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.parts import parts
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.plan import Live, plan
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP6, backend, configuration, listener
from ansible_collections.evenflow.l4lb.tests.unit.fake_nft import FakeNft

NONE, VIPS = Settings(), Settings(forward_policy="vips")
WEB = listener("web", backend("198.19.0.1"), backend("198.19.0.2", 81, admin_state="drained", weight=0))
API = listener("api", backend("198.19.0.2"), ports=["443"])
WEB6 = listener("web6", backend("2001:db8:1::1"), address=VIP6, admin_state="disabled")


def test_without_a_policy_there_is_nothing_of_it() -> None:
    table = desired_table(configuration(WEB), NONE)
    assert not [name for name, chain in table.chains.items() if "hook forward" in chain.hook]
    assert not [name for name in table.sets if name.startswith("backends")]


def test_only_backends_may_start_flows() -> None:
    """Backends that get no new flows are backends too, and so is one that was removed and whose flows live."""
    leaving = configuration(listener("gone", backend("198.19.0.9"), ports=["9"])).listeners
    table = desired_table(dataclasses.replace(configuration(WEB, API, WEB6), leaving=leaving), VIPS)
    assert table.sets["backends4"].elements == {"198.19.0.1": None, "198.19.0.2": None, "198.19.0.9": None}
    assert table.sets["backends6"].elements == {"2001:db8:1::1": None}
    chain = table.chains["forward"]
    assert chain.hook == "type filter hook forward priority 0; policy drop;"
    assert chain.rules == (
        "ct mark & 0x80000000 != 0 accept",
        "ct state new ip saddr @backends4 fib saddr . iif oif exists accept",
        "ct state established,related ct original ip saddr @backends4 accept",
        "ct state new ip6 saddr @backends6 fib saddr . iif oif exists accept",
        "ct state established,related ct original ip6 saddr @backends6 accept",
        "counter drop",
    )


def test_the_policy_is_switched_on_and_off_in_place() -> None:
    nft = FakeNft()
    for settings, desired in ((NONE, (WEB,)), (VIPS, (WEB,)), (VIPS, (WEB, API)), (VIPS, (API,)), (NONE, (API,))):
        target = configuration(*desired)
        change = plan(target, settings, Live(nft.read_table())).transaction
        assert not any(line.startswith("delete table") for line in change.lines())
        nft.run(change)
        assert not plan(target, settings, Live(nft.read_table()))
        assert nft.table and ("forward" in nft.table.chains) == (settings == VIPS)


def test_a_backend_more_is_an_element() -> None:
    live = desired_table(configuration(WEB), VIPS).as_live()
    more = {**WEB, "backends": [*WEB["backends"], backend("198.19.0.3", weight=0)]}
    lines = plan(configuration(more), VIPS, Live(live)).transaction.lines()
    assert "add element inet evenflow backends4 { 198.19.0.3 }" in lines
    assert not any("forward" in line for line in lines)


def test_the_policy_is_the_last_part_of_a_first_load() -> None:
    assert parts(desired_table(configuration(WEB), VIPS))[-1].name == "3_forward"
    assert parts(desired_table(Configuration(()), NONE))[-1].name == "2_elements"
