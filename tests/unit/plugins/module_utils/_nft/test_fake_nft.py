# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests that the fake refuses what the kernel refuses; each case was verified with a real kernel."""

from __future__ import annotations

import pytest
from ansible_collections.evenflow.l4lb.tests.unit.fake_nft import FakeNft, NftRefused

BASE = """\
add table inet evenflow { comment "x"; }
add chain inet evenflow c
add chain inet evenflow d
add map inet evenflow m { type mark : verdict; }
add set inet evenflow s { type mark; }
add ct timeout inet evenflow t { protocol udp; policy = { replied : 60 }; }
add rule inet evenflow d ct mark @s goto c comment "1"
add rule inet evenflow c ct timeout set "t" comment "2"
add element inet evenflow m { 1 : goto d }
add element inet evenflow s { 0x80000001, 2 }
"""


@pytest.mark.parametrize(
    "text",
    [
        "delete chain inet evenflow c",
        "delete chain inet evenflow d",
        "flush chain inet evenflow c\ndelete chain inet evenflow c\nflush chain inet evenflow d",
        "delete chain inet evenflow e",
        "flush chain inet evenflow e",
        "delete set inet evenflow s",
        "delete set inet evenflow m",
        "delete map inet evenflow e",
        "add set inet evenflow s { type ipv4_addr; }",
        "add chain inet evenflow c { type filter hook input priority 0; policy accept; }",
        'add rule inet evenflow c jump e comment "1"',
        'add rule inet evenflow e accept comment "1"',
        'add rule inet evenflow c ct mark @e comment "1"',
        "add element inet evenflow m { 1 : goto c }",
        "add element inet evenflow m { 2 : goto e }",
        "add element inet evenflow m { 2 }",
        "add element inet evenflow e { 2 }",
        "delete element inet evenflow s { 3 }",
        "delete element inet evenflow s { 2, 2 }",
        "delete ct timeout inet evenflow t",
        "delete ct timeout inet evenflow u",
        "add ct timeout inet evenflow t { protocol udp; policy = { replied : 61 }; }",
        'add rule inet evenflow c ct timeout set "u" comment "3"',
        "delete table inet evenflow\ndelete table inet evenflow",
        "delete table inet evenflow\nadd chain inet evenflow c",
        "add element inet other s { 2 }",
        "flush ruleset",
        "add element inet evenflow s { }",
    ],
)
def test_a_refused_transaction_changes_nothing(text: str) -> None:
    nft = FakeNft()
    nft.run(BASE)
    before = nft.read_table()
    with pytest.raises(NftRefused):
        nft.run(f"add element inet evenflow s {{ 9 }}\n{text}\n")
    assert nft.read_table() == before
    assert len(nft.runs) == 1


@pytest.mark.parametrize(
    "text",
    [
        BASE,
        "delete element inet evenflow m { 1 }\nadd element inet evenflow m { 1 : goto c }",
        "flush chain inet evenflow c\ndelete ct timeout inet evenflow t",
        "add element inet evenflow s { 7 ct count over 5 }",
        "flush chain inet evenflow d\ndelete chain inet evenflow c\ndelete set inet evenflow s",
        "delete map inet evenflow m\ndelete chain inet evenflow d\ndelete chain inet evenflow c",
    ],
)
def test_accepted_transactions(text: str) -> None:
    nft = FakeNft()
    nft.run(BASE)
    nft.run(text)
    assert len(nft.runs) == 2


def test_the_live_table() -> None:
    nft = FakeNft()
    assert nft.read_table() is None
    nft.run(BASE)
    table = nft.read_table()
    assert table is not None
    assert {name: chain.comments for name, chain in table.chains.items()} == {"c": ("2",), "d": ("1",)}
    assert table.timeouts == {"t"}
    assert {name: each.elements for name, each in table.sets.items()} == {
        "m": {1: "goto d"},
        "s": {0x80000001: None, 2: None},
    }
