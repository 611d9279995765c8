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
from .admission import EXCEEDED
from .limits import BACKENDS, BUCKETS, DEALT, FULL, FULL_TIMEOUT, LAST, SPARES
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
            "served{}": "type {} . inet_proto . inet_service; size 65536; flags dynamic,timeout; timeout 1h;",
            "peers{}": "type {0} . {0} . inet_proto; size 65536; flags dynamic,timeout; timeout 5m;",
            "hairpins{}": "type {0} . {0} . iface_index; size 65536; flags dynamic,timeout; timeout 10s;",
        }
    ),
    "sticky": "type mark;",
    "ended": "type mark;",
    "refreshed": "type mark : verdict;",
    "logged": "type mark : verdict;",
    "learned": "type mark;",
    "snat_masquerade": "type mark;",
    "snat_hairpin": "type mark;",
    # Without size and flags: with them the kernel drops empty counts or refuses the set.
    BACKENDS: "type mark; ct count over 1;",
    "limit_reached": "type mark; ct count over 1;",
    FULL: "type mark; size 65536; flags dynamic,timeout;",
    DEALT: "type mark : verdict;",
    BUCKETS: "type mark; counter; limit rate over 1/week burst 1 packets;",
    SPARES: "type mark; counter; limit rate over 1/week burst 1 packets;",
    LAST: "type mark; limit rate over 1/week burst 1 packets;",
    "next": "type mark : mark;",
    "acct_new": "type mark; counter;",
    "acct_in": "type mark; counter;",
    "acct_out": "type mark; counter;",
}
"""Sets and maps that all listeners share, with their declarations."""

KERNEL_OWNED = ("served4", "served6", "peers4", "peers6", "hairpins4", "hairpins6", FULL)
"""Sets whose elements rules add; they expire."""

SYMMETRIC_PORTS = (53, 123, 500, 1701, 4500, 5060)
"""UDP ports that both sides of a flow may use, as DNS, NTP, IKE, L2TP and SIP do.

A backend that answers on such a port also uses it as a client.
"""

_SYMMETRIC = f"udp sport . udp dport {{ {', '.join(f'{port} . {port}' for port in SYMMETRIC_PORTS)} }}"
# ICMP has its type and code where others have the source port. 58 is ICMPv6.
_HAS_ENDPOINT = "{ tcp, udp, sctp, icmp, 58 }"

_REFRESH = "ct direction original ct state != related ct mark vmap @refreshed"
_TO_A_VIP = ("ip daddr @vips4", "ip6 daddr @vips6")
# Only to VIPs: the reset of a flow that a listener rejects goes through again_out too, and has its mark.
_UNTRANSLATED = tuple(f"{each} ct mark & {OURS:#010x} != 0 drop" for each in _TO_A_VIP)
_CONVERTED = (
    "icmpv6 type destination-unreachable icmpv6 code reject-route @th,112,8 132 "
    "icmpv6 type set parameter-problem icmpv6 code set 1"
)
"""Turns the refusal of an SCTP packet into an ICMPv6 error that nftables cannot send: unrecognized next header."""

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
    "places_spare": Chain((f"ct mark @{SPARES} {_MARK_FULL} drop", _TAKE_LAST)),
    "places_both": Chain((f"ct mark @{SPARES} goto places_some", _TAKE_LAST)),
    "places_none": Chain((f"{_MARK_FULL} drop",)),
    "places": Chain((f"ct mark vmap @{DEALT}", "goto count")),
    "to_backend": Chain(
        (
            "ct mark @acct_new",
            "meta l4proto { tcp, udp, sctp } dnat ip to ct mark map @to4port",
            "dnat ip to ct mark map @to4",
            "meta l4proto { tcp, udp, sctp } dnat ip6 to ct mark map @to6port",
            "dnat ip6 to ct mark map @to6",
            # What comes here is not translated: again_in and again_out try again, and drop it otherwise.
        )
    ),
    # Linux ends an SCTP association that is being set up for these errors only; for IPv6 late_out makes one of them.
    "refuse": Chain(
        (
            "meta l4proto tcp reject with tcp reset",
            "meta nfproto ipv4 meta l4proto sctp reject with icmp prot-unreachable",
            "meta nfproto ipv6 meta l4proto sctp reject with icmpv6 reject-route",
            "reject with icmpx port-unreachable",
        )
    ),
    "exceeded": EXCEEDED,
    "silent": Chain(("drop",)),
    # An SCTP endpoint ends an association only for an ABORT with the tag that its peer was given. So what answers the
    # packets of an endpoint, SACK (3) and HEARTBEAT ACK (5), becomes ABORT (6, its length 4); all others pass, to be
    # answered. NAT writes the checksum.
    "end": Chain(("meta l4proto != sctp goto refuse", "@th,96,8 { 3, 5 } @th,96,32 set 0x06000004")),
    "gate": Chain(("ct state established ct mark @ended goto end",)),
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
    "from_peer": Chain(
        ("ip saddr . ip daddr . meta l4proto @peers4 drop", "ip6 saddr . ip6 daddr . meta l4proto @peers6 drop")
    ),
    "unserved_port": Chain(
        (
            "ip daddr @dedicated4 meta l4proto != icmp goto refuse",
            # 58 is ICMPv6, by number: without /etc/protocols nft knows no name for it.
            "ip6 daddr @dedicated6 meta l4proto != 58 goto refuse",
            # A VIP that is not an address of this node has no stack behind it that could answer for unserved ports.
            "fib daddr type != local ip daddr @routed4 goto refuse",
            "fib daddr type != local ip6 daddr @routed6 goto refuse",
        )
    ),
    "unserved": Chain(
        (
            # The node's own stack would answer an invalid packet with a reset, which kills the live flow.
            "ct state invalid ip daddr @vips4 drop",
            "ct state invalid ip6 daddr @vips6 drop",
            # Not in again_in: while a table goes, its maps are empty before its sets, and the anchor must drop first.
            "ct state new jump unserved_port",
            # What follows is about packets of backends without an entry, which would reach the client un-NATed.
            "ct state new tcp flags & (syn | ack) == syn return",
            "meta l4proto tcp ip saddr . meta l4proto . th sport @closed4 goto refuse",
            "meta l4proto tcp ip6 saddr . meta l4proto . th sport @closed6 goto refuse",
            f"{_SYMMETRIC} goto from_peer",
            "ip saddr . meta l4proto . th sport @endpoints4 drop",
            "ip6 saddr . meta l4proto . th sport @endpoints6 drop",
            # Listeners with more than single ports: the endpoints that have answered in the last hour.
            "ip saddr . meta l4proto . th sport @served4 drop",
            "ip6 saddr . meta l4proto . th sport @served6 drop",
            f"meta l4proto != {_HAS_ENDPOINT} goto from_peer",
        )
    ),
    "learn_peer": Chain(
        (
            "update @peers4 { ip saddr . ip daddr . meta l4proto }",
            "update @peers6 { ip6 saddr . ip6 daddr . meta l4proto }",
        )
    ),
    # Answers alone are noted, because clients can send to any port in the name of any address.
    "learn": Chain(
        (
            "tcp flags & rst != 0 return",
            f"{_SYMMETRIC} goto learn_peer",
            f"meta l4proto != {_HAS_ENDPOINT} goto learn_peer",
            "update @served4 { ip saddr . meta l4proto . th sport }",
            "update @served6 { ip6 saddr . meta l4proto . th sport }",
        )
    ),
    # Before the packet is translated: it has the tuple that the session is known by.
    "early_in": Chain((_REFRESH,), "type filter hook prerouting priority -150; policy accept;"),
    "gate_in": Chain(("jump gate",), "type filter hook prerouting priority -110; policy accept;"),
    "gate_out": Chain(("jump gate",), "type filter hook output priority -110; policy accept;"),
    "early_out": Chain((_REFRESH,), "type filter hook output priority -150; policy accept;"),
    "nat_in": Chain(("jump dispatch",), "type nat hook prerouting priority -100; policy accept;"),
    "nat_out": Chain(("jump dispatch",), "type nat hook output priority -100; policy accept;"),
    # While a transaction takes effect, the maps that a packet still has to look up may be empty for it: what nat_in did
    # not translate for this reason is translated here, by the rules of that transaction.
    "again_in": Chain(
        (*(f"{each} jump dispatch" for each in _TO_A_VIP), *_UNTRANSLATED),
        "type nat hook prerouting priority -99; policy accept;",
    ),
    "again_out": Chain(
        (*(f"{each} jump dispatch" for each in _TO_A_VIP), *_UNTRANSLATED),
        "type nat hook output priority -99; policy accept;",
    ),
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
    # Endpoints that configuration cannot name are learned from answers.
    # Where a flow ends there may be room again, unless the agent deals the places.
    # A flow that leaves by the interface on which it came: its answer could pass this node by.
    "late_in": Chain(
        (
            "ct state invalid jump unserved",
            "ct direction original ct mark @acct_in",
            "ct direction reply ct mark @acct_out",
            "ct direction reply ct state established ct mark @learned jump learn",
            f"tcp flags & (fin | rst) != 0 ct mark @{FULL} ct mark != @{BUCKETS} delete @{FULL} {{ ct mark }}",
            "ct state new ct mark @snat_hairpin update @hairpins4 { ip saddr . ip daddr . meta iif }",
            "ct state new ct mark @snat_hairpin update @hairpins6 { ip6 saddr . ip6 daddr . meta iif }",
            f"ct state new ct mark & {OURS:#010x} == 0 jump unserved",
            _LOG,
        ),
        "type filter hook prerouting priority -90; policy accept;",
    ),
    "late_out": Chain(
        ("ct direction original ct mark @acct_in", _LOG, _CONVERTED),
        "type filter hook output priority -90; policy accept;",
    ),
}
"""Chains that are the same on every node, in the order in which they can be loaded."""


def rules_digest() -> str:
    """Return a digest of the static rules and sets: another one for each version of the library that changes them."""
    text = repr((SHARED_SETS, [(name, chain.hook, chain.comments) for name, chain in STATIC_CHAINS.items()]))
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).hexdigest()
