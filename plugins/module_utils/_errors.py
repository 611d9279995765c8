# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors that the library raises for its front ends."""

from __future__ import annotations


class EvenflowError(Exception):
    """An error that a front end reports to the user. Its text is the message."""


class InvalidInput(EvenflowError):
    """The input is not allowed. Nothing was changed.

    :param errors: one text for each error, with the path of the option, the value and what is allowed.
    """

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


class ConditionNotMet(EvenflowError):
    """The fingerprint that was given is not that of the node's configuration. Nothing was changed."""

    def __init__(self, given: str, actual: str) -> None:
        super().__init__(f"conditionNotMet: fingerprint: {given} was given, the node's configuration has {actual}")


class NodeError(EvenflowError):
    """A file, the nft table or an interface of the node could not be read or changed. The last good state remains."""
