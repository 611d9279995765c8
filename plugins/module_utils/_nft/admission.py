# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Admission: which clients may open a flow to a listener, and how many.

A listener that limits its clients has a chain of its own for it, which a new flow enters before anything else. Its
rules change only with the options that they are made from, so that no other change resets a rate.

What is counted for each client is in a dynamic set with a fixed size and short time-outs. A flood of forged sources can
fill it. From then on clients that are not in it pass unlimited: a limit for each client must not deny clients.
"""

from __future__ import annotations

import ipaddress

from .._config.model import ConnectionRate, ConnectionsPerClient, Listener
from .._config.source_ranges import merged
from .objects import Chain, Group, Set, SetKind

METER_SIZE = 65536
"""Maximum number of clients that a listener counts."""

_MAX_TIMEOUT = 60
"""Seconds after which a client that opens no flow is forgotten, also if its burst would take longer to come back."""

EXCEEDED = Chain(("meta l4proto { tcp, sctp } goto refuse", "drop"))
"""Where flows above a rate or a limit of clients go: streams are rejected, datagrams dropped."""

REASONS = {
    "source_ranges": 1,
    "max_connection_rate_per_client": 2,
    "max_connections_per_client": 3,
    "max_connection_rate": 4,
}
"""The options for which a flow is refused, with the keys of their counters, in the order in which a flow meets them.

The rate of the listener comes last, so that what a greedy client sends is not taken from the other clients.
"""


def chain_name(listener: str) -> str:
    """Return the name of the chain that admits clients to a listener."""
    return f"admit_{listener}"


def counters_name(listener: str) -> str:
    """Return the name of the set that counts refused flows, by the keys in :data:`REASONS`."""
    return f"refused_{listener}"


def reasons(listener: Listener) -> list[str]:
    """Return the options for which a listener may refuse a flow."""
    return [option for option in REASONS if option in _conditions(listener)]


def group(listener: Listener) -> Group:
    """Return the chain that admits clients to a listener, and its sets; nothing if every client is admitted."""
    conditions = _conditions(listener)
    if not conditions:
        return Group({}, {})
    name = counters_name(listener.name)
    rules = []
    for option, number in REASONS.items():
        if option in conditions:
            verdict = "refuse" if option == "source_ranges" else "exceeded"
            # The mark is the key of the counter. It goes with the packet, which is never part of a flow.
            rules.append(f"{conditions[option]} ct mark set {number} ct mark @{name} goto {verdict}")
    numbers = [number for option, number in REASONS.items() if option in conditions]
    counters = Set(SetKind.SET, "type mark; counter;", dict.fromkeys(numbers))
    return Group({chain_name(listener.name): Chain(tuple(rules))}, {name: counters, **_sets(listener)})


def _conditions(listener: Listener) -> dict[str, str]:
    """Return what a flow matches that is refused, by option."""
    header = "ip6 saddr" if listener.family == "6" else "ip saddr"
    conditions = {}
    if merged(listener.source_ranges):
        conditions["source_ranges"] = f"{header} != @{_sources_name(listener)}"
    rate = listener.max_connection_rate_per_client
    if rate:
        meter = f"{header}{_masked(listener, rate.prefix)} timeout {_timeout(rate)}s {_over(rate)}"
        conditions["max_connection_rate_per_client"] = f"update @{_rates_name(listener, rate)} {{ {meter} }}"
    limit = listener.max_connections_per_client
    if limit:
        meter = f"{header}{_masked(listener, limit.prefix)} ct count over {limit.limit}"
        conditions["max_connections_per_client"] = f"add @{_counts_name(listener, limit)} {{ {meter} }}"
    if listener.max_connection_rate:
        conditions["max_connection_rate"] = _over(listener.max_connection_rate)
    return conditions


def _sets(listener: Listener) -> dict[str, Set]:
    address = f"ipv{listener.family}_addr"
    sets = {}
    intervals = merged(listener.source_ranges)
    if intervals:
        elements = dict.fromkeys(intervals)
        sets[_sources_name(listener)] = Set(SetKind.SET, f"type {address}; flags interval;", elements)
    rate = listener.max_connection_rate_per_client
    if rate:
        declaration = f"type {address}; size {METER_SIZE}; flags dynamic,timeout;"
        sets[_rates_name(listener, rate)] = Set(SetKind.SET, declaration, is_ours=False)
    limit = listener.max_connections_per_client
    if limit:
        # The kernel removes the element of a client that has no flow.
        declaration = f"type {address}; size {METER_SIZE}; flags dynamic;"
        sets[_counts_name(listener, limit)] = Set(SetKind.SET, declaration, is_ours=False)
    return sets


def _masked(listener: Listener, prefix: int) -> str:
    """Return what follows the source address in an expression for the bits of it that make a client."""
    network = ipaddress.ip_network(("::" if listener.family == "6" else "0.0.0.0", prefix))
    return "" if prefix == network.max_prefixlen else f" & {network.netmask}"


def _over(rate: ConnectionRate) -> str:
    return f"limit rate over {rate.rate}/second burst {rate.burst} packets"


def _timeout(rate: ConnectionRate) -> int:
    """Return the seconds after which a client without new flows has all of its burst again, and can be forgotten."""
    return min(_MAX_TIMEOUT, rate.burst // rate.rate + 2)


def _sources_name(listener: Listener) -> str:
    # The address of a listener may become one of the other family, which is another type of set.
    return f"sources{listener.family}_{listener.name}"


# An element keeps the limit with which it was made, so another limit needs another set.
def _rates_name(listener: Listener, rate: ConnectionRate) -> str:
    return f"rates{listener.family}_{listener.name}_{rate.rate}_{rate.burst}_{rate.prefix}"


def _counts_name(listener: Listener, limit: ConnectionsPerClient) -> str:
    return f"counts{listener.family}_{listener.name}_{limit.limit}_{limit.prefix}"
