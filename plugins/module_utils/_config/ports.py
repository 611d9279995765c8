# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ports of a listener: single ports, ranges, or all ports."""

from __future__ import annotations

import re
from typing import Any, Iterable, NamedTuple


class PortRange(NamedTuple):
    """A range of ports, from the first to the last. A single port is a range whose first and last port are equal."""

    first: int
    last: int

    def __str__(self) -> str:
        """Return the range as users write it."""
        if self == ALL:
            return ALL_WORD
        return str(self.first) if self.is_single else f"{self.first}-{self.last}"

    @property
    def is_single(self) -> bool:
        """Whether the range is a single port."""
        return self.first == self.last


ALL = PortRange(0, 65535)
"""All ports. With protocol ``any``, this includes protocols that have no ports."""

ALL_WORD = "all"


def parse_ports(items: Iterable[Any]) -> tuple[PortRange, ...]:
    """Return the ranges that a user wrote, in ascending order; :data:`ALL` is alone.

    :raises ValueError: an item is not allowed, or ranges overlap. The text names the value and what is allowed.
    """
    texts = [str(item) for item in items]
    if not texts:
        raise ValueError("the list is empty, it needs at least one port of 1–65535 or range a-b, or all")
    if texts == [ALL_WORD]:
        return (ALL,)
    ranges = sorted(_parse(text) for text in texts)
    for before, after in zip(ranges, ranges[1:]):
        if after.first <= before.last:
            raise ValueError(f"{after} is listed twice" if before == after else f"{before} and {after} overlap")
    return tuple(ranges)


def format_ports(ranges: Iterable[PortRange]) -> list[str]:
    """Return ranges as they are stored. This is the inverse of :func:`parse_ports`."""
    return [str(ports) for ports in ranges]


def _parse(text: str) -> PortRange:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text, re.ASCII)
    if match:
        ports = PortRange(int(match[1]), int(match[2] or match[1]))
        if 1 <= ports.first <= ports.last <= 65535:
            return ports
    shown = text if len(text) <= 40 else text[:37] + "..."
    raise ValueError(f"{shown!r} is not a port of 1–65535 or a range a-b of them, or all alone")
