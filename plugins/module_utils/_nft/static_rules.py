# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules, sets and maps that are the same on every node, whatever its listeners."""

from __future__ import annotations

import hashlib
from typing import Any

from .._config.identity import OURS
from .._config.model import Listener
from .._config.ports import ALL, PortRange
from .limits import BACKENDS, BUCKETS, DEALT, FULL, FULL_TIMEOUT, LAST
from .objects import Chain

_ADDRESS = {"4": "ipv4_addr", "6": "ipv6_addr"}


def dispatch_key(listener: Listener, ports: PortRange) -> tuple[str, Any]:
    """Return the name of the map that dispatches ports of a listener, and their key in it."""
    if listener.protocol == "any":
        return f"anyproto{listener.family}", listener.address
    if ports == ALL:
        return f"allports{listener.family}", (listener.address, listener.protocol)
    if ports.is_single:
        return f"listeners{listener.family}", (listener.address, listener.protocol, ports.first)
    return f"ranges{listener.family}", (listener.address, listener.protocol, str(ports))


def _per_family(declarations: dict[str, str]) -> dict[str, str]:
    return {
        name.format(family): declaration.replace("{}", "{0}").format(address)
        for name, declaration in declarations.items()
        for family, address in _ADDRESS.items()
    }


SHARED_SETS = {
    **_per_family(
        {
            "listeners{}": "type {} . inet_proto . inet_service : verdict;",
            "ranges{}": "type {} . inet_proto . inet_service : verdict; flags interval;",
            "allports{}": "type {} . inet_proto : verdict;",
            "anyproto{}": "type {} : verdict;",
            "vips{}": "type {};",
            "dedicated{}": "type {};",
            "routed{}": "type {};",
            "to{}port": "type mark : {} . inet_service;",
            "to{}": "type mark : {};",
            "endpoints{}": "type {} . inet_proto . inet_service;",
            "closed{}": "type {} . inet_proto . inet_service;",
            "peers{}": "type {0} . {0}; size 65536; flags dynamic,timeout; timeout 5m;",
            "hairpins{}": "type {0} . {0} . iface_index; size 65536; flags dynamic,timeout; timeout 10s;",
        }
    ),
    "sticky": "type mark;",
    "ended": "type mark;",
    "refreshed": "type mark : verdict;",
    "logged": "type mark : verdict;",
    "wide": "type mark;",
    "snat_masquerade": "type mark;",
    "snat_hairpin": "type mark;",
    # Without size and flags: with them the kernel drops empty counts or refuses the set.
    BACKENDS: "type mark; ct count over 1;",
    "limit_reached": "type mark; ct count over 1;",
    FULL: "type mark; size 65536; flags dynamic,timeout;",
    DEALT: "type mark : verdict;",
    BUCKETS: "type mark; counter; limit rate over 1/week burst 1 packets;",
    LAST: "type mark; limit rate over 1/week burst 1 packets;",
    "next": "type mark : mark;",
    "acct_new": "type mark; counter;",
    "acct_in": "type mark; counter;",
    "acct_out": "type mark; counter;",
}
"""Sets and maps that all listeners share, with their declarations."""

KERNEL_OWNED = ("peers4", "peers6", "hairpins4", "hairpins6", FULL)
"""Sets whose elements rules add; they expire."""

_REFRESH = "ct direction original ct state != related ct mark vmap @refreshed"
_LOG = "ct state new ct original packets 1 ct mark vmap @logged"

_MARK_FULL = f"add @{FULL} {{ ct mark timeout {FULL_TIMEOUT}s }}"
_TAKE_LAST = f"ct mark @{LAST} {_MARK_FULL}"
_TAKE_PLACE = f"ct mark @{BUCKETS} {_MARK_FULL} drop"

STATIC_CHAINS = {
    # What takes a place of a backend's limit. A flow that finds none is dropped once; its retry goes elsewhere.
    "count": Chain((f"ct mark @{BACKENDS} {_MARK_FULL} drop", f"ct mark @limit_reached {_MARK_FULL}")),
    "places_first": Chain((_TAKE_PLACE, _TAKE_LAST, "goto count")),
    "places_some": Chain((_TAKE_PLACE, _TAKE_LAST)),
    "places_one": Chain((_TAKE_PLACE, _MARK_FULL)),
    "places_none": Chain((f"{_MARK_FULL} drop",)),
    "places": Chain((f"ct mark vmap @{DEALT}", "goto count")),
    "to_backend": Chain(
        (
            "ct mark @acct_new",
            "meta l4proto { tcp, udp, sctp } dnat ip to ct mark map @to4port",
            "dnat ip to ct mark map @to4",
            "meta l4proto { tcp, udp, sctp } dnat ip6 to ct mark map @to6port",
            "dnat ip6 to ct mark map @to6",
            "drop",
        )
    ),
    "refuse": Chain(("meta l4proto tcp reject with tcp reset", "reject with icmpx port-unreachable")),
    "silent": Chain(("drop",)),
    "gate": Chain(("ct state established ct mark @ended goto refuse",)),
    "dispatch": Chain(
        (
            "ip daddr . meta l4proto . th dport vmap @listeners4",
            "ip daddr . meta l4proto . th dport vmap @ranges4",
            "ip daddr . meta l4proto vmap @allports4",
            "ip daddr vmap @anyproto4",
            "ip6 daddr . meta l4proto . th dport vmap @listeners6",
            "ip6 daddr . meta l4proto . th dport vmap @ranges6",
            "ip6 daddr . meta l4proto vmap @allports6",
            "ip6 daddr vmap @anyproto6",
        )
    ),
    "unserved": Chain(
        (
            # The node's own stack would answer an invalid packet with a reset, which kills the live flow.
            "ct state invalid ip daddr @vips4 drop",
            "ct state invalid ip6 daddr @vips6 drop",
            "ct state new ip daddr @dedicated4 meta l4proto != icmp goto refuse",
            # 58 is ICMPv6, by number: without /etc/protocols nft knows no name for it.
            "ct state new ip6 daddr @dedicated6 meta l4proto != 58 goto refuse",
            # A VIP that is not an address of this node has no stack behind it that could answer for unserved ports.
            "ct state new fib daddr type != local ip daddr @routed4 goto refuse",
            "ct state new fib daddr type != local ip6 daddr @routed6 goto refuse",
            # What follows is about packets of backends without an entry, which would reach the client un-NATed.
            "ct state new tcp flags & (syn | ack) == syn return",
            "meta l4proto tcp ip saddr . meta l4proto . th sport @closed4 goto refuse",
            "meta l4proto tcp ip6 saddr . meta l4proto . th sport @closed6 goto refuse",
            "ip saddr . meta l4proto . th sport @endpoints4 drop",
            "ip6 saddr . meta l4proto . th sport @endpoints6 drop",
            # Listeners with more than single ports: only addresses seen in the last 5 minutes are guarded.
            "ip saddr . ip daddr @peers4 drop",
            "ip6 saddr . ip6 daddr @peers6 drop",
        )
    ),
    # Before the packet is translated: it has the tuple that the session is known by.
    "early_in": Chain((_REFRESH,), "type filter hook prerouting priority -150; policy accept;"),
    "gate_in": Chain(("jump gate",), "type filter hook prerouting priority -110; policy accept;"),
    "gate_out": Chain(("jump gate",), "type filter hook output priority -110; policy accept;"),
    "early_out": Chain((_REFRESH,), "type filter hook output priority -150; policy accept;"),
    "nat_in": Chain(("jump dispatch",), "type nat hook prerouting priority -100; policy accept;"),
    "nat_out": Chain(("jump dispatch",), "type nat hook output priority -100; policy accept;"),
    "nat_post": Chain(
        (
            "ct mark @snat_masquerade masquerade",
            "ct mark @snat_hairpin ip saddr . ip daddr . meta oif @hairpins4 masquerade",
            "ct mark @snat_hairpin ip6 saddr . ip6 daddr . meta oif @hairpins6 masquerade",
            f"ct mark & {OURS:#010x} != 0 ct direction original fib saddr type local masquerade",
        ),
        "type nat hook postrouting priority 100; policy accept;",
    ),
    # Invalid packets carry no mark, so they have a rule of their own.
    # Where a flow ends there may be room again, unless the agent deals the places.
    # A flow that leaves by the interface on which it came: its answer could pass this node by.
    "late_in": Chain(
        (
            "ct state invalid jump unserved",
            "ct direction original ct mark @acct_in",
            "ct direction reply ct mark @acct_out",
            f"tcp flags & (fin | rst) != 0 ct mark @{FULL} ct mark != @{BUCKETS} delete @{FULL} {{ ct mark }}",
            "ct state new ct mark @wide update @peers4 { ip daddr . ip saddr }",
            "ct state new ct mark @wide update @peers6 { ip6 daddr . ip6 saddr }",
            "ct state new ct mark @snat_hairpin update @hairpins4 { ip saddr . ip daddr . meta iif }",
            "ct state new ct mark @snat_hairpin update @hairpins6 { ip6 saddr . ip6 daddr . meta iif }",
            f"ct state new ct mark & {OURS:#010x} == 0 jump unserved",
            _LOG,
        ),
        "type filter hook prerouting priority -90; policy accept;",
    ),
    "late_out": Chain(
        ("ct direction original ct mark @acct_in", _LOG), "type filter hook output priority -90; policy accept;"
    ),
}
"""Chains that are the same on every node, in the order in which they can be loaded."""


def rules_digest() -> str:
    """Return a digest of the static rules and sets: another one for each version of the library that changes them."""
    text = repr((SHARED_SETS, [(name, chain.hook, chain.comments) for name, chain in STATIC_CHAINS.items()]))
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).hexdigest()
