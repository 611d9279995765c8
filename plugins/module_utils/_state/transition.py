# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How what a node has learned and begun changes: with its configuration, with health, with time. Pure."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Callable, Mapping

from .._config.identity import backend_ids
from .._config.model import Configuration, Listener, backend_key
from .effective import effective, leaving_and_guarded
from .eligibility import FAILOVER, PRIMARY, is_candidate, is_healthy, select
from .fate import END, KEEP, MOVE, Fate, fates, pool_of
from .health import HEALTHY, INITIAL, Health
from .runtime import DRAINED, GONE, POOL_LEFT, RAMP_STEPS, REMOVED, Drain, Runtime

ENDED_SECONDS = 2.0
"""How long both sides of flows that end are told so, before their entries go."""

GUARD_SECONDS = 300.0
"""How long a removed registration whose flows have ended is kept from speaking to their clients."""

RISE, HOLD, AT_ONCE = "rise", "hold", "at once"


def transition(
    old: Configuration,
    configuration: Configuration,
    runtime: Runtime,
    now: float,
    active: Callable[[], Mapping[int, int]],
    learned: Mapping[str, Health] = MappingProxyType({}),
    slow_start: str = RISE,
    timeouts: Mapping[str, float | None] = MappingProxyType({}),
) -> Runtime:
    """Return what a node knows after its configuration changed, health changed or time passed.

    :param old: the configuration before.
    :param configuration: the configuration now, the same object if it did not change.
    :param now: seconds since the epoch.
    :param active: counts the flows of each id. Called where something that drains may be done.
    :param learned: the health of registrations as it is now, where it is known better.
    :param slow_start: whether what joins rises now (:data:`RISE`), is left to who makes it rise (:data:`HOLD`), or has
        its share at once, because nobody does (:data:`AT_ONCE`).
    :param timeouts: seconds from their beginning to their deadline for drains of some registrations, ``None`` for as
        long as it takes; others keep what they have, and begin with their listeners' draining time-out.
    """
    has_ramps = slow_start != AT_ONCE and any(listener.slow_start_sec for listener in configuration.listeners)
    serving = _serving(effective(old, runtime)) if has_ramps else frozenset()
    drains = _drains(configuration, runtime, now, timeouts)
    if old is not configuration:
        drains.update(_removals(old, configuration, runtime, now))
    runtime = _without_the_empty(configuration, replace(runtime, drains=drains), active)
    checked = [one for one in (*configuration.listeners, *leaving_and_guarded(runtime)[0]) if one.health_check]
    health = _health(checked, old, {**runtime.health, **learned}, now)
    runtime = replace(runtime, health=health)
    runtime = _with_pools(effective(configuration, runtime), runtime, now)
    runtime = replace(
        runtime, expired=frozenset(name for name, drain in runtime.drains.items() if drain.is_expired(now))
    )
    if has_ramps:
        runtime = _with_ramps(effective(configuration, runtime), serving, runtime, now, slow_start == HOLD)
    else:
        runtime = replace(runtime, joined={}, ramps={})
    return _with_fates(effective(configuration, runtime), runtime, now)


def flows_to_delete(before: Runtime, after: Runtime) -> dict[int, str]:
    """Tell which flows are to be flows_to_delete once the kernel is as it should be.

    :returns: ``all``, ``stream`` or ``datagram`` by backend id.
    """
    found: dict[int, str] = {}
    for mark, wanted in after.completed_fates.items():
        done = before.completed_fates.get(mark, Fate())
        kinds = {kind for kind in ("stream", "datagram") if getattr(wanted, kind) not in (KEEP, getattr(done, kind))}
        if kinds:
            found[mark] = "all" if len(kinds) == 2 else kinds.pop()
    return found


def next_event(runtime: Runtime) -> float | None:
    """Return when time alone changes something next, in seconds since the epoch; ``None`` if it does not."""
    deadlines = [
        drain.deadline
        for name, drain in runtime.drains.items()
        if drain.deadline is not None and name not in runtime.expired
    ]
    return min([*deadlines, *runtime.ending.values()], default=None)


def _serving(present: Configuration) -> frozenset[str]:
    return frozenset(
        backend_key(listener, backend)
        for listener in present.listeners
        for backend in listener.backends
        if is_candidate(backend) and is_healthy(backend)
    )


def _drains(
    configuration: Configuration, runtime: Runtime, now: float, timeouts: Mapping[str, float | None]
) -> dict[str, Drain]:
    """Begin the drains that are asked for, and take back those whose registration is in use again."""
    drains = {
        name: drain
        for name, drain in runtime.drains.items()
        if drain.cause == REMOVED or (drain.cause == GONE and not drain.is_expired(now))
    }
    for listener in configuration.listeners:
        for backend in listener.backends:
            if backend.admin_state != "drained" and not runtime.drains:
                continue
            name = backend_key(listener, backend)
            begun = runtime.drains.get(name)
            drains.pop(name, None)
            if backend.admin_state == "drained":
                if begun and begun.cause in (DRAINED, REMOVED):
                    drains[name] = replace(begun, cause=DRAINED, removed=None)
                else:
                    drains[name] = Drain(now, _deadline(listener, now), DRAINED)
                if name in timeouts:
                    wanted = timeouts[name]
                    deadline = None if wanted is None else drains[name].since + wanted
                    drains[name] = replace(drains[name], deadline=deadline)
            elif begun and begun.cause == POOL_LEFT and backend.admin_state == "enabled":
                drains[name] = begun
    return drains


def _removals(old: Configuration, configuration: Configuration, runtime: Runtime, now: float) -> dict[str, Drain]:
    """Begin to drain registrations that the configuration has no longer; one that drains already keeps its time."""
    kept = {listener.name: listener for listener in configuration.listeners}
    drains: dict[str, Drain] = {}
    ids = backend_ids(old) if runtime.ending else {}
    for listener in old.listeners:
        after = kept.get(listener.name)
        there = {backend.endpoint for backend in after.backends} if after else set()
        for backend, options in zip(listener.backends, old.document[listener.name]["backends"]):
            if backend.endpoint in there:
                continue
            name = backend_key(listener, backend)
            is_ending = ids.get((listener.name, *backend.endpoint)) in runtime.ending
            if backend.admin_state == "disabled" and not is_ending:
                continue
            begun = runtime.drains.get(name)
            removed = {**old.document[listener.name], "backends": [options]}
            if begun and begun.cause == DRAINED:
                drains[name] = replace(begun, cause=REMOVED, removed=removed)
            else:
                deadline = now if backend.admin_state == "disabled" else _deadline(listener, now)
                drains[name] = Drain(now, deadline, REMOVED, removed)
    return drains


def _deadline(listener: Listener, now: float) -> float | None:
    return None if listener.drain_mode == "natural" else now + listener.connection_draining_timeout_sec


def _without_the_empty(
    configuration: Configuration, runtime: Runtime, active: Callable[[], Mapping[int, int]]
) -> Runtime:
    """Forget removed registrations that have no flow left."""
    removed = {name for name, drain in runtime.drains.items() if drain.cause == REMOVED}
    if not removed:
        return runtime
    flows = active()
    present = effective(configuration, runtime)
    ids = backend_ids(present)
    empty = {
        backend_key(listener, backend)
        for listener in present.leaving
        for backend in listener.backends
        if not flows.get(ids[(listener.name, *backend.endpoint)])
    }
    return replace(runtime, drains={name: drain for name, drain in runtime.drains.items() if name not in empty})


def _health(checked: list[Listener], old: Configuration, known: Mapping[str, Health], now: float) -> dict[str, Health]:
    """Keep what is known of those that are checked. What has served unchecked is trusted until it fails."""
    if not checked:
        return {}
    unchecked = {name for listener in old.listeners if listener.health_check is None for name in listener.backend_keys}
    health: dict[str, Health] = {}
    for listener in checked:
        for name in listener.backend_keys:
            health[name] = known.get(name) or Health(HEALTHY if name in unchecked else INITIAL, now)
    return health


def _with_pools(present: Configuration, runtime: Runtime, now: float) -> Runtime:
    """Begin to drain a pool that has lost its turn, and stop where one has it again."""
    drains, standby = dict(runtime.drains), set()
    has_left = any(drain.cause == POOL_LEFT for drain in drains.values())
    for listener in present.listeners:
        if not any(backend.failover for backend in listener.backends):
            if not has_left and listener.name not in runtime.failed_over:
                continue
            turn = PRIMARY
        else:
            turn = select(listener).pool
        if turn == FAILOVER:
            standby.add(listener.name)
        has_changed = (turn == FAILOVER) != (listener.name in runtime.failed_over)
        for backend in listener.backends:
            name = backend_key(listener, backend)
            is_left = name in drains and drains[name].cause == POOL_LEFT
            if pool_of(backend) == turn:
                if is_left:
                    del drains[name]
            elif has_changed and name not in drains and is_candidate(backend):
                drains[name] = Drain(now, _deadline(listener, now), POOL_LEFT)
    return replace(runtime, drains=drains, failed_over=frozenset(standby))


def _with_ramps(
    present: Configuration, serving: frozenset[str], runtime: Runtime, now: float, is_held: bool
) -> Runtime:
    """Let those that join begin low, and those that have begun rise, unless they are held."""
    joined: dict[str, float] = {}
    ramps: dict[str, int] = {}
    for listener in present.listeners:
        for backend in listener.backends if listener.slow_start_sec else ():
            name = backend_key(listener, backend)
            if not (is_candidate(backend) and is_healthy(backend)):
                continue
            since = runtime.joined.get(name, None if name in serving else now)
            if is_held and name in runtime.ramps:
                joined[name], ramps[name] = runtime.joined[name], runtime.ramps[name]
            elif since is not None and now < since + listener.slow_start_sec:
                joined[name] = since
                ramps[name] = max(1, int((now - since) / listener.slow_start_sec * RAMP_STEPS))
    return replace(runtime, joined=joined, ramps=ramps)


def _with_fates(present: Configuration, runtime: Runtime, now: float) -> Runtime:
    """Begin to end what is to end, and settle what is to move and what has been told for long enough."""
    wanted = {
        (listener.name, *backend.endpoint): (backend_key(listener, backend), backend, one)
        for listener in present.listeners_and_leaving
        for backend, one in zip(listener.backends, fates(listener))
        if one
    }
    ids = backend_ids(present) if wanted else {}
    ending: dict[int, float] = {}
    settled: dict[int, Fate] = {}
    over: set[str] = set()
    for key, (name, backend, one) in wanted.items():
        mark = ids[key]
        due = runtime.ending.get(mark, now + ENDED_SECONDS)
        if one.having(END) and runtime.completed_fates.get(mark) != one and due > now:
            ending[mark] = due
            if one.having(MOVE):
                settled[mark] = _moved_only(one)
            continue
        settled[mark] = one
        if backend.is_leaving and backend.is_drain_expired:
            over.add(name)
    drains = {
        name: replace(drain, cause=GONE, deadline=now + GUARD_SECONDS) if name in over else drain
        for name, drain in runtime.drains.items()
    }
    return replace(runtime, ending=ending, completed_fates=settled, drains=drains)


def _moved_only(wanted: Fate) -> Fate:
    return Fate(*(MOVE if one == MOVE else KEEP for one in (wanted.stream, wanted.datagram)))
