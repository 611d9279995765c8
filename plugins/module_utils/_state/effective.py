# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The effective configuration: the operator's, with health, drains and slow start applied. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from .._config.derived import Derived
from .._config.model import Backend, Configuration, Listener
from .health import HealthState
from .runtime import RAMP_STEPS, DrainCause, Runtime


class _Applied(NamedTuple):
    """The part of the runtime state that applies to one backend.

    :ivar weight: the weight that the server asks for.
    :ivar step: the step of its slow start; ``None`` outside of one.
    """

    health: HealthState
    weight: int | None
    step: int | None
    is_drain_expired: bool


def effective(configuration: Configuration, runtime: Runtime, derived: Derived | None = None) -> Configuration:
    """Return the effective configuration.

    Backends have their health, the weight that their servers ask for, and the part of their share that slow start
    allows. Removed backends are in ``leaving`` while their flows may live, and in ``guarded`` after that.

    :param derived: keeps the listeners for the next call.
    """
    derived = derived or Derived()
    leaving, guarded = leaving_and_guarded(runtime)
    listeners = configuration.listeners
    if runtime.expired or runtime.ramps or any(listener.health_check for listener in listeners):
        listeners = tuple(
            derived.get(_effective_listener, listener, [_applied(key, runtime) for key in listener.backend_keys])
            if listener.health_check or runtime.expired or runtime.ramps
            else listener
            for listener in listeners
        )
    return replace(configuration, listeners=listeners, leaving=leaving, guarded=guarded)


def leaving_and_guarded(runtime: Runtime) -> tuple[tuple[Listener, ...], tuple[Listener, ...]]:
    """Return the listeners of removed backends: those whose flows may live, and those whose flows have ended.

    Each is the listener as it was, with the removed backend as its only one.
    """
    leaving: list[Listener] = []
    guarded: list[Listener] = []
    for drain in runtime.drains.values():
        if drain.removed:
            removed = Configuration.from_document({drain.removed["name"]: drain.removed}).listeners[0]
            (guarded if drain.cause == DrainCause.GONE else leaving).append(_leaving(removed, runtime))
    return tuple(sorted(leaving, key=lambda listener: (listener.name, listener.backends[0].endpoint))), tuple(guarded)


def _leaving(removed: Listener, runtime: Runtime) -> Listener:
    backend = _effective_backend(removed, removed.backends[0], _applied(removed.backend_keys[0], runtime))
    return replace(removed, admin_state="disabled", max_connections=0, backends=(backend._replace(is_leaving=True),))


def _effective_listener(listener: Listener, applied: list[_Applied]) -> Listener:
    pairs = zip(listener.backends, applied)
    return replace(listener, backends=tuple(_effective_backend(listener, *pair) for pair in pairs))


def _applied(key: str, runtime: Runtime) -> _Applied:
    health, step, is_drain_expired = runtime.health.get(key), runtime.ramps.get(key), key in runtime.expired
    if health is None:
        return _Applied(HealthState.INITIAL, None, step, is_drain_expired)
    return _Applied(health.state, health.weight, step, is_drain_expired)


def _effective_backend(listener: Listener, backend: Backend, applied: _Applied) -> Backend:
    check = listener.health_check
    has_weight = check is not None and check.dynamic_weight and applied.weight is not None
    return backend._replace(
        health=applied.health if check else "",
        weight=applied.weight if has_weight and applied.weight is not None else backend.weight,
        ramp=1.0 if applied.step is None else applied.step / RAMP_STEPS,
        is_drain_expired=applied.is_drain_expired,
    )
