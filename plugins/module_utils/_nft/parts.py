# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts that build a table: one for what all listeners share, one for each listener."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import partial
from typing import Callable

from .objects import RULES_VERSION, Group, Set, Table, content
from .transaction import Transaction

TABLE_COMMENT = "evenflow.l4lb: changes by hand are undone"


@dataclass(frozen=True)
class Part:
    """Statements that build a part of a table.

    :ivar name: parts loaded in their names' order in one go build the table.
    :ivar digest: equal digests, equal statements.
    :ivar file: which parts are kept in one file. Files in their names' order have the parts in an order that works.
    """

    name: str
    digest: str
    write: Callable[[], Transaction]
    file: str


LISTENER_FILES = 64
"""Listeners' parts are kept in at most so many files: to create one costs more than to write a dozen parts."""


def parts(wanted: Table) -> list[Part]:
    """Divide what builds a table: what all share, a part a listener, what refers to listeners."""
    static = _static(wanted)
    shared = repr((RULES_VERSION, [(name, content(one.elements)) for name, one in wanted.shared.sets.items()]))
    found = [
        Part("0_static", digest(static.text()), lambda: static, "0_static"),
        Part("2_elements", digest(shared), partial(_shared_elements, wanted), "2_elements"),
    ]
    for name, group in wanted.listeners.items():
        depends_on = repr(([chain.comments for chain in group.chains.values()], group.sets))
        file = f"1_{zlib.crc32(name.encode('ascii')) % LISTENER_FILES:02x}"
        found.append(Part(f"1_{name}", digest(depends_on), partial(_built, group), file))
    return sorted(found, key=lambda part: part.name)


def digest(text: str) -> str:
    """Name a text by its content."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).hexdigest()


def _static(wanted: Table) -> Transaction:
    transaction = Transaction()
    transaction.add_table(TABLE_COMMENT)
    for name, declaration in wanted.timeouts.items():
        transaction.add_timeout(name, declaration)
    for name, shared in wanted.shared.sets.items():
        transaction.add_set(name, shared)
    for name, chain in wanted.shared.chains.items():
        transaction.add_chain(name, chain)
    for name, chain in wanted.shared.chains.items():
        transaction.add_rules(name, chain)
    return transaction


def _built(group: Group) -> Transaction:
    transaction = Transaction()
    for name, added in group.sets.items():
        add_set(transaction, name, added)
    for name, chain in group.chains.items():
        transaction.add_chain(name, chain)
        transaction.add_rules(name, chain)
    return transaction


def add_set(transaction: Transaction, name: str, added: Set) -> None:
    """Add a set or map with its elements."""
    transaction.add_set(name, added)
    transaction.add_elements(name, content(added.elements))


def _shared_elements(wanted: Table) -> Transaction:
    transaction = Transaction()
    for name, shared in wanted.shared.sets.items():
        transaction.add_elements(name, content(shared.elements))
    return transaction
