# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts that build a table.

One for what all listeners share, one for each listener, one for shared elements, and one for the forward policy, if
the node has one.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import partial
from typing import Callable

from .objects import RULES_VERSION, DesiredTable, Group, Set, content
from .transaction import Transaction

TABLE_COMMENT = "evenflow.l4lb: changes by hand are undone"

LISTENER_FILES = 64
"""Number of files for the listeners' parts: to create a file costs more than to write a dozen parts."""


@dataclass(frozen=True)
class Part:
    """Statements that build a part of a table.

    :ivar name: parts run in the order of their names in one transaction build the table.
    :ivar digest: parts with equal digests have equal statements.
    :ivar write: returns the statements.
    :ivar file: the file that keeps the part. Files in the order of their names have the parts in an order that works.
    """

    name: str
    digest: str
    write: Callable[[], Transaction]
    file: str


def parts(table: DesiredTable) -> list[Part]:
    """Divide a table into its parts, in the order in which they build it."""
    static = _static(table)
    shared = repr((RULES_VERSION, [(name, content(each.elements)) for name, each in table.shared.sets.items()]))
    all_parts = [
        Part("0_static", digest(static.text()), lambda: static, "0_static"),
        Part("2_elements", digest(shared), partial(_shared_elements, table), "2_elements"),
    ]
    for name, group in table.listeners.items():
        file = f"1_{zlib.crc32(name.encode('ascii')) % LISTENER_FILES:02x}"
        all_parts.append(Part(f"1_{name}", _group_digest(group), partial(_group, group), file))
    if table.forward.chains:
        # After all others, because a first load in batches would drop what listeners do not serve yet.
        forward = table.forward
        all_parts.append(Part("3_forward", _group_digest(forward), partial(_group, forward), "3_forward"))
    return sorted(all_parts, key=lambda part: part.name)


def digest(text: str) -> str:
    """Return a short name for a text, equal for equal texts."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).hexdigest()


def add_set(transaction: Transaction, name: str, added: Set) -> None:
    """Add a set or map with its elements."""
    transaction.add_set(name, added)
    transaction.add_elements(name, content(added.elements))


def _static(table: DesiredTable) -> Transaction:
    transaction = Transaction()
    transaction.add_table(TABLE_COMMENT)
    for name, declaration in table.timeouts.items():
        transaction.add_timeout(name, declaration)
    for name, shared in table.shared.sets.items():
        transaction.add_set(name, shared)
    for name, chain in table.shared.chains.items():
        transaction.add_chain(name, chain)
    for name, chain in table.shared.chains.items():
        transaction.add_rules(name, chain)
    return transaction


def _group_digest(group: Group) -> str:
    return digest(repr(([chain.comments for chain in group.chains.values()], group.sets)))


def _group(group: Group) -> Transaction:
    transaction = Transaction()
    for name, added in group.sets.items():
        add_set(transaction, name, added)
    for name, chain in group.chains.items():
        transaction.add_chain(name, chain)
        transaction.add_rules(name, chain)
    return transaction


def _shared_elements(table: DesiredTable) -> Transaction:
    transaction = Transaction()
    for name, shared in table.shared.sets.items():
        transaction.add_elements(name, content(shared.elements))
    return transaction
