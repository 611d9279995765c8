# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The texts that say what other programs had changed on the node, for the agent's log and ``lb_info``."""

from __future__ import annotations

from .._nft.plan import Live, Plan, is_other_version

INTERRUPTED = "a change was interrupted; node and configuration agree again"

_MAX_LENGTH, _MAX_STATEMENTS = 160, 6


def describe(plan: Plan, live: Live, is_asked_for: bool) -> list[str]:
    """Return a text for each thing that was not as it had been left.

    :param is_asked_for: whether a change of the configuration or of the runtime state asks for the plan too; then only
        what cannot come from it is described.
    """
    texts = []
    if live.table is None:
        texts.append("the table inet evenflow was gone; it is back")
    elif live.table.is_refused:
        texts.append("the table inet evenflow could not be changed any more; it is built anew")
    elif is_other_version(live.table):
        texts.append("the table inet evenflow had other rules; it is built anew")
    elif live.table.is_dormant:
        texts.append("the table inet evenflow was dormant; it is awake")
    if is_asked_for:
        return texts
    texts += [f"{vip.prefix} was gone from {vip.interface}; it is back" for vip in plan.add]
    if not texts and plan.transaction:
        statements = plan.transaction.lines()
        shown = [_cut(text) for text in statements[:_MAX_STATEMENTS]]
        rest = len(statements) - len(shown)
        texts.append(f"the table was changed; done: {'; '.join(shown)}{f' and {rest} more' if rest else ''}")
    return texts


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]} …"
