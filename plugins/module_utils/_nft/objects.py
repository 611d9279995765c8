# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nftables objects and transactions: the only writer of nft text.

A transaction is a list of statements. Each writes itself, so the list printed is what ``nft -f`` runs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Mapping, Union

from .._schedule.scheduler import SlotTable

FAMILY = "inet"
TABLE = "evenflow"

RULES_VERSION = 1
"""Version of declarations and static rules; a table with another one is built anew."""

Elements = Union[Mapping[Any, Any], SlotTable]
"""A set's or map's content: key to value (``None`` in a set). Keys and values are text, numbers, or tuples of these;
a :class:`SlotTable` stands for its slots without having computed them."""


@dataclass(frozen=True)
class Element:
    """What an element of a set carries beside its key: a statement of its own, such as ``ct count over 5``."""

    statement: str


@dataclass(frozen=True)
class Timed:
    """The value of a map's element that time removes.

    :ivar timeout: seconds that it lives.
    :ivar expires: seconds that are left.
    """

    value: Any
    timeout: int
    expires: int


@dataclass(frozen=True)
class Set:
    """A set or map.

    :ivar kind: ``set`` or ``map``.
    :ivar declaration: what stands between its braces, without elements.
    :ivar elements: what it should hold.
    :ivar is_ours: whether its elements come from us; else rules add them and time removes them.
    """

    kind: str
    declaration: str
    elements: Elements = field(default_factory=dict)
    is_ours: bool = True


@dataclass(frozen=True)
class Chain:
    """A chain.

    :ivar rules: the rules' text.
    :ivar hook: a base chain's ``type … hook … priority …; policy …;``, else empty.
    """

    rules: tuple[str, ...]
    hook: str = ""

    @property
    def comments(self) -> tuple[str, ...]:
        """A mark for each rule, from the text of the whole chain: a rule that is not as we wrote it shows."""
        text = "\n".join((str(RULES_VERSION), self.hook, *self.rules))
        digest = hashlib.blake2b(text.encode("utf-8"), digest_size=6).hexdigest()
        return tuple(f"{digest} {number}/{len(self.rules)}" for number in range(1, len(self.rules) + 1))


@dataclass(frozen=True)
class LiveChain:
    """A chain as the kernel lists it.

    :ivar comments: each rule's comment, empty where it has none.
    """

    comments: tuple[str, ...]
    hook: str = ""


@dataclass
class LiveTable:
    """The table's content as the kernel holds it, by name."""

    chains: dict[str, LiveChain]
    sets: dict[str, Set]
    timeouts: set[str]


@dataclass
class Group:
    """Chains and sets that belong together, by name; chains that others refer to come first."""

    chains: dict[str, Chain]
    sets: dict[str, Set]


@dataclass
class Table:
    """The table's content as it should be.

    :ivar shared: what is there without any listener.
    :ivar listeners: what each listener adds.
    :ivar timeouts: declarations of ct time-outs by name.
    """

    shared: Group
    listeners: dict[str, Group]
    timeouts: dict[str, str]

    @property
    def chains(self) -> dict[str, Chain]:
        """All chains by name."""
        return {name: chain for group in self._groups() for name, chain in group.chains.items()}

    @property
    def sets(self) -> dict[str, Set]:
        """All sets and maps by name."""
        return {name: found for group in self._groups() for name, found in group.sets.items()}

    def _groups(self) -> list[Group]:
        return [self.shared, *self.listeners.values()]

    def as_live(self) -> LiveTable:
        """Return what the kernel holds once it is like this."""
        return LiveTable(
            {name: LiveChain(chain.comments, chain.hook) for name, chain in self.chains.items()},
            self.sets,
            set(self.timeouts),
        )


def content(elements: Elements) -> Mapping[Any, Any]:
    """Return elements as a mapping, slots computed."""
    return dict(enumerate(elements.slots())) if isinstance(elements, SlotTable) else elements
