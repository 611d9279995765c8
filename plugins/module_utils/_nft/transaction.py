# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Transactions: the only writer of nft text.

A transaction is a list of statements, each a verb and an object. Each writes itself, so the list printed is what
``nft -f`` runs.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping, NamedTuple

from .._config.str_enum import StrEnum
from .objects import FAMILY, TABLE, Chain, Element, Set, SetKind, Timed

BATCH = 4000000
"""Characters that nft gets at once where the rest can wait. It takes 40 times as much memory."""


class Verb(StrEnum):
    """What a statement does to its object."""

    ADD = "add"
    DELETE = "delete"
    FLUSH = "flush"


class Kind(StrEnum):
    """The kinds of objects."""

    TABLE = "table"
    CHAIN = "chain"
    RULE = "rule"
    SET = "set"
    MAP = "map"
    ELEMENT = "element"
    TIMEOUT = "ct timeout"


class Statement(NamedTuple):
    """A statement; as text it is what nft reads.

    :ivar name: the object's name; for a rule its chain's, for an element its set's. Empty for the table.
    :ivar body: what follows the name.
    """

    verb: Verb
    kind: Kind
    name: str = ""
    body: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.verb, self.kind, FAMILY, TABLE, self.name, self.body)))

    @property
    def is_deletion_of_object(self) -> bool:
        """Whether it deletes an object that others can refer to."""
        return self.verb == Verb.DELETE and self.kind in (Kind.CHAIN, Kind.SET, Kind.MAP, Kind.TIMEOUT)


class Transaction:
    """Statements that take effect together or not at all."""

    def __init__(self, statements: Iterable[Statement] = ()) -> None:
        self.statements = list(statements)
        self._checkpoints: list[int] = []

    def __bool__(self) -> bool:
        return bool(self.statements)

    def extend(self, other: Transaction) -> None:
        """Append the statements of another transaction."""
        self.statements.extend(other.statements)

    def checkpoint(self) -> None:
        """Allow a split here: the statements so far have no effect on packets until later ones use what they add."""
        self._checkpoints.append(len(self.statements))

    def batches(self) -> list[Transaction]:
        """Divide the transaction at checkpoints into batches of about :data:`BATCH` characters.

        The last batch puts everything into use.
        """
        batches = [Transaction()]
        size, begin = 0, 0
        for end in [*self._checkpoints, len(self.statements)]:
            statements = self.statements[begin:end]
            length = sum(len(str(statement)) for statement in statements)
            if size and length and size + length > BATCH:
                batches.append(Transaction())
                size = 0
            batches[-1].statements.extend(statements)
            size, begin = size + length, end
        return batches

    def add_table(self, comment: str) -> None:
        """Add the table, or nothing if it exists."""
        self._append(Verb.ADD, Kind.TABLE, body=f'{{ comment "{comment}"; }}')

    def delete_table(self) -> None:
        """Delete the table with all that it holds."""
        self._append(Verb.DELETE, Kind.TABLE)

    def add_set(self, name: str, added: Set) -> None:
        """Add a set or map without its elements."""
        self._append(Verb.ADD, Kind(added.kind), name, f"{{ {added.declaration} }}")

    def delete_set(self, name: str, kind: SetKind) -> None:
        """Delete a set or map with its elements."""
        self._append(Verb.DELETE, Kind(kind), name)

    def add_timeout(self, name: str, declaration: str) -> None:
        """Add a ct time-out."""
        self._append(Verb.ADD, Kind.TIMEOUT, name, f"{{ {declaration} }}")

    def delete_timeout(self, name: str) -> None:
        """Delete a ct time-out."""
        self._append(Verb.DELETE, Kind.TIMEOUT, name)

    def add_chain(self, name: str, chain: Chain) -> None:
        """Add a chain without its rules."""
        self._append(Verb.ADD, Kind.CHAIN, name, f"{{ {chain.hook} }}" if chain.hook else "")

    def flush_chain(self, name: str) -> None:
        """Delete all rules of a chain."""
        self._append(Verb.FLUSH, Kind.CHAIN, name)

    def delete_chain(self, name: str) -> None:
        """Delete a chain."""
        self._append(Verb.DELETE, Kind.CHAIN, name)

    def add_rules(self, name: str, chain: Chain) -> None:
        """Append a chain's rules to it."""
        for rule, comment in zip(chain.rules, chain.comments):
            self._append(Verb.ADD, Kind.RULE, name, f'{rule} comment "{comment}"')

    def add_elements(self, name: str, elements: Mapping[Any, Any]) -> None:
        """Add elements to a set or map; nothing if there are none."""
        self._append_elements(Verb.ADD, name, (_element(key, value) for key, value in elements.items()))

    def delete_elements(self, name: str, keys: Iterable[Any]) -> None:
        """Delete elements of a set or map by their keys; nothing if there are none."""
        self._append_elements(Verb.DELETE, name, (element_text(key) for key in keys))

    def lines(self) -> list[str]:
        """Return each statement as text."""
        return [str(statement) for statement in self.statements]

    def text(self) -> str:
        """Return the input of ``nft -f``."""
        return "".join(f"{statement}\n" for statement in self.statements)

    def _append(self, verb: Verb, kind: Kind, name: str = "", body: str = "") -> None:
        self.statements.append(Statement(verb, kind, name, body))

    def _append_elements(self, verb: Verb, name: str, elements: Iterable[str]) -> None:
        text = ", ".join(elements)
        if text:
            self._append(verb, Kind.ELEMENT, name, f"{{ {text} }}")


def _element(key: Any, value: Any) -> str:
    if value is None:
        return element_text(key)
    if isinstance(value, Element):
        return f"{element_text(key)} {value.statement}"
    if isinstance(value, Timed):
        return f"{element_text(key)} timeout {value.timeout}s expires {value.expires}s : {element_text(value.value)}"
    return f"{element_text(key)} : {element_text(value)}"


def element_text(value: Any) -> str:
    """Return a key or value of an element as nft reads it."""
    if isinstance(value, int):
        # Marks are read by people in hexadecimal; slots and ports fit 16 bits.
        return str(value) if value < 65536 else f"{value:#010x}"
    if isinstance(value, tuple):
        return " . ".join([element_text(part) for part in value])
    return str(value)
