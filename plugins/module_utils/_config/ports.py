# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ports of a listener: single ones, ranges, all of them."""

from __future__ import annotations

import re
from typing import Any, Iterable, NamedTuple


class PortRange(NamedTuple):
    """Ports from the first to the last; one port if they are equal."""

    first: int
    last: int

    def __str__(self) -> str:
        """Write it as users do."""
        if self == ALL:
            return ALL_WORD
        return str(self.first) if self.is_single else f"{self.first}-{self.last}"

    @property
    def is_single(self) -> bool:
        """Whether this is one port."""
        return self.first == self.last


ALL = PortRange(0, 65535)
"""Every port, and with protocol ``any`` every protocol without ports too."""

ALL_WORD = "all"


def parse_ports(items: Iterable[Any]) -> tuple[PortRange, ...]:
    """Read ports as users write them.

    :returns: the ranges in ascending order, or :data:`ALL` alone.
    :raises ValueError: with what is wrong, and with what is allowed.
    """
    words = [str(item) for item in items]
    if not words:
        raise ValueError("the list is empty, it needs at least one port of 1–65535 or range a-b, or all")
    if words == [ALL_WORD]:
        return (ALL,)
    ranges = sorted(_parse(word) for word in words)
    for before, after in zip(ranges, ranges[1:]):
        if after.first <= before.last:
            raise ValueError(f"{after} is listed twice" if before == after else f"{before} and {after} overlap")
    return tuple(ranges)


def written(ranges: Iterable[PortRange]) -> list[str]:
    """Write ports as they are stored; the inverse of :func:`parse_ports`."""
    return [str(ports) for ports in ranges]


def _parse(word: str) -> PortRange:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", word, re.ASCII)
    if match:
        ports = PortRange(int(match[1]), int(match[2] or match[1]))
        if 1 <= ports.first <= ports.last <= 65535:
            return ports
    shown = word if len(word) <= 40 else word[:37] + "..."
    raise ValueError(f"{shown!r} is not a port of 1–65535 or a range a-b of them, or all alone")
