# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The forward policy of a node: which packets may cross it, beside those of listeners.

With ``none`` there is nothing of it in the table. With ``vips`` a chain in the forward hook drops all packets but those
of flows to listeners, and of flows that backends have started. Fragments arrive there reassembled, an ICMP error
belongs to the flow that it is about, and neighbour discovery is never forwarded.
"""

from __future__ import annotations

from .._config.identity import OURS
from .._config.model import Configuration
from .._config.settings import Settings
from .objects import Chain, Group, Set, SetKind

_HOOK = "type filter hook forward priority 0; policy drop;"


def group(configuration: Configuration, settings: Settings) -> Group:
    """Return the chain in the forward hook, and the addresses that may start flows; nothing without a policy.

    :param configuration: the effective configuration.
    """
    if settings.forward_policy != "vips":
        return Group({}, {})
    rules = [f"ct mark & {OURS:#010x} != 0 accept"]
    sets = {}
    for family, header in (("4", "ip"), ("6", "ip6")):
        name = f"backends{family}"
        sets[name] = Set(SetKind.SET, f"type ipv{family}_addr;", _backends(configuration, family))
        # A new flow must come in where its source is, because a client can forge a backend's address.
        rules += [
            f"ct state new {header} saddr @{name} fib saddr . iif oif exists accept",
            f"ct state established,related ct original {header} saddr @{name} accept",
        ]
    return Group({"forward": Chain((*rules, "counter drop"), _HOOK)}, sets)


def _backends(configuration: Configuration, family: str) -> dict[str, None]:
    return dict.fromkeys(
        backend.address
        for listener in configuration.listeners_and_leaving
        if listener.family == family
        for backend in listener.backends
    )
