# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The objects of our nftables table: sets, maps, chains, and the table itself, desired and live."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Mapping, Union

from .._config.str_enum import StrEnum
from .._schedule.scheduler import SlotTable

FAMILY = "inet"
TABLE = "evenflow"

RULES_VERSION = 1
"""Version of declarations and static rules. A live table with another version is replaced."""

Elements = Union[Mapping[Any, Any], SlotTable]
"""The content of a set or map: key to value (``None`` in a set). Keys and values are text, numbers, or tuples of these.
A :class:`SlotTable` stands for its slots, which need not be computed to compare two of them."""


class SetKind(StrEnum):
    """Whether elements have values."""

    SET = "set"
    MAP = "map"


@dataclass(frozen=True)
class Element:
    """A statement that an element of a set carries beside its key, such as ``ct count over 5``."""

    statement: str


@dataclass(frozen=True)
class Timed:
    """The value of a map's element that expires.

    :ivar timeout: seconds after which the element expires if it is not refreshed.
    :ivar expires: seconds that are left.
    """

    value: Any
    timeout: int
    expires: int


@dataclass(frozen=True)
class Set:
    """A set or map.

    :ivar declaration: the text between its braces, without elements.
    :ivar is_ours: whether its elements come from the configuration; else rules add them and they expire.
    :ivar size: maximum number of elements, if it has one that a setting gives.
    """

    kind: SetKind
    declaration: str
    elements: Elements = field(default_factory=dict)
    is_ours: bool = True
    size: int = 0


@dataclass(frozen=True)
class Chain:
    """A chain.

    :ivar rules: the text of its rules.
    :ivar hook: ``type … hook … priority …; policy …;`` of a base chain, else empty.
    """

    rules: tuple[str, ...]
    hook: str = ""

    @property
    def comments(self) -> tuple[str, ...]:
        """A comment for each rule, derived from the whole chain, so that a rule that was changed is recognised."""
        text = "\n".join((str(RULES_VERSION), self.hook, *self.rules))
        digest = hashlib.blake2b(text.encode("utf-8"), digest_size=6).hexdigest()
        return tuple(f"{digest} {number}/{len(self.rules)}" for number in range(1, len(self.rules) + 1))


@dataclass(frozen=True)
class LiveChain:
    """A chain as the kernel lists it.

    :ivar comments: the comment of each rule, empty where it has none.
    """

    comments: tuple[str, ...]
    hook: str = ""


@dataclass
class LiveTable:
    """The table as the kernel holds it; its content by name.

    :ivar is_dormant: whether another program has switched it off.
    :ivar is_refused: whether the kernel refuses to change it, because of what another program has put in it.
    """

    chains: dict[str, LiveChain]
    sets: dict[str, Set]
    timeouts: set[str]
    is_dormant: bool = False
    is_refused: bool = False


@dataclass
class Group:
    """Chains and sets that belong together, by name. Chains that others refer to come first."""

    chains: dict[str, Chain]
    sets: dict[str, Set]


@dataclass
class DesiredTable:
    """The table as the kernel should hold it.

    :ivar shared: what every node has, whatever its listeners and settings.
    :ivar forward: what the forward policy of the node needs.
    :ivar listeners: what belongs to each listener, by its name.
    :ivar timeouts: declarations of ct time-outs by name.
    """

    shared: Group
    forward: Group
    listeners: dict[str, Group]
    timeouts: dict[str, str]

    @property
    def chains(self) -> dict[str, Chain]:
        """All chains by name."""
        return {name: chain for group in self._groups() for name, chain in group.chains.items()}

    @property
    def sets(self) -> dict[str, Set]:
        """All sets and maps by name."""
        return {name: each for group in self._groups() for name, each in group.sets.items()}

    def _groups(self) -> list[Group]:
        return [self.shared, self.forward, *self.listeners.values()]

    def as_live(self) -> LiveTable:
        """Return the live table that the kernel lists once it holds this one."""
        return LiveTable(
            {name: LiveChain(chain.comments, chain.hook) for name, chain in self.chains.items()},
            self.sets,
            set(self.timeouts),
        )


def content(elements: Elements) -> Mapping[Any, Any]:
    """Return elements as a mapping; the slots of a slot table are computed."""
    return dict(enumerate(elements.slots())) if isinstance(elements, SlotTable) else elements
