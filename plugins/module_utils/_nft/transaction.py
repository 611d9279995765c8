# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Transactions: the only writer of nft text.

A transaction is a list of statements. Each writes itself, so the list printed is what ``nft -f`` runs.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

from .objects import FAMILY, TABLE, Chain, Element, Set, Timed

BATCH = 4000000
"""Characters that nft is given at once where more can wait. It takes 40 times as much memory."""


class Transaction:
    """Statements that take effect together or not at all."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self._checkpoints: list[int] = []

    def __bool__(self) -> bool:
        return bool(self.statements)

    def extend(self, other: Transaction) -> None:
        self.statements.extend(other.statements)

    def checkpoint(self) -> None:
        """Say that what was said until now is not in use before something that is still to be said."""
        self._checkpoints.append(len(self.statements))

    def batches(self) -> list[Transaction]:
        """Divide it at checkpoints into batches of about :data:`BATCH` characters; the last one puts all in use."""
        found = [Transaction()]
        size, begin = 0, 0
        for end in [*self._checkpoints, len(self.statements)]:
            statements = self.statements[begin:end]
            length = sum(map(len, statements))
            if size and length and size + length > BATCH:
                found.append(Transaction())
                size = 0
            found[-1].statements.extend(statements)
            size, begin = size + length, end
        return found

    def add_table(self, comment: str) -> None:
        self._say(f'add table {FAMILY} {TABLE} {{ comment "{comment}"; }}')

    def delete_table(self) -> None:
        self._say(f"delete table {FAMILY} {TABLE}")

    def add_set(self, name: str, wanted: Set) -> None:
        self._say(f"add {wanted.kind} {FAMILY} {TABLE} {name} {{ {wanted.declaration} }}")

    def delete_set(self, name: str, kind: str) -> None:
        self._say(f"delete {kind} {FAMILY} {TABLE} {name}")

    def add_timeout(self, name: str, declaration: str) -> None:
        self._say(f"add ct timeout {FAMILY} {TABLE} {name} {{ {declaration} }}")

    def delete_timeout(self, name: str) -> None:
        self._say(f"delete ct timeout {FAMILY} {TABLE} {name}")

    def add_chain(self, name: str, chain: Chain) -> None:
        hook = f" {{ {chain.hook} }}" if chain.hook else ""
        self._say(f"add chain {FAMILY} {TABLE} {name}{hook}")

    def flush_chain(self, name: str) -> None:
        self._say(f"flush chain {FAMILY} {TABLE} {name}")

    def delete_chain(self, name: str) -> None:
        self._say(f"delete chain {FAMILY} {TABLE} {name}")

    def add_rules(self, name: str, chain: Chain) -> None:
        for rule, comment in zip(chain.rules, chain.comments):
            self._say(f'add rule {FAMILY} {TABLE} {name} {rule} comment "{comment}"')

    def add_elements(self, name: str, elements: Mapping[Any, Any]) -> None:
        self._say_elements("add", name, (_element(key, value) for key, value in elements.items()))

    def delete_elements(self, name: str, keys: Iterable[Any]) -> None:
        self._say_elements("delete", name, (element_text(key) for key in keys))

    def text(self) -> str:
        """Return the input of ``nft -f``."""
        return "".join(f"{statement}\n" for statement in self.statements)

    def _say(self, statement: str) -> None:
        self.statements.append(statement)

    def _say_elements(self, verb: str, name: str, elements: Iterable[str]) -> None:
        written = ", ".join(elements)
        if written:
            self._say(f"{verb} element {FAMILY} {TABLE} {name} {{ {written} }}")


def _element(key: Any, value: Any) -> str:
    if value is None:
        return element_text(key)
    if isinstance(value, Element):
        return f"{element_text(key)} {value.statement}"
    if isinstance(value, Timed):
        return f"{element_text(key)} timeout {value.timeout}s expires {value.expires}s : {element_text(value.value)}"
    return f"{element_text(key)} : {element_text(value)}"


def element_text(value: Any) -> str:
    """Write a key or value of an element."""
    if isinstance(value, int):
        # Marks are read by people in hexadecimal; slots and ports fit 16 bits.
        return str(value) if value < 65536 else f"{value:#010x}"
    if isinstance(value, tuple):
        return " . ".join([element_text(part) for part in value])
    return str(value)
