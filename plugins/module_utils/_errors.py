# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can go wrong, as the library says it to its front ends."""

from __future__ import annotations


class EvenflowError(Exception):
    """Anything that a front end reports to the user; its text is the message."""


class InvalidInput(EvenflowError):
    """The input breaks rules of the interface. Nothing was changed.

    :param errors: one text per fault, each with the option's path, the value and what is allowed.
    """

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


class ConditionNotMet(EvenflowError):
    """The caller's fingerprint is not the one of the node's configuration. Nothing was changed."""

    def __init__(self, wanted: str, found: str) -> None:
        super().__init__(f"conditionNotMet: fingerprint: {wanted} was given, the node's configuration has {found}")


class NodeError(EvenflowError):
    """The node could not be read or changed: a file, nft, an interface. The last good state stands."""
