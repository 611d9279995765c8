# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table ``inet evenflow`` that the kernel should hold: rules are static, elements are dynamic.

Static chains and shared sets are the same on every node. What a rule must name, the number of slots, the hashed tuple,
a listener's limits and time-outs, is in the listener's own chains.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any, Collection, Dict, Iterable, Mapping

from .._config.identity import backend_ids
from .._config.model import Backend, Configuration, Listener
from .._config.settings import Settings
from .._schedule.scheduler import slot_table
from .._state.eligibility import accepts, drops, is_healthy, select
from .._state.fate import fates
from .._state.runtime import EMPTY_RUNTIME, Runtime
from .limits import BACKENDS, backend_limit_name, over
from .listener_chains import chain_name, group, log_name, refresh_name, timeouts
from .objects import Group, Set, Table
from .static_rules import KERNEL_OWNED, SHARED_SETS, STATIC_CHAINS, dispatch_key

_Elements = Dict[str, Dict[Any, Any]]
"""Elements of shared sets, by the sets' names."""


def table(
    configuration: Configuration,
    settings: Settings,
    owned: Collection[str] = (),
    runtime: Runtime = EMPTY_RUNTIME,
) -> Table:
    """Return what the kernel should hold for a configuration.

    :param configuration: in force, see :func:`~._in_force.effective`.
    :param owned: the VIPs that are on an interface of this node because we put them there.
    """
    ids = backend_ids(configuration)
    elements: _Elements = {name: {} for name in SHARED_SETS}
    wanted = Table(Group(dict(STATIC_CHAINS), {}), {}, {})
    for listener in configuration.listeners:
        added = _added(listener, ids, settings, listener.address in owned, runtime)
        wanted.listeners[listener.name] = added.group
        wanted.timeouts.update(added.timeouts)
        for name, its in added.elements.items():
            elements[name].update(its)
    _add_leaving(elements, configuration, settings, owned)
    for listener in configuration.leaving:
        _add_backends(elements, listener, _marks(listener, listener.backends, ids), runtime)
    for listener in configuration.guarded:
        _add_endpoints(elements, listener)
        _add_closed(elements, listener, is_gone=True)
    _reopen(elements, configuration)
    elements["ended"].update(dict.fromkeys(runtime.ending))
    for name, declaration in SHARED_SETS.items():
        kind = "map" if ":" in declaration else "set"
        wanted.shared.sets[name] = Set(kind, declaration, elements[name], is_ours=name not in KERNEL_OWNED)
    return wanted


@dataclass(frozen=True)
class _Added:
    """What a listener adds to the table.

    :ivar elements: to the shared sets.
    """

    group: Group
    timeouts: Mapping[str, str]
    elements: _Elements


def _added(
    listener: Listener, ids: Mapping[tuple[str, str, int], int], settings: Settings, is_owned: bool, runtime: Runtime
) -> _Added:
    marks = _marks(listener, listener.backends, ids)
    limits = [listener.name, *map(backend_limit_name, marks)] if runtime.uncounted else []
    shares = runtime.shares.get(listener.name)
    given = marks, settings, is_owned, shares, [runtime.uncounted.get(name) for name in limits]
    # Kept with the listener: the tables before and after a change differ in few of them.
    known = vars(listener).get(_ADDED)
    if known and known[0] == given:
        found: _Added = known[1]
        return found
    elements: _Elements = defaultdict(dict)
    chosen = select(listener).backends
    slots = slot_table(listener, chosen, ids, settings.hash_seed, shares)
    _add_listener(elements, listener, settings, is_owned)
    _add_backends(elements, listener, marks, runtime)
    ring = _marks(listener, chosen, ids)
    if listener.keeps_sessions:
        elements["sticky"].update(dict.fromkeys([*ring, *_persisting(listener, ids)]))
    if listener.is_limited:
        # From each to the next, so that a full one's flow can go on.
        elements["next"].update(zip(ring, ring[1:] + ring[:1]))
    uncounted = runtime.uncounted.get(listener.name, 0)
    found = _Added(group(listener, slots, settings, uncounted), timeouts(listener), elements)
    vars(listener)[_ADDED] = given, found
    return found


_ADDED = "_added"


def _marks(listener: Listener, backends: Iterable[Backend], ids: Mapping[tuple[str, str, int], int]) -> list[int]:
    return [ids[(listener.name, *backend.endpoint)] for backend in backends]


def _add_listener(elements: _Elements, listener: Listener, settings: Settings, is_owned: bool) -> None:
    family, vip = listener.family, listener.address
    elements[f"vips{family}"][vip] = None
    is_dedicated = settings.vip_dedicated if settings.vip_dedicated is not None else is_owned
    if is_dedicated:
        elements[f"dedicated{family}"][vip] = None
    elif settings.vip_dedicated is None:
        elements[f"routed{family}"][vip] = None
    if accepts(listener):
        verdict = f"goto {chain_name(listener.name)}"
    else:
        verdict = "goto silent" if drops(listener) else "goto refuse"
    for ports in listener.ports:
        name, key = dispatch_key(listener, ports)
        elements[name][key] = verdict


def _add_leaving(elements: _Elements, configuration: Configuration, settings: Settings, owned: Collection[str]) -> None:
    """Let removed listeners keep their VIP and reject new flows to those of their ports that nobody else serves."""
    taken = [(one.address, one.protocol, ports) for one in configuration.listeners for ports in one.ports]
    for listener in configuration.leaving:
        free = [
            ports
            for ports in listener.ports
            if not any(
                (listener.address, listener.protocol) == other[:2]
                and ports.first <= other[2].last
                and other[2].first <= ports.last
                for other in taken
            )
        ]
        taken += [(listener.address, listener.protocol, ports) for ports in free]
        _add_listener(elements, replace(listener, ports=tuple(free)), settings, listener.address in owned)


def _add_backends(elements: _Elements, listener: Listener, marks: list[int], runtime: Runtime) -> None:
    endpoints = list(zip(marks, listener.backends))
    elements[f"to{listener.family}port"].update((mark, backend.endpoint) for mark, backend in endpoints if backend.port)
    elements[f"to{listener.family}"].update((mark, backend.address) for mark, backend in endpoints if not backend.port)
    for name in _kept_in(listener):
        elements[name].update(dict.fromkeys(marks))
    for mark, backend in endpoints:
        if backend.max_connections:
            unknown = runtime.uncounted.get(backend_limit_name(mark), 0)
            elements[BACKENDS][mark] = over(backend.max_connections, unknown)
            elements["limit_reached"][mark] = over(backend.max_connections - 1, unknown)
    staying = [mark for mark, backend in endpoints if not backend.is_leaving]
    if listener.keeps_sessions:
        elements["refreshed"].update(dict.fromkeys(staying, f"jump {refresh_name(listener.name)}"))
    if listener.log_config.is_on:
        elements["logged"].update(dict.fromkeys(staying, f"jump {log_name(listener.name)}"))
    if not listener.is_wide:
        _add_endpoints(elements, listener)
        _add_closed(elements, listener)


def _kept_in(listener: Listener) -> list[str]:
    """Return the sets in which all registrations of a listener are."""
    found = ["acct_new", "acct_in", "acct_out"]
    if listener.snat != "none":
        found.append(f"snat_{listener.snat}")
    if listener.is_wide:
        found.append("wide")
    return found


def _persisting(listener: Listener, ids: Mapping[tuple[str, str, int], int]) -> list[int]:
    """Return the ids of unhealthy backends whose streams stay, and with them the sessions that are one stream each."""
    if listener.protocol not in ("tcp", "sctp"):
        return []
    kept = [
        backend
        for backend, fate in zip(listener.backends, fates(listener))
        if backend.admin_state == "enabled" and backend.has_share and not is_healthy(backend) and not fate
    ]
    return _marks(listener, kept, ids)


def _add_endpoints(elements: _Elements, listener: Listener) -> None:
    """Guard what answers for the listener, one endpoint by one."""
    elements[f"endpoints{listener.family}"].update(dict.fromkeys(_endpoints(listener, listener.backends)))


def _add_closed(elements: _Elements, listener: Listener, is_gone: bool = False) -> None:
    """Add what has no flow any more, so that a server that still speaks on one is told."""
    closed = [backend for backend in listener.backends if is_gone or _is_closed(backend)]
    elements[f"closed{listener.family}"].update(dict.fromkeys(_endpoints(listener, closed)))


def _reopen(elements: _Elements, configuration: Configuration) -> None:
    """Take what answers for another registration too out of those that have no flow any more."""
    if elements["closed4"] or elements["closed6"]:
        for listener in configuration.listeners_and_leaving:
            is_open = [backend for backend in listener.backends if not _is_closed(backend)]
            for endpoint in _endpoints(listener, is_open):
                elements[f"closed{listener.family}"].pop(endpoint, None)


def _is_closed(backend: Backend) -> bool:
    return backend.admin_state == "disabled" or (
        backend.is_drain_expired and (backend.is_leaving or backend.admin_state == "drained")
    )


def _endpoints(listener: Listener, backends: Iterable[Backend]) -> list[tuple[str, str, int]]:
    """Return what answers for registrations: their ports, or those that the listener passes on."""
    passed_on = [ports.first for ports in listener.ports if ports.is_single]
    return [
        (backend.address, listener.protocol, port)
        for backend in backends
        for port in ((backend.port,) if backend.port else passed_on)
    ]
