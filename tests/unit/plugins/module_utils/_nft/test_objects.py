# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the text of statements and transactions."""

from __future__ import annotations

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import transaction as transaction_module
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import (
    Chain,
    DesiredTable,
    Element,
    Group,
    LiveChain,
    Set,
    SetKind,
    Timed,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.transaction import Transaction

ELEMENTS = {0x80000001: ("198.19.0.1", 80)}
MAP = Set(SetKind.MAP, "type mark : ipv4_addr . inet_service;", ELEMENTS)
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
    transaction.add_elements("limits", {0x80000001: Element("ct count over 5")})
    transaction.add_elements("sessions", {7: Timed(0x80000001, 600, 599)})
    transaction.add_timeout("t", "protocol tcp;")
    transaction.delete_timeout("t")
    transaction.delete_elements("m", [0x80000001])
    transaction.flush_chain("c")
    transaction.delete_chain("c")
    transaction.delete_set("m", SetKind.MAP)
    transaction.delete_table()
    first, second = CHAIN.comments
    assert transaction.lines() == [
        'add table inet evenflow { comment "ours"; }',
        "add map inet evenflow m { type mark : ipv4_addr . inet_service; }",
        "add chain inet evenflow c { type filter hook input priority 0; policy accept; }",
        "add chain inet evenflow plain",
        f'add rule inet evenflow c ct state invalid drop comment "{first}"',
        f'add rule inet evenflow c accept comment "{second}"',
        "add element inet evenflow m { 0x80000001 : 198.19.0.1 . 80 }",
        "add element inet evenflow v { 2001:db8::1 . tcp . 80 : goto c }",
        "add element inet evenflow s { 1, 65535, 0x00010000 }",
        "add element inet evenflow limits { 0x80000001 ct count over 5 }",
        "add element inet evenflow sessions { 7 timeout 600s expires 599s : 0x80000001 }",
        "add ct timeout inet evenflow t { protocol tcp; }",
        "delete ct timeout inet evenflow t",
        "delete element inet evenflow m { 0x80000001 }",
        "flush chain inet evenflow c",
        "delete chain inet evenflow c",
        "delete map inet evenflow m",
        "delete table inet evenflow",
    ]
    assert transaction.text() == "\n".join(transaction.lines()) + "\n"


def test_an_empty_change_writes_no_statement() -> None:
    transaction = Transaction()
    transaction.add_elements("s", {})
    transaction.delete_elements("s", [])
    transaction.add_rules("c", Chain(()))
    assert not transaction
    assert transaction.text() == ""


def test_transactions_are_joined() -> None:
    first, second = Transaction(), Transaction()
    first.flush_chain("a")
    second.flush_chain("b")
    first.extend(second)
    assert first.lines() == ["flush chain inet evenflow a", "flush chain inet evenflow b"]


def test_a_comment_depends_on_the_rule_its_position_and_the_chain() -> None:
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


def test_a_desired_table_as_a_live_table() -> None:
    web = Group({"l_web": Chain(("drop",))}, {"m": MAP})
    table = DesiredTable(Group({"c": CHAIN}, {}), Group({}, {}), {"web": web}, {"t": "protocol udp;"}).as_live()
    assert table.chains["c"] == LiveChain(CHAIN.comments, CHAIN.hook)
    assert set(table.chains) == {"c", "l_web"}
    assert table.sets["m"].elements == ELEMENTS
    assert table.timeouts == {"t"}


def test_batches_end_at_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_module, "BATCH", 60)
    transaction = Transaction()
    for name in ("a", "b", "c"):
        transaction.flush_chain(name)
        transaction.flush_chain(f"{name}2")
        transaction.checkpoint()
    transaction.flush_chain("last")
    batches = [batch.lines() for batch in transaction.batches()]
    assert [statement for batch in batches for statement in batch] == transaction.lines()
    assert [len(batch) for batch in batches] == [2, 2, 2, 1]


def test_without_a_checkpoint_there_is_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_module, "BATCH", 1)
    transaction = Transaction()
    transaction.flush_chain("a")
    transaction.flush_chain("b")
    assert [batch.lines() for batch in transaction.batches()] == [transaction.lines()]
