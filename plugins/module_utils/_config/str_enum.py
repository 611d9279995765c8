# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Enumerations whose members are text, as files and results hold them."""

from __future__ import annotations

from enum import Enum


class StrEnum(str, Enum):
    """The standard library's ``enum.StrEnum``, which Python has only since 3.11.

    A member is equal to its value, prints as its value and is written to JSON as its value.
    """

    __str__ = str.__str__
    __hash__ = str.__hash__

    def __format__(self, format_spec: str) -> str:
        return str.__format__(self, format_spec)
