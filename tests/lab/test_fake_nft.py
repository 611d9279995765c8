# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nft in memory of the unit tests has the same results as the real nft, with the same transactions."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import NodeError
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import live_table, runner
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.plan import Live, plan
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.transaction import Statement, Transaction
from ansible_collections.evenflow.l4lb.tests.unit.fake_nft import FakeNft, NftRefused
from ansible_collections.evenflow.l4lb.tests.unit.strategies import documents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_CLONE_NEWNET = 0x40000000
_EXAMPLES = 120

# Changes of a transaction: a statement is lost, repeated or moved.
_DAMAGES = st.sampled_from(["none", "none", "lose", "repeat", "move"])


@pytest.fixture(scope="module", autouse=True)
def own_network() -> Iterator[None]:
    """Enter a separate network namespace, whose nftables no other program uses."""
    library = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open(encoding="ascii") as home:
        if library.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        yield
        if library.setns(home.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


seen: Counter[str] = Counter()
"""Number of transactions that both accepted, and that both refused."""


@settings(max_examples=_EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data(), changes=st.lists(documents(), min_size=2, max_size=4))
def test_both_accept_and_refuse_the_same_and_hold_the_same(data: st.DataObject, changes: list[Document]) -> None:
    fake = FakeNft()
    if live_table.read_table() is not None:
        runner.run(["delete", "table", "inet", "evenflow"])
    for document in changes:
        desired = plan(Configuration.from_document(document), Settings(), Live(fake.read_table()))
        transaction = _damaged(data, desired.transaction)
        verdict = _run_fake(fake, transaction)
        assert _run_real(transaction) == verdict, transaction.text()
        assert live_table.read_table() == fake.read_table(), transaction.text()
        seen[verdict] += 1


def test_both_verdicts_were_seen() -> None:
    """Both accepted and refused transactions were compared."""
    print(f"transactions through both: {seen['accepted']} accepted, {seen['refused']} refused")
    assert min(seen["accepted"], seen["refused"]) >= _EXAMPLES // 6


def _damaged(data: st.DataObject, transaction: Transaction) -> Transaction:
    damage = data.draw(_DAMAGES)
    statements: list[Statement] = list(transaction.statements)
    if damage == "none" or not statements:
        return Transaction(statements)
    index = data.draw(st.integers(0, len(statements) - 1))
    if damage == "lose":
        del statements[index]
    elif damage == "repeat":
        statements.insert(index, statements[index])
    else:
        statements.insert(data.draw(st.integers(0, len(statements) - 1)), statements.pop(index))
    return Transaction(statements)


def _run_fake(fake: FakeNft, transaction: Transaction) -> str:
    try:
        fake.run(transaction)
    except NftRefused:
        return "refused"
    return "accepted"


def _run_real(transaction: Transaction) -> str:
    try:
        runner.check(runner.run(["-f", "-"], transaction.text()))
    except NodeError:
        return "refused"
    return "accepted"
