# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The desired table: what the kernel should hold for an effective configuration.

Rules are static, elements are dynamic. Static chains and shared sets are the same on every node. What a rule must name
(the number of slots, the hashed tuple, a listener's limits and time-outs) is in the listener's own chains.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any, Collection, Dict, Iterable, Mapping, NamedTuple

from .._config.derived import Derived
from .._config.identity import BackendIds, backend_ids
from .._config.model import Backend, Configuration, Listener
from .._config.settings import Settings
from .._schedule.scheduler import slot_table
from .._state.eligibility import Selection, accepts, drops, is_healthy, select
from .._state.fate import fates
from .._state.runtime import EMPTY_RUNTIME, Runtime
from . import forward_policy
from .limits import BACKENDS, BUCKETS, DEALT, EXACT, LAST, SPARES, Dealing, backend_limit_name, over
from .listener_chains import chain_name, group, log_name, refresh_name, timeouts
from .objects import DesiredTable, Group, Set, SetKind
from .static_rules import KERNEL_OWNED, SHARED_SETS, STATIC_CHAINS, SYMMETRIC_PORTS, dispatch_key

_Elements = Dict[str, Dict[Any, Any]]
"""Elements of shared sets, by the sets' names."""


def desired_table(
    configuration: Configuration,
    settings: Settings,
    owned: Collection[str] = (),
    runtime: Runtime = EMPTY_RUNTIME,
    derived: Derived | None = None,
) -> DesiredTable:
    """Return the desired table.

    :param configuration: the effective configuration, see :func:`~.._state.effective.effective`.
    :param owned: the VIPs that are on an interface of this node because we put them there.
    :param derived: keeps the parts of listeners for the next call.
    """
    derived = derived or Derived()
    ids = backend_ids(configuration)
    elements: _Elements = {name: {} for name in SHARED_SETS}
    table = DesiredTable(Group(dict(STATIC_CHAINS), {}), forward_policy.group(configuration, settings), {}, {})
    for listener in configuration.listeners:
        selection = derived.get(select, listener)
        inputs = _inputs(listener, selection, ids, settings, listener.address in owned, runtime)
        part = derived.get(_listener_part, listener, inputs)
        table.listeners[listener.name] = part.group
        table.timeouts.update(part.timeouts)
        for name, added in part.elements.items():
            elements[name].update(added)
    _add_leaving(elements, configuration, settings, owned)
    for listener in configuration.leaving:
        _add_backends(elements, listener, _marks(listener, listener.backends, ids), runtime.uncounted, runtime.dealt)
    for listener in configuration.guarded:
        _add_endpoints(elements, listener)
        _add_closed(elements, listener, is_gone=True)
    _reopen(elements, configuration)
    elements["ended"].update(dict.fromkeys(runtime.ending))
    for name, declaration in SHARED_SETS.items():
        kind = SetKind.MAP if ":" in declaration else SetKind.SET
        table.shared.sets[name] = Set(kind, declaration, elements[name], is_ours=name not in KERNEL_OWNED)
    return table


class _Inputs(NamedTuple):
    """All that a listener's part of the table depends on beside the effective listener.

    :ivar selection: its eligible backends.
    :ivar marks: ids of its backends, in their order.
    :ivar is_owned: whether its VIP is on an interface of this node because we put it there.
    :ivar shares: slots by backend id that were dealt to it; ``None`` if none were.
    :ivar uncounted: flows that its limits do not count, by the limits' names.
    :ivar dealt: how the places of its limits are dealt, by the limits' names.
    """

    selection: Selection
    marks: tuple[int, ...]
    settings: Settings
    is_owned: bool
    shares: Mapping[int, int] | None
    uncounted: Mapping[str, int]
    dealt: Mapping[str, str]


@dataclass(frozen=True)
class _ListenerPart:
    """A listener's part of the table.

    :ivar elements: what it adds to shared sets.
    """

    group: Group
    timeouts: Mapping[str, str]
    elements: _Elements


def _inputs(
    listener: Listener, selection: Selection, ids: BackendIds, settings: Settings, is_owned: bool, runtime: Runtime
) -> _Inputs:
    marks = _marks(listener, listener.backends, ids)
    uncounted, dealt = {}, {}
    if runtime.uncounted or runtime.dealt:
        names = (listener.name, *map(backend_limit_name, marks))
        uncounted = {name: runtime.uncounted[name] for name in names if name in runtime.uncounted}
        dealt = {name: runtime.dealt[name] for name in names if name in runtime.dealt}
    return _Inputs(selection, tuple(marks), settings, is_owned, runtime.shares.get(listener.name), uncounted, dealt)


def _listener_part(listener: Listener, inputs: _Inputs) -> _ListenerPart:
    selection, marks, settings = inputs.selection, list(inputs.marks), inputs.settings
    ids = {(listener.name, *backend.endpoint): mark for backend, mark in zip(listener.backends, marks)}
    slots = slot_table(listener, selection.backends, ids, settings.hash_seed, inputs.shares)
    elements: _Elements = defaultdict(dict)
    _add_listener(elements, listener, _verdict(listener, selection), settings, inputs.is_owned)
    _add_backends(elements, listener, marks, inputs.uncounted, inputs.dealt)
    eligible = _marks(listener, selection.backends, ids)
    if listener.keeps_sessions:
        elements["sticky"].update(dict.fromkeys([*eligible, *_persisting(listener, selection, ids)]))
    if listener.is_limited:
        # A ring: the flow of a full backend goes on to the next one.
        elements["next"].update(zip(eligible, eligible[1:] + eligible[:1]))
    uncounted = inputs.uncounted.get(listener.name, 0)
    dealing = Dealing(inputs.dealt[listener.name]) if listener.name in inputs.dealt else None
    return _ListenerPart(group(listener, slots, settings, uncounted, dealing), timeouts(listener), elements)


def _marks(listener: Listener, backends: Iterable[Backend], ids: BackendIds) -> list[int]:
    return [ids[(listener.name, *backend.endpoint)] for backend in backends]


def _verdict(listener: Listener, selection: Selection) -> str:
    """Return where the dispatch map sends new flows of a listener."""
    if accepts(listener, selection):
        return f"goto {chain_name(listener.name)}"
    return "goto silent" if drops(listener, selection) else "goto refuse"


def _add_listener(elements: _Elements, listener: Listener, verdict: str, settings: Settings, is_owned: bool) -> None:
    family, vip = listener.family, listener.address
    elements[f"vips{family}"][vip] = None
    is_dedicated = settings.vip_dedicated if settings.vip_dedicated is not None else is_owned
    if is_dedicated:
        elements[f"dedicated{family}"][vip] = None
    elif settings.vip_dedicated is None:
        elements[f"routed{family}"][vip] = None
    for ports in listener.ports:
        name, key = dispatch_key(listener, ports)
        elements[name][key] = verdict


def _add_leaving(elements: _Elements, configuration: Configuration, settings: Settings, owned: Collection[str]) -> None:
    """Let removed listeners keep their VIP, and reject new flows to those of their ports that no listener serves."""
    taken = [
        (listener.address, listener.protocol, ports) for listener in configuration.listeners for ports in listener.ports
    ]
    for listener in configuration.leaving:
        free = [
            ports
            for ports in listener.ports
            if not any(
                (listener.address, listener.protocol) == (address, protocol)
                and ports.first <= others.last
                and others.first <= ports.last
                for address, protocol, others in taken
            )
        ]
        taken += [(listener.address, listener.protocol, ports) for ports in free]
        is_owned = listener.address in owned
        _add_listener(elements, replace(listener, ports=tuple(free)), "goto refuse", settings, is_owned)


def _add_backends(
    elements: _Elements,
    listener: Listener,
    marks: list[int],
    uncounted: Mapping[str, int],
    dealt: Mapping[str, str],
) -> None:
    pairs = list(zip(marks, listener.backends))
    elements[f"to{listener.family}port"].update((mark, backend.endpoint) for mark, backend in pairs if backend.port)
    elements[f"to{listener.family}"].update((mark, backend.address) for mark, backend in pairs if not backend.port)
    for name in _sets_of_backends(listener):
        elements[name].update(dict.fromkeys(marks))
    for mark, backend in pairs:
        if backend.max_connections:
            missing = uncounted.get(backend_limit_name(mark), 0)
            elements[BACKENDS][mark] = over(backend.max_connections, missing)
            elements["limit_reached"][mark] = over(backend.max_connections - 1, missing)
        dealing = dealt.get(backend_limit_name(mark)) if backend.max_connections > EXACT else None
        if dealing:
            elements[DEALT][mark] = f"goto places_{dealing}"
            elements[BUCKETS][mark] = None
            if Dealing(dealing).uses_spare:
                elements[SPARES][mark] = None
            if Dealing(dealing).uses_last:
                elements[LAST][mark] = None
    staying = [mark for mark, backend in pairs if not backend.is_leaving]
    if listener.keeps_sessions:
        elements["refreshed"].update(dict.fromkeys(staying, f"jump {refresh_name(listener.name)}"))
    if listener.log_config.is_on:
        elements["logged"].update(dict.fromkeys(staying, f"jump {log_name(listener.name)}"))
    if not listener.is_wide:
        _add_endpoints(elements, listener)
        _add_closed(elements, listener)


def _sets_of_backends(listener: Listener) -> list[str]:
    """Return the sets that hold the ids of all backends of a listener."""
    names = ["acct_new", "acct_in", "acct_out"]
    if listener.snat != "none":
        names.append(f"snat_{listener.snat}")
    if listener.is_wide or _is_symmetric(listener):
        names.append("learned")
    return names


def _is_symmetric(listener: Listener) -> bool:
    """Return whether backends may use the port on which they answer as clients too."""
    endpoints = _endpoints(listener, listener.backends)
    return listener.protocol == "udp" and any(port in SYMMETRIC_PORTS for _address, _protocol, port in endpoints)


def _persisting(listener: Listener, selection: Selection, ids: BackendIds) -> list[int]:
    """Return the ids of unhealthy backends that keep their streams, and so the sessions that are one stream each."""
    if listener.protocol not in ("tcp", "sctp"):
        return []
    kept = [
        backend
        for backend, fate in zip(listener.backends, fates(listener, selection))
        if backend.admin_state == "enabled" and backend.has_share and not is_healthy(backend) and not fate
    ]
    return _marks(listener, kept, ids)


def _add_endpoints(elements: _Elements, listener: Listener) -> None:
    """Guard the endpoints that answer for the listener."""
    elements[f"endpoints{listener.family}"].update(dict.fromkeys(_endpoints(listener, listener.backends)))


def _add_closed(elements: _Elements, listener: Listener, is_gone: bool = False) -> None:
    """Add endpoints that have no flow any more, so that a server that still sends on one gets a reset."""
    closed = [backend for backend in listener.backends if is_gone or _is_closed(backend)]
    elements[f"closed{listener.family}"].update(dict.fromkeys(_endpoints(listener, closed)))


def _reopen(elements: _Elements, configuration: Configuration) -> None:
    """Take endpoints that answer for another backend too out of those that have no flow any more."""
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
    """Return the endpoints that answer for backends: their own ports, or those that the listener passes on."""
    passed_on = [ports.first for ports in listener.ports if ports.is_single]
    return [
        (backend.address, listener.protocol, port)
        for backend in backends
        for port in ((backend.port,) if backend.port else passed_on)
    ]
