# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the runtime state changes: with the configuration, with health and with time. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Callable, Mapping

from .._config.derived import Derived
from .._config.identity import backend_ids
from .._config.model import Configuration, Listener
from .._config.str_enum import StrEnum
from .effective import effective, leaving_and_guarded
from .eligibility import Pool, is_candidate, is_healthy, pool_of, select
from .fate import BackendFate, Fate, FlowKind, fates
from .health import Health, HealthState
from .runtime import RAMP_STEPS, Drain, DrainCause, Runtime

ENDED_SECONDS = 2.0
"""Seconds for which packets of flows that end are answered with a reset, before the flows' entries are deleted."""

GUARD_SECONDS = 300.0
"""Seconds for which a removed backend whose flows have ended is kept from sending to their clients."""


class SlowStart(StrEnum):
    """How backends that join reach their share.

    The agent lets it RISE with time. A module HOLDs it where the agent left it. Without an agent, which would raise it,
    backends have it AT_ONCE.
    """

    RISE = "rise"
    HOLD = "hold"
    AT_ONCE = "at once"


@dataclass(frozen=True)
class Event:
    """What a node's runtime state reacts to.

    :ivar config_before: the configuration before.
    :ivar config_after: the configuration after; the same object if it did not change.
    :ivar now: seconds since the epoch.
    :ivar health: health by backend key, where it is newer than that in the runtime state.
    :ivar drain_timeouts: seconds from a drain's beginning to its deadline by backend key, ``None`` for no deadline.
        Other drains keep their deadline, or begin with the draining time-out of their listener.
    """

    config_before: Configuration
    config_after: Configuration
    now: float
    health: Mapping[str, Health] = field(default_factory=dict)
    slow_start: SlowStart = SlowStart.RISE
    drain_timeouts: Mapping[str, float | None] = field(default_factory=dict)


def transition(
    before: Runtime, event: Event, active: Callable[[], Mapping[int, int]], derived: Derived | None = None
) -> Runtime:
    """Return the runtime state after an event.

    :param active: counts the active flows of each backend id. It is called only if a removed backend drains.
    :param derived: keeps the listeners for the next call.
    """
    derived = derived or Derived()
    configuration, now = event.config_after, event.now
    has_ramps = event.slow_start != SlowStart.AT_ONCE and any(
        listener.slow_start_sec for listener in configuration.listeners
    )
    serving = _serving(effective(event.config_before, before, derived)) if has_ramps else frozenset()
    drains = _drains(event, before)
    if event.config_before is not configuration:
        drains.update(_removals(event, before))
    runtime = _without_empty(configuration, replace(before, drains=drains), now, active, derived)
    runtime = replace(runtime, health=_health(event, runtime))
    runtime = _with_pools(effective(configuration, runtime, derived), runtime, now)
    runtime = replace(runtime, expired=frozenset(key for key, drain in runtime.drains.items() if drain.is_expired(now)))
    if has_ramps:
        runtime = _with_ramps(effective(configuration, runtime, derived), serving, runtime, event)
    else:
        runtime = replace(runtime, joined={}, ramps={})
    return _with_fates(effective(configuration, runtime, derived), runtime, now, derived)


def flows_to_delete(before: Runtime, after: Runtime) -> dict[int, frozenset[FlowKind]]:
    """Return which conntrack entries are to be deleted once the kernel holds the desired table.

    :returns: the kinds of flows by backend id.
    """
    kinds_by_id: dict[int, frozenset[FlowKind]] = {}
    for backend_id, fate in after.completed_fates.items():
        completed = before.completed_fates.get(backend_id, BackendFate())
        kinds = frozenset(kind for kind in FlowKind if fate.of(kind) not in (Fate.KEEP, completed.of(kind)))
        if kinds:
            kinds_by_id[backend_id] = kinds
    return kinds_by_id


def next_event(runtime: Runtime) -> float | None:
    """Return when time alone changes something next, in seconds since the epoch; ``None`` if it does not."""
    deadlines = [
        drain.deadline
        for key, drain in runtime.drains.items()
        if drain.deadline is not None and key not in runtime.expired
    ]
    return min([*deadlines, *runtime.ending.values()], default=None)


def _serving(configuration: Configuration) -> frozenset[str]:
    """Return the keys of the backends that could get flows, from the effective configuration."""
    return frozenset(
        key
        for listener in configuration.listeners
        for key, backend in zip(listener.backend_keys, listener.backends)
        if is_candidate(backend) and is_healthy(backend)
    )


def _drains(event: Event, runtime: Runtime) -> dict[str, Drain]:
    """Begin the drains that are configured, and cancel those whose backend is in use again."""
    drains = {
        key: drain
        for key, drain in runtime.drains.items()
        if drain.cause == DrainCause.REMOVED or (drain.cause == DrainCause.GONE and not drain.is_expired(event.now))
    }
    for listener in event.config_after.listeners:
        for backend in listener.backends:
            if backend.admin_state != "drained" and not runtime.drains:
                continue
            key = listener.key_of(backend)
            begun = runtime.drains.get(key)
            drains.pop(key, None)
            if backend.admin_state == "drained":
                drains[key] = _drained(event, listener, key, begun)
            elif begun and begun.cause == DrainCause.POOL_LEFT and backend.admin_state == "enabled":
                drains[key] = begun
    return drains


def _drained(event: Event, listener: Listener, key: str, begun: Drain | None) -> Drain:
    """Return the drain of a backend that is configured as drained; one that has begun keeps its beginning."""
    if begun and begun.cause in (DrainCause.DRAINED, DrainCause.REMOVED):
        drain = replace(begun, cause=DrainCause.DRAINED, removed=None)
    else:
        drain = Drain(event.now, _deadline(listener, event.now), DrainCause.DRAINED)
    if key not in event.drain_timeouts:
        return drain
    timeout = event.drain_timeouts[key]
    return replace(drain, deadline=None if timeout is None else drain.since + timeout)


def _removals(event: Event, runtime: Runtime) -> dict[str, Drain]:
    """Begin to drain the backends that the configuration no longer has; one that drains already keeps its deadline."""
    kept = {listener.name: listener for listener in event.config_after.listeners}
    document, now = event.config_before.document, event.now
    drains: dict[str, Drain] = {}
    ids = backend_ids(event.config_before) if runtime.ending or runtime.completed_fates else {}
    for listener in event.config_before.listeners:
        after = kept.get(listener.name)
        if after is listener:
            continue
        endpoints = {backend.endpoint for backend in after.backends} if after else set()
        options_of_backends = document[listener.name]["backends"]
        for backend, options in zip(listener.backends, options_of_backends):
            if backend.endpoint in endpoints:
                continue
            key = listener.key_of(backend)
            backend_id = ids.get((listener.name, *backend.endpoint))
            begun = runtime.drains.get(key)
            removed = {**document[listener.name], "backends": [options]}
            if backend.admin_state == "disabled" and backend_id not in runtime.ending:
                if backend_id in runtime.completed_fates:
                    drains[key] = Drain(now, now + GUARD_SECONDS, DrainCause.GONE, removed)
            elif begun and begun.cause == DrainCause.DRAINED:
                drains[key] = replace(begun, cause=DrainCause.REMOVED, removed=removed)
            else:
                deadline = now if backend.admin_state == "disabled" else _deadline(listener, now)
                drains[key] = Drain(now, deadline, DrainCause.REMOVED, removed)
    return drains


def _deadline(listener: Listener, now: float) -> float | None:
    return None if listener.drain_mode == "natural" else now + listener.connection_draining_timeout_sec


def _without_empty(
    configuration: Configuration,
    runtime: Runtime,
    now: float,
    active: Callable[[], Mapping[int, int]],
    derived: Derived,
) -> Runtime:
    """Forget the drains of removed backends that have no flow left; those whose flows were taken from them are guarded.

    Their servers may not know yet that the flows have ended or moved.
    """
    if not any(drain.cause == DrainCause.REMOVED for drain in runtime.drains.values()):
        return runtime
    flows = active()
    present = effective(configuration, runtime, derived)
    ids = backend_ids(present)
    drains = dict(runtime.drains)
    for listener in present.leaving:
        for backend, key in zip(listener.backends, listener.backend_keys):
            backend_id = ids[(listener.name, *backend.endpoint)]
            if flows.get(backend_id):
                continue
            if backend_id in runtime.completed_fates:
                drains[key] = replace(drains[key], cause=DrainCause.GONE, deadline=now + GUARD_SECONDS)
            else:
                del drains[key]
    return replace(runtime, drains=drains)


def _health(event: Event, runtime: Runtime) -> dict[str, Health]:
    """Return the health of the backends that have a check. One that served unchecked is healthy until it fails."""
    listeners = (*event.config_after.listeners, *leaving_and_guarded(runtime)[0])
    checked = [listener for listener in listeners if listener.health_check]
    if not checked:
        return {}
    unchecked = {
        key
        for listener in event.config_before.listeners
        if listener.health_check is None
        for key in listener.backend_keys
    }
    latest = {**runtime.health, **event.health}
    return {
        key: latest.get(key) or Health(HealthState.HEALTHY if key in unchecked else HealthState.INITIAL, event.now)
        for listener in checked
        for key in listener.backend_keys
    }


def _with_pools(present: Configuration, runtime: Runtime, now: float) -> Runtime:
    """Begin to drain the pool that no longer gets new flows, and cancel the drain of one that gets them again."""
    drains, failed_over = dict(runtime.drains), set()
    has_left = any(drain.cause == DrainCause.POOL_LEFT for drain in drains.values())
    for listener in present.listeners:
        if any(backend.failover for backend in listener.backends):
            pool = select(listener).pool
        elif has_left or listener.name in runtime.failed_over:
            pool = Pool.PRIMARY
        else:
            continue
        if pool == Pool.FAILOVER:
            failed_over.add(listener.name)
        has_changed = (pool == Pool.FAILOVER) != (listener.name in runtime.failed_over)
        for backend, key in zip(listener.backends, listener.backend_keys):
            is_left = key in drains and drains[key].cause == DrainCause.POOL_LEFT
            if pool_of(backend) == pool:
                if is_left:
                    del drains[key]
            elif has_changed and key not in drains and is_candidate(backend):
                drains[key] = Drain(now, _deadline(listener, now), DrainCause.POOL_LEFT)
    return replace(runtime, drains=drains, failed_over=frozenset(failed_over))


def _with_ramps(present: Configuration, serving: frozenset[str], runtime: Runtime, event: Event) -> Runtime:
    """Start the slow start of backends that join, and raise the share of those that have begun, unless it is held.

    :param serving: keys of the backends that served before the event.
    """
    joined: dict[str, float] = {}
    ramps: dict[str, int] = {}
    for listener in present.listeners:
        if not listener.slow_start_sec:
            continue
        for backend, key in zip(listener.backends, listener.backend_keys):
            if not (is_candidate(backend) and is_healthy(backend)):
                continue
            since = runtime.joined.get(key, None if key in serving else event.now)
            if event.slow_start == SlowStart.HOLD and key in runtime.ramps:
                joined[key], ramps[key] = runtime.joined[key], runtime.ramps[key]
            elif since is not None and event.now < since + listener.slow_start_sec:
                joined[key] = since
                ramps[key] = max(1, int((event.now - since) / listener.slow_start_sec * RAMP_STEPS))
    return replace(runtime, joined=joined, ramps=ramps)


def _with_fates(present: Configuration, runtime: Runtime, now: float, derived: Derived) -> Runtime:
    """Begin to end the flows that must end, and complete the fates of those that move or were reset long enough."""
    due_fates = {}
    for listener in present.listeners_and_leaving:
        backend_fates = derived.get(fates, listener, derived.get(select, listener))
        for backend, fate in zip(listener.backends, backend_fates):
            if fate:
                due_fates[(listener.name, *backend.endpoint)] = listener.key_of(backend), backend, fate
    ids = backend_ids(present) if due_fates else {}
    ending: dict[int, float] = {}
    completed: dict[int, BackendFate] = {}
    gone: set[str] = set()
    for identity, (key, backend, fate) in due_fates.items():
        backend_id = ids[identity]
        # The clock may have been set back since.
        due = min(runtime.ending.get(backend_id, now + ENDED_SECONDS), now + ENDED_SECONDS)
        if fate.has(Fate.END) and runtime.completed_fates.get(backend_id) != fate and due > now:
            ending[backend_id] = due
            if fate.has(Fate.MOVE):
                completed[backend_id] = _moves_only(fate)
            continue
        completed[backend_id] = fate
        if backend.is_leaving and backend.is_drain_expired:
            gone.add(key)
    drains = {
        key: replace(drain, cause=DrainCause.GONE, deadline=now + GUARD_SECONDS) if key in gone else drain
        for key, drain in runtime.drains.items()
    }
    return replace(runtime, ending=ending, completed_fates=completed, drains=drains)


def _moves_only(fate: BackendFate) -> BackendFate:
    return BackendFate(*(Fate.MOVE if fate.of(kind) == Fate.MOVE else Fate.KEEP for kind in FlowKind))
