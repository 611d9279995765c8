# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Statements as they are written."""

from __future__ import annotations

from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import Chain, FoundChain, Set, Table, Transaction

ELEMENTS = {0x80000001: ("198.19.0.1", 80)}
MAP = Set("map", "type mark : ipv4_addr . inet_service;", ELEMENTS)
CHAIN = Chain(("ct state invalid drop", "accept"), "type filter hook input priority 0; policy accept;")


def test_every_statement() -> None:
    transaction = Transaction()
    transaction.add_table("ours")
    transaction.add_set("m", MAP)
    transaction.add_chain("c", CHAIN)
    transaction.add_chain("plain", Chain(()))
    transaction.add_rules("c", CHAIN)
    transaction.add_elements("m", ELEMENTS)
    transaction.add_elements("v", {("2001:db8::1", "tcp", 80): "goto c"})
    transaction.add_elements("s", {1: None, 65535: None, 65536: None})
    transaction.delete_elements("m", [0x80000001])
    transaction.flush_chain("c")
    transaction.delete_chain("c")
    transaction.delete_set("m", "map")
    transaction.delete_table()
    first, second = CHAIN.comments
    assert transaction.statements == [
        'add table inet evenflow { comment "ours"; }',
        "add map inet evenflow m { type mark : ipv4_addr . inet_service; }",
        "add chain inet evenflow c { type filter hook input priority 0; policy accept; }",
        "add chain inet evenflow plain",
        f'add rule inet evenflow c ct state invalid drop comment "{first}"',
        f'add rule inet evenflow c accept comment "{second}"',
        "add element inet evenflow m { 0x80000001 : 198.19.0.1 . 80 }",
        "add element inet evenflow v { 2001:db8::1 . tcp . 80 : goto c }",
        "add element inet evenflow s { 1, 65535, 0x00010000 }",
        "delete element inet evenflow m { 0x80000001 }",
        "flush chain inet evenflow c",
        "delete chain inet evenflow c",
        "delete map inet evenflow m",
        "delete table inet evenflow",
    ]
    assert transaction.text() == "\n".join(transaction.statements) + "\n"


def test_nothing_to_say() -> None:
    transaction = Transaction()
    transaction.add_elements("s", {})
    transaction.delete_elements("s", [])
    transaction.add_rules("c", Chain(()))
    assert not transaction
    assert transaction.text() == ""


def test_transactions_are_joined() -> None:
    one, other = Transaction(), Transaction()
    one.flush_chain("a")
    other.flush_chain("b")
    one.extend(other)
    assert one.statements == ["flush chain inet evenflow a", "flush chain inet evenflow b"]


def test_a_comment_tells_the_rule_its_place_and_the_whole_chain() -> None:
    chains = [
        CHAIN,
        Chain(CHAIN.rules),
        Chain(CHAIN.rules[:1], CHAIN.hook),
        Chain(CHAIN.rules[::-1], CHAIN.hook),
        Chain(("ct state invalid drop", "drop"), CHAIN.hook),
    ]
    comments = [comment for chain in chains for comment in chain.comments]
    assert len(set(comments)) == len(comments) == 9
    assert CHAIN.comments[0].endswith(" 1/2")
    assert Chain(CHAIN.rules, CHAIN.hook).comments == CHAIN.comments


def test_a_table_as_the_kernel_shows_it() -> None:
    found = Table({"c": CHAIN}, {"m": MAP}).as_found()
    assert found.chains == {"c": FoundChain(CHAIN.comments, CHAIN.hook)}
    assert found.sets["m"].elements == ELEMENTS
