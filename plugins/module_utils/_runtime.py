# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node has learned and begun: health, drains, shares. Time and events change it here, purely."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Callable, Dict, Mapping, NamedTuple

from ._eligibility import FAILOVER, PRIMARY, is_candidate, is_healthy, select
from ._fate import END, KEEP, MOVE, Fate, fates, pool_of
from ._health import HEALTHY, INITIAL, Health
from ._identity import backend_ids
from ._model import Backend, Configuration, Listener, registration

ENDED_SECONDS = 2.0
"""How long both sides of flows that end are told so, before their entries go."""

RAMP_STEPS = 20
"""In how many steps a backend that joins rises to its share."""

Shares = Mapping[str, Mapping[int, int]]
"""Slots by backend id, by the name of a listener."""

GUARD_SECONDS = 300.0
"""How long a removed registration whose flows have ended is kept from speaking to their clients."""

RISE, HOLD, AT_ONCE = "rise", "hold", "at once"

DRAINED, REMOVED, GONE, POOL_LEFT = "drained", "removed", "gone", "pool left"


@dataclass(frozen=True)
class Drain:
    """Flows that are left to end by themselves for a while. Times in seconds since the epoch.

    :ivar deadline: ``None`` waits for as long as it takes.
    :ivar cause: :data:`DRAINED`, :data:`REMOVED`, :data:`GONE` (removed, and its flows have ended) or
        :data:`POOL_LEFT`.
    :ivar removed: the listener as it was, with this registration as its only backend, where the configuration no longer
        has the registration.
    """

    since: float
    deadline: float | None
    cause: str
    removed: Dict[str, Any] | None = None

    def is_past(self, now: float) -> bool:
        """Tell whether its time is over."""
        return self.deadline is not None and self.deadline <= now


@dataclass(frozen=True)
class Runtime:
    """What a node has learned and begun. Registrations are named by :func:`~._model.registration`.

    :ivar shares: what was last dealt to the listeners with lc and wlc.
    :ivar uncounted: flows that a limit's element does not count, by the limit's name.
    :ivar health: by registration; only those that are checked.
    :ivar drains: by registration.
    :ivar past: registrations whose drain is over.
    :ivar standby: listeners whose failover pool has the flows.
    :ivar joined: when a registration that rises to its share began, by registration.
    :ivar ramps: the steps that it has risen, by registration.
    :ivar ending: when the entries of flows that end are to go, by backend id.
    :ivar settled: fates that have been carried out, by backend id.
    """

    shares: Shares = field(default_factory=dict)
    uncounted: Mapping[str, int] = field(default_factory=dict)
    health: Mapping[str, Health] = field(default_factory=dict)
    drains: Mapping[str, Drain] = field(default_factory=dict)
    past: frozenset[str] = frozenset()
    standby: frozenset[str] = frozenset()
    joined: Mapping[str, float] = field(default_factory=dict)
    ramps: Mapping[str, int] = field(default_factory=dict)
    ending: Mapping[int, float] = field(default_factory=dict)
    settled: Mapping[int, Fate] = field(default_factory=dict)

    @classmethod
    def from_json(cls, found: Any) -> Runtime:
        """Read what :meth:`as_json` gave; anything else is nothing learned."""
        try:
            found = {**_NOTHING, **found}
            return cls(
                {name: {int(mark): int(slots[mark]) for mark in slots} for name, slots in found["shares"].items()},
                {name: int(flows) for name, flows in found["uncounted"].items()},
                {name: Health.from_json(one) for name, one in found["health"].items()},
                {name: Drain(*one) for name, one in found["drains"].items()},
                frozenset(found["past"]),
                frozenset(found["standby"]),
                {name: float(since) for name, since in found["joined"].items()},
                {name: int(step) for name, step in found["ramps"].items()},
                {int(mark): float(when) for mark, when in found["ending"].items()},
                {int(mark): Fate(*one) for mark, one in found["settled"].items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "shares": {name: {str(mark): slots[mark] for mark in slots} for name, slots in self.shares.items()},
            "uncounted": dict(self.uncounted),
            "health": {name: one.as_json() for name, one in self.health.items()},
            "drains": {name: [one.since, one.deadline, one.cause, one.removed] for name, one in self.drains.items()},
            "past": sorted(self.past),
            "standby": sorted(self.standby),
            "joined": dict(self.joined),
            "ramps": dict(self.ramps),
            "ending": {str(mark): when for mark, when in self.ending.items()},
            "settled": {str(mark): [one.stream, one.datagram] for mark, one in self.settled.items()},
        }

    @property
    def visible(self) -> dict[str, Any]:
        """What of it shows in the kernel, as JSON can hold it."""
        found = self.as_json()
        return {
            **{name: found[name] for name in ("shares", "uncounted", "past", "ramps")},
            "health": {name: [one.state, one.weight] for name, one in self.health.items()},
            "removed": {name: [one.cause, one.removed] for name, one in self.drains.items() if one.removed},
            "ending": sorted(self.ending),
        }

    @property
    def lasting(self) -> Runtime:
        """What of it holds after a reboot too."""
        return replace(self, shares={}, uncounted={}, ending={})


_NOTHING = Runtime().as_json()

NOTHING_LEARNED = Runtime()
"""What a node knows at first."""


def in_force(configuration: Configuration, runtime: Runtime) -> Configuration:
    """Return the configuration as the node's state modifies it.

    Backends have their health, the weight they ask for and the part of their share that they have risen to. Removed
    registrations are there as leaving ones while their flows may live, and as guarded ones after that.
    """
    leaving, guarded = _removed(runtime)
    listeners = tuple(_listener_in_force(listener, runtime) for listener in configuration.listeners)
    return Configuration(listeners, leaving, guarded, configuration.document)


def advance(
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
    serving = _serving(in_force(old, runtime)) if has_ramps else frozenset()
    drains = _drains(configuration, runtime, now, timeouts)
    if old is not configuration:
        drains.update(_removals(old, configuration, runtime, now))
    runtime = _without_the_empty(configuration, replace(runtime, drains=drains), active)
    checked = [one for one in (*configuration.listeners, *_removed(runtime)[0]) if one.health_check]
    health = _health(checked, old, {**runtime.health, **learned}, now)
    runtime = replace(runtime, health=health)
    runtime = _with_pools(in_force(configuration, runtime), runtime, now)
    runtime = replace(runtime, past=frozenset(name for name, drain in runtime.drains.items() if drain.is_past(now)))
    if has_ramps:
        runtime = _with_ramps(in_force(configuration, runtime), serving, runtime, now, slow_start == HOLD)
    else:
        runtime = replace(runtime, joined={}, ramps={})
    return _with_fates(in_force(configuration, runtime), runtime, now)


def forgotten(before: Runtime, after: Runtime) -> dict[int, str]:
    """Tell which flows are to be forgotten once the kernel is as it should be.

    :returns: ``all``, ``stream`` or ``datagram`` by backend id.
    """
    found: dict[int, str] = {}
    for mark, wanted in after.settled.items():
        done = before.settled.get(mark, Fate())
        kinds = {kind for kind in ("stream", "datagram") if getattr(wanted, kind) not in (KEEP, getattr(done, kind))}
        if kinds:
            found[mark] = "all" if len(kinds) == 2 else kinds.pop()
    return found


def next_event(runtime: Runtime) -> float | None:
    """Return when time alone changes something next, in seconds since the epoch; ``None`` if it does not."""
    deadlines = [
        drain.deadline
        for name, drain in runtime.drains.items()
        if drain.deadline is not None and name not in runtime.past
    ]
    return min([*deadlines, *runtime.ending.values()], default=None)


def _removed(runtime: Runtime) -> tuple[tuple[Listener, ...], tuple[Listener, ...]]:
    """Return what is left of removed registrations whose flows may live, and of those whose flows have ended."""
    leaving: list[Listener] = []
    guarded: list[Listener] = []
    for drain in runtime.drains.values():
        if drain.removed:
            one = Configuration.from_document({drain.removed["name"]: drain.removed}).listeners[0]
            (guarded if drain.cause == GONE else leaving).append(_leaving(one, runtime))
    return tuple(sorted(leaving, key=lambda listener: (listener.name, listener.backends[0].key))), tuple(guarded)


def _leaving(removed: Listener, runtime: Runtime) -> Listener:
    backend = _backend_in_force(removed, removed.backends[0], _bearing(removed.registrations[0], runtime))
    return replace(removed, admin_state="disabled", max_connections=0, backends=(backend._replace(is_leaving=True),))


def _listener_in_force(listener: Listener, runtime: Runtime) -> Listener:
    if not (listener.health_check or runtime.past or runtime.ramps):
        # Nothing that is known bears on it.
        return listener
    bearing = [_bearing(name, runtime) for name in listener.registrations]
    # Kept with the listener: many ask, also before and after a change, and most of what is known stays as it is.
    kept = vars(listener).get(_IN_FORCE)
    if not kept or kept[0] != bearing:
        backends = (_backend_in_force(listener, *pair) for pair in zip(listener.backends, bearing))
        kept = vars(listener)[_IN_FORCE] = bearing, replace(listener, backends=tuple(backends))
    found: Listener = kept[1]
    return found


_IN_FORCE = "_in_force"


class _Bearing(NamedTuple):
    """What is known that bears on a registration."""

    health: str | None
    weight: int | None
    ramp: int | None
    is_past_drain: bool


def _bearing(name: str, runtime: Runtime) -> _Bearing:
    health = runtime.health.get(name)
    return _Bearing(
        health.state if health else None,
        health.weight if health else None,
        runtime.ramps.get(name),
        name in runtime.past,
    )


def _backend_in_force(listener: Listener, backend: Backend, known: _Bearing) -> Backend:
    check = listener.health_check
    return backend._replace(
        health="" if check is None else known.health or INITIAL,
        weight=known.weight if check and check.dynamic_weight and known.weight is not None else backend.weight,
        ramp=1.0 if known.ramp is None else known.ramp / RAMP_STEPS,
        is_past_drain=known.is_past_drain,
    )


def _serving(present: Configuration) -> frozenset[str]:
    return frozenset(
        registration(listener, backend)
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
        if drain.cause == REMOVED or (drain.cause == GONE and not drain.is_past(now))
    }
    for listener in configuration.listeners:
        for backend in listener.backends:
            if backend.admin_state != "drained" and not runtime.drains:
                continue
            name = registration(listener, backend)
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
        there = {backend.key for backend in after.backends} if after else set()
        for backend, options in zip(listener.backends, old.document[listener.name]["backends"]):
            if backend.key in there:
                continue
            name = registration(listener, backend)
            is_ending = ids.get((listener.name, *backend.key)) in runtime.ending
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
    present = in_force(configuration, runtime)
    ids = backend_ids(present)
    empty = {
        registration(listener, backend)
        for listener in present.leaving
        for backend in listener.backends
        if not flows.get(ids[(listener.name, *backend.key)])
    }
    return replace(runtime, drains={name: drain for name, drain in runtime.drains.items() if name not in empty})


def _health(checked: list[Listener], old: Configuration, known: Mapping[str, Health], now: float) -> dict[str, Health]:
    """Keep what is known of those that are checked. What has served unchecked is trusted until it fails."""
    if not checked:
        return {}
    unchecked = {name for listener in old.listeners if listener.health_check is None for name in listener.registrations}
    health: dict[str, Health] = {}
    for listener in checked:
        for name in listener.registrations:
            health[name] = known.get(name) or Health(HEALTHY if name in unchecked else INITIAL, now)
    return health


def _with_pools(present: Configuration, runtime: Runtime, now: float) -> Runtime:
    """Begin to drain a pool that has lost its turn, and stop where one has it again."""
    drains, standby = dict(runtime.drains), set()
    has_left = any(drain.cause == POOL_LEFT for drain in drains.values())
    for listener in present.listeners:
        if not any(backend.failover for backend in listener.backends):
            if not has_left and listener.name not in runtime.standby:
                continue
            turn = PRIMARY
        else:
            turn = select(listener).pool
        if turn == FAILOVER:
            standby.add(listener.name)
        has_changed = (turn == FAILOVER) != (listener.name in runtime.standby)
        for backend in listener.backends:
            name = registration(listener, backend)
            is_left = name in drains and drains[name].cause == POOL_LEFT
            if pool_of(backend) == turn:
                if is_left:
                    del drains[name]
            elif has_changed and name not in drains and is_candidate(backend):
                drains[name] = Drain(now, _deadline(listener, now), POOL_LEFT)
    return replace(runtime, drains=drains, standby=frozenset(standby))


def _with_ramps(
    present: Configuration, serving: frozenset[str], runtime: Runtime, now: float, is_held: bool
) -> Runtime:
    """Let those that join begin low, and those that have begun rise, unless they are held."""
    joined: dict[str, float] = {}
    ramps: dict[str, int] = {}
    for listener in present.listeners:
        for backend in listener.backends if listener.slow_start_sec else ():
            name = registration(listener, backend)
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
        (listener.name, *backend.key): (registration(listener, backend), backend, one)
        for listener in present.present
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
        if one.having(END) and runtime.settled.get(mark) != one and due > now:
            ending[mark] = due
            if one.having(MOVE):
                settled[mark] = _moved_only(one)
            continue
        settled[mark] = one
        if backend.is_leaving and backend.is_past_drain:
            over.add(name)
    drains = {
        name: replace(drain, cause=GONE, deadline=now + GUARD_SECONDS) if name in over else drain
        for name, drain in runtime.drains.items()
    }
    return replace(runtime, ending=ending, settled=settled, drains=drains)


def _moved_only(wanted: Fate) -> Fate:
    return Fate(*(MOVE if one == MOVE else KEEP for one in (wanted.stream, wanted.datagram)))
