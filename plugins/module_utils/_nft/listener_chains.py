# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A listener's own chains, sets and time-outs: all that a rule must name, so that only another rule can change it.

The rules of a chain are in the order in which a new flow meets them: admission, session, choice of a slot, other choice
if the backend is full, limits, time-out. Two more chains see later packets: the first refreshes the session, the second
logs the flow.
"""

from __future__ import annotations

from .._config.model import Listener
from .._config.settings import Settings
from .._schedule.scheduler import SlotTable
from . import admission
from .limits import (
    EXACT,
    FULL,
    HALF_OPEN_TIMEOUT,
    PICKED_UP_TIMEOUT,
    Dealing,
    bucket_set_name,
    dealt_map_name,
    listener_chain_name,
    listener_key,
    listener_set_name,
    over,
    spare_set_name,
)
from .objects import Chain, Group, Set, SetKind

SESSION_TIMEOUT = 600
"""Seconds for which an idle session lives, unless the listener has ``idle_timeout_sec``."""

FIRST_SESSION_TIMEOUT = 10
"""Seconds for which the session of a stream lives that has not been established yet."""

SESSIONS_PREFIX = "sess_"
"""What the name of a listener's session map begins with."""

_HEADER = {"4": "ip", "6": "ip6"}
_FIVE = "{ip} saddr . {ip} daddr . meta l4proto . th sport . th dport"
_THREE = "{ip} saddr . {ip} daddr . meta l4proto"
_TUPLES = {
    "none": _FIVE,
    "client_ip_port_proto": _FIVE,
    "client_ip_proto": _THREE,
    "client_ip": "{ip} saddr . {ip} daddr",
    "client_ip_no_destination": "{ip} saddr",
    "sh": "{ip} saddr",
    "dh": "{ip} daddr",
}
"""The hashed fields of a packet, by session affinity, and by scheduler for those that hash only one tuple."""

_WITH_PORTS = "{ tcp, udp, sctp }"
_STREAM_PROTOCOLS = ("tcp", "sctp")
_STREAMS = "meta l4proto { tcp, sctp } "

SAMPLES = 1000000
"""The kernel takes a sample rate as a number of parts out of this many."""

_LOG_RATE = 1000
"""Maximum number of flows that a listener logs per second, so that a flood does not fill the disk."""

_SNAPLEN = 128
"""Bytes of a packet that are logged: its headers."""


def chain_name(listener: str) -> str:
    """Return the name of the chain that a listener's new flows enter."""
    return f"l_{listener}"


def after_choice_name(listener: str) -> str:
    """Return the name of the chain that a flow enters once its backend is chosen, where a session may choose it."""
    return f"f_{listener}"


def slots_name(listener: str) -> str:
    """Return the name of a listener's slot map."""
    return f"slots_{listener}"


def refresh_name(listener: str) -> str:
    """Return the name of the chain in which a flow's packets keep its session alive."""
    return f"r_{listener}"


def log_name(listener: str) -> str:
    """Return the name of the chain that logs a listener's new flows."""
    return f"log_{listener}"


def group(
    listener: Listener, slots: SlotTable, settings: Settings, uncounted: int, dealing: Dealing | None = None
) -> Group:
    """Return a listener's own chains and sets.

    :param uncounted: number of flows that the element of its limit does not count.
    :param dealing: how the places of its limit are dealt, if they are.
    """
    admitted = admission.group(listener)
    chains = {
        **admitted.chains,
        **_limit_chains(listener),
        **_spill_chains(listener),
        **_chains(listener, list(admitted.chains), slots, settings),
        **_later_chains(listener, settings),
    }
    return Group(chains, {**admitted.sets, **_sets(listener, slots, settings, uncounted, dealing)})


def _chains(listener: Listener, admitting: list[str], slots: SlotTable, settings: Settings) -> dict[str, Chain]:
    name = chain_name(listener.name)
    if not slots.size:
        return {name: Chain(("drop",))}
    admit = [f"jump {admits}" for admits in admitting]
    end = [*_limits(listener), *_set_timeout(listener), "goto to_backend"]
    choice = [*_draw(listener, slots, settings), *_spill(listener)]
    if not listener.keeps_sessions:
        return {name: Chain((*admit, *choice, *end))}
    after_choice = after_choice_name(listener.name)
    chosen = (*choice, *_remember(listener, settings), f"goto {after_choice}")
    return {
        after_choice: Chain(tuple(end)),
        name: Chain((*admit, *_session(listener, settings, after_choice), *chosen)),
    }


def _later_chains(listener: Listener, settings: Settings) -> dict[str, Chain]:
    chains = {}
    if listener.keeps_sessions:
        chains[refresh_name(listener.name)] = Chain(tuple(_refresh(listener, settings)))
    if listener.log_config.is_on:
        chains[log_name(listener.name)] = Chain((_log(listener, settings),))
    return chains


def _sets(
    listener: Listener, slots: SlotTable, settings: Settings, uncounted: int, dealing: Dealing | None
) -> dict[str, Set]:
    sets = {slots_name(listener.name): Set(SetKind.MAP, "typeof numgen inc mod 65536 : ct mark;", slots)}
    if listener.keeps_sessions:
        size = settings.conntrack_max
        declaration = f"typeof numgen inc mod 65536 : ct mark; size {size}; flags dynamic,timeout;"
        sets[_sessions_name(listener)] = Set(SetKind.MAP, declaration, is_ours=False, size=size)
    if listener.max_connections:
        limit = {listener_key(listener): over(listener.max_connections, uncounted)}
        sets[listener_set_name(listener.name)] = Set(SetKind.SET, "type nf_proto; ct count over 1;", limit)
    if listener.max_connections > EXACT:
        key = listener_key(listener)
        dealt = {key: f"goto {listener_chain_name(listener.name, dealing)}"} if dealing else {}
        spare = dict.fromkeys(dealt) if dealing and dealing.uses_spare else {}
        declaration = "type nf_proto; counter; limit rate over 1/week burst 1 packets;"
        sets[bucket_set_name(listener.name)] = Set(SetKind.SET, declaration, dict.fromkeys(dealt))
        sets[spare_set_name(listener.name)] = Set(SetKind.SET, declaration, spare)
        sets[dealt_map_name(listener.name)] = Set(SetKind.MAP, "type nf_proto : verdict;", dealt)
    return sets


def timeouts(listener: Listener) -> dict[str, str]:
    """Return the declarations of the ct time-outs that the listener's chains name."""
    return {name: declaration for _condition, name, declaration in _timeouts(listener)}


def _timeouts(listener: Listener) -> list[tuple[str, str, str]]:
    """Return the listener's ct time-outs: the packets that begin the flows that get one, its name, its declaration."""
    seconds = listener.idle_timeout_sec
    idle = {"established": seconds} if seconds else {}
    name = f"tcp_{seconds}" if seconds else "tcp"
    choices: list[tuple[str, str, str, dict[str, int]]] = []
    if listener.protocol in ("tcp", "any"):
        if listener.max_connections or listener.is_limited:
            half_open = {"syn_sent": HALF_OPEN_TIMEOUT, "syn_recv": HALF_OPEN_TIMEOUT, **idle}
            choices += [
                ("tcp flags & syn != 0", "tcp", f"{name}_limited", half_open),
                ("tcp flags & syn == 0", "tcp", f"{name}_picked_up", {**half_open, "unack": PICKED_UP_TIMEOUT}),
            ]
        elif seconds:
            choices.append(("meta l4proto tcp", "tcp", name, idle))
    if listener.protocol in ("udp", "any") and seconds:
        choices.append(("meta l4proto udp", "udp", f"udp_{seconds}", {"unreplied": seconds, "replied": seconds}))
    return [
        (condition, name, f"protocol {protocol}; policy = {{ {_policy(policy)} }};")
        for condition, protocol, name, policy in choices
    ]


def _policy(seconds: dict[str, int]) -> str:
    return ", ".join(f"{state} : {each}" for state, each in seconds.items())


def _hashes(listener: Listener, hashed: str, modulus: int, seed: int) -> list[tuple[str, str]]:
    """Return the hash expressions, as pairs of a condition on the packet and an expression.

    A protocol without ports has no five-tuple, so a listener for every protocol hashes three fields of its packets.
    """
    tuples = [("", _TUPLES[hashed])]
    if listener.protocol == "any" and _TUPLES[hashed] == _FIVE:
        tuples = [(f"meta l4proto {_WITH_PORTS} ", _FIVE), (f"meta l4proto != {_WITH_PORTS} ", _THREE)]
    ip = _HEADER[listener.family]
    return [(condition, f"jhash {fields.format(ip=ip)} mod {modulus} seed {seed:#x}") for condition, fields in tuples]


def _draw(listener: Listener, slots: SlotTable, settings: Settings) -> list[str]:
    name = slots_name(listener.name)
    if not listener.is_hashed:
        return [f"ct mark set numgen inc mod {slots.size} map @{name}"]
    hashed = listener.session_affinity if listener.scheduler == "mh" else listener.scheduler
    return [
        f"{condition}ct mark set {key} map @{name}"
        for condition, key in _hashes(listener, hashed, slots.size, settings.hash_seed)
    ]


def _spill(listener: Listener) -> list[str]:
    """Choose another backend if the chosen one is full, before anything is counted.

    A flow that was counted against a full backend and then sent elsewhere would stay in that backend's count.
    """
    return [f"ct mark @{FULL} jump spill_{listener.name}"] if listener.is_limited else []


def _spill_chains(listener: Listener) -> dict[str, Chain]:
    """Return the chain that chooses the next backend until one is not full or all have been tried."""
    if not listener.is_limited:
        return {}
    hop = ("ct mark set ct mark map @next", f"ct mark != @{FULL} return")
    return {f"spill_{listener.name}": Chain((*hop * (len(listener.backends) - 1), "goto refuse"))}


def _limits(listener: Listener) -> list[str]:
    rules = []
    if listener.max_connections > EXACT:
        rules.append(f"jump limited_{listener.name}")
    elif listener.max_connections:
        rules.append(_count(listener))
    if listener.is_limited:
        rules.append(
            "jump places" if max(backend.max_connections for backend in listener.backends) > EXACT else "jump count"
        )
    return rules


def _count(listener: Listener) -> str:
    return f"meta nfproto @{listener_set_name(listener.name)} goto refuse"


def _limit_chains(listener: Listener) -> dict[str, Chain]:
    """Return the chains that take a place of the listener's limit, where an agent deals them."""
    name = listener.name
    if listener.max_connections <= EXACT:
        return {}
    take = f"meta nfproto @{bucket_set_name(name)} goto refuse"
    take_spare = f"meta nfproto @{spare_set_name(name)}"
    some = listener_chain_name(name, Dealing.SOME)
    return {
        some: Chain((take,)),
        listener_chain_name(name, Dealing.FIRST): Chain((take, _count(listener))),
        listener_chain_name(name, Dealing.SPARE): Chain((f"{take_spare} goto refuse",)),
        listener_chain_name(name, Dealing.BOTH): Chain((f"{take_spare} goto {some}",)),
        f"limited_{name}": Chain((f"meta nfproto vmap @{dealt_map_name(name)}", _count(listener))),
    }


def _set_timeout(listener: Listener) -> list[str]:
    return [f'{condition} ct timeout set "{name}"' for condition, name, _declaration in _timeouts(listener)]


def _session(listener: Listener, settings: Settings, after_choice: str) -> list[str]:
    """Send the flow of a client with a session to the session's backend, if that may still get it."""
    rules = []
    name = _sessions_name(listener)
    for condition, key in _session_keys(listener, settings):
        rules.append(f"{condition}ct mark set {key} map @{name}")
        if listener.is_limited:
            rules.append(f"ct mark @{FULL} ct mark set 0")
        # A packet of a stream renews the session when the stream is established.
        if listener.protocol in _STREAM_PROTOCOLS:
            rules.append(f"{condition}ct mark @sticky goto {after_choice}")
            continue
        if listener.protocol == "any":
            rules.append(f"{_STREAMS}{condition}ct mark @sticky goto {after_choice}")
        session = f"{{ {key}{_lifetime(listener)} : ct mark }}"
        rules.append(f"{condition}ct mark @sticky update @{name} {session} goto {after_choice}")
    # The mark that the lookup has set is not the scheduler's choice.
    return [*rules, "ct mark set 0"]


def _remember(listener: Listener, settings: Settings) -> list[str]:
    """Store the session. An update would not change the backend of one that exists.

    The session of a stream lives shortly until the stream is established, so that forged SYNs do not fill the map.
    """
    name = _sessions_name(listener)
    first = f" timeout {FIRST_SESSION_TIMEOUT}s"
    statements = [("", "delete", "")]
    if listener.protocol in _STREAM_PROTOCOLS:
        statements.append(("", "add", first))
    else:
        if listener.protocol == "any":
            # The second addition leaves the element of the first one as it is.
            statements.append((_STREAMS, "add", first))
        statements.append(("", "add", _lifetime(listener)))
    return [
        f"{protocols}{condition}{verb} @{name} {{ {key}{lifetime} : ct mark }}"
        for condition, key in _session_keys(listener, settings)
        for protocols, verb, lifetime in statements
    ]


def _refresh(listener: Listener, settings: Settings) -> list[str]:
    name = _sessions_name(listener)
    is_established = "ct status assured " if listener.protocol in _STREAM_PROTOCOLS else ""
    rules = [f"{_STREAMS}ct status & assured == 0 return"] if listener.protocol == "any" else []
    return rules + [
        f"{is_established}{condition}update @{name} {{ {key}{_lifetime(listener)} : ct mark }}"
        for condition, key in _session_keys(listener, settings)
    ]


def _log(listener: Listener, settings: Settings) -> str:
    samples = round(listener.log_config.sample_rate * SAMPLES)
    condition = "" if samples == SAMPLES else f"numgen random mod {SAMPLES} < {samples} "
    limit = f"limit rate {_LOG_RATE}/second burst {_LOG_RATE} packets"
    return f'{condition}{limit} log prefix "evenflow {listener.name} " group {settings.log_group} snaplen {_SNAPLEN}'


def _lifetime(listener: Listener) -> str:
    return f" timeout {listener.idle_timeout_sec or SESSION_TIMEOUT}s"


def _session_keys(listener: Listener, settings: Settings) -> list[tuple[str, str]]:
    return _hashes(listener, listener.session_affinity, 4294967295, settings.hash_seed)


def _sessions_name(listener: Listener) -> str:
    return f"{SESSIONS_PREFIX}{listener.name}"
