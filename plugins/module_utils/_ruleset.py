# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table ``inet evenflow`` that the kernel should hold: rules are static, elements are dynamic.

Only what a rule must name, the number of slots and the hashed tuple, is in a listener's own chain.
"""

from __future__ import annotations

from typing import Any

from ._eligibility import accepts, eligible
from ._identity import OURS, backend_ids
from ._model import Backend, Configuration, Listener, Settings
from ._nft import Chain, Set, Table
from ._scheduler import SlotTable, slot_table

_ADDRESS = {"4": "ipv4_addr", "6": "ipv6_addr"}
_HEADER = {"4": "ip", "6": "ip6"}
_TUPLES = {
    "none": "{ip} saddr . {ip} daddr . meta l4proto . th sport . th dport",
    "client_ip_port_proto": "{ip} saddr . {ip} daddr . meta l4proto . th sport . th dport",
    "client_ip_proto": "{ip} saddr . {ip} daddr . meta l4proto",
    "client_ip": "{ip} saddr . {ip} daddr",
    "client_ip_no_destination": "{ip} saddr",
}
"""What of a packet is hashed, by session affinity."""


def table(configuration: Configuration, settings: Settings) -> Table:
    """Return what the kernel should hold for a configuration."""
    ids = backend_ids(configuration)
    elements: dict[str, dict[Any, Any]] = {name: {} for name in SHARED_SETS}
    chains = dict(STATIC_CHAINS)
    sets = {}
    for listener in configuration.listeners:
        slots = slot_table(listener, eligible(listener), ids, settings.hash_seed)
        chains[chain_name(listener.name)] = _listener_chain(listener, slots, settings)
        sets[slots_name(listener.name)] = Set("map", "typeof numgen inc mod 65536 : ct mark;", slots)
        _add_listener(elements, listener)
        for backend in listener.backends:
            _add_backend(elements, listener, ids[(listener.name, *backend.key)], backend)
    for name, declaration in SHARED_SETS.items():
        sets[name] = Set("map" if ":" in declaration else "set", declaration, elements[name])
    return Table(chains, sets)


def chain_name(listener: str) -> str:
    """Return the name of a listener's chain."""
    return f"l_{listener}"


def slots_name(listener: str) -> str:
    """Return the name of a listener's slot map."""
    return f"slots_{listener}"


def _add_listener(elements: dict[str, dict[Any, Any]], listener: Listener) -> None:
    family = listener.family
    elements[f"vips{family}"][listener.address] = None
    for port in listener.ports:
        key = listener.address, listener.protocol, port
        elements[f"listeners{family}"][key] = f"goto {chain_name(listener.name)}"
        if not accepts(listener):
            elements[f"refused{family}"][key] = "goto refuse"


def _add_backend(elements: dict[str, dict[Any, Any]], listener: Listener, identity: int, backend: Backend) -> None:
    family = listener.family
    for counted in ("acct_new", "acct_in", "acct_out"):
        elements[counted][identity] = None
    if backend.port:
        elements[f"to{family}port"][identity] = backend.key
    else:
        elements[f"to{family}"][identity] = backend.address
    for port in (backend.port,) if backend.port else listener.ports:
        elements[f"endpoints{family}"][(backend.address, listener.protocol, port)] = None


def _listener_chain(listener: Listener, slots: SlotTable, settings: Settings) -> Chain:
    if not slots.size:
        return Chain(("drop",))
    if listener.scheduler == "mh":
        fields = _TUPLES[listener.session_affinity].format(ip=_HEADER[listener.family])
        choice = f"jhash {fields} mod {slots.size} seed {settings.hash_seed:#x}"
    else:
        choice = f"numgen inc mod {slots.size}"
    return Chain((f"ct mark set {choice} map @{slots_name(listener.name)}", "goto to_backend"))


def _per_family(declarations: dict[str, str]) -> dict[str, str]:
    return {
        name.format(family): declaration.format(address)
        for name, declaration in declarations.items()
        for family, address in _ADDRESS.items()
    }


SHARED_SETS = {
    **_per_family(
        {
            "listeners{}": "type {} . inet_proto . inet_service : verdict;",
            "refused{}": "type {} . inet_proto . inet_service : verdict;",
            "vips{}": "type {};",
            "to{}port": "type mark : {} . inet_service;",
            "to{}": "type mark : {};",
            "endpoints{}": "type {} . inet_proto . inet_service;",
        }
    ),
    "acct_new": "type mark; counter;",
    "acct_in": "type mark; counter;",
    "acct_out": "type mark; counter;",
}
"""Sets and maps that all listeners share, with their declarations."""

STATIC_CHAINS = {
    "to_backend": Chain(
        (
            "ct mark @acct_new",
            "meta l4proto { tcp, udp } dnat ip to ct mark map @to4port",
            "dnat ip to ct mark map @to4",
            "meta l4proto { tcp, udp } dnat ip6 to ct mark map @to6port",
            "dnat ip6 to ct mark map @to6",
            "drop",
        )
    ),
    "refuse": Chain(("meta l4proto tcp reject with tcp reset", "reject with icmpx port-unreachable")),
    "dispatch": Chain(
        (
            "ip daddr . meta l4proto . th dport vmap @listeners4",
            "ip6 daddr . meta l4proto . th dport vmap @listeners6",
        )
    ),
    # A VIP that is not an address of this node has no stack behind it that could answer for its unserved ports.
    # A packet without an entry that comes from a backend's endpoint would reach the client un-NATed.
    "unserved": Chain(
        (
            "ct state invalid ip daddr @vips4 drop",
            "ct state invalid ip6 daddr @vips6 drop",
            "ct state new fib daddr type != local ip daddr @vips4 goto refuse",
            "ct state new fib daddr type != local ip6 daddr @vips6 goto refuse",
            "ct state new tcp flags & (syn | ack) == syn return",
            "ip saddr . meta l4proto . th sport @endpoints4 drop",
            "ip6 saddr . meta l4proto . th sport @endpoints6 drop",
        )
    ),
    "gate": Chain(
        (
            "ct state new ip daddr . meta l4proto . th dport vmap @refused4",
            "ct state new ip6 daddr . meta l4proto . th dport vmap @refused6",
        )
    ),
    "gate_in": Chain(("jump gate",), "type filter hook prerouting priority -110; policy accept;"),
    "gate_out": Chain(("jump gate",), "type filter hook output priority -110; policy accept;"),
    "nat_in": Chain(("jump dispatch",), "type nat hook prerouting priority -100; policy accept;"),
    "nat_out": Chain(("jump dispatch",), "type nat hook output priority -100; policy accept;"),
    "nat_post": Chain(
        (f"ct mark & {OURS:#010x} != 0 ct direction original fib saddr type local masquerade",),
        "type nat hook postrouting priority 100; policy accept;",
    ),
    # Invalid packets carry no mark, so they have a rule of their own.
    "late_in": Chain(
        (
            "ct state invalid jump unserved",
            "ct direction original ct mark @acct_in",
            "ct direction reply ct mark @acct_out",
            f"ct state new ct mark & {OURS:#010x} == 0 jump unserved",
        ),
        "type filter hook prerouting priority -90; policy accept;",
    ),
    "late_out": Chain(
        ("ct direction original ct mark @acct_in",), "type filter hook output priority -90; policy accept;"
    ),
}
"""Chains that are the same on every node, in the order in which they can be loaded."""
