# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration as what a node has learned and begun modifies it. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional, Tuple

from .._config.model import Backend, Configuration, Listener
from .health import INITIAL
from .runtime import GONE, RAMP_STEPS, Runtime


def effective(configuration: Configuration, runtime: Runtime) -> Configuration:
    """Return the configuration as the node's state modifies it.

    Backends have their health, the weight they ask for and the part of their share that they have risen to. Removed
    registrations are there as leaving ones while their flows may live, and as guarded ones after that.
    """
    leaving, guarded = leaving_and_guarded(runtime)
    listeners = tuple(_effective_listener(listener, runtime) for listener in configuration.listeners)
    return Configuration(listeners, leaving, guarded, configuration.document)


def leaving_and_guarded(runtime: Runtime) -> tuple[tuple[Listener, ...], tuple[Listener, ...]]:
    """Return what is left of removed registrations whose flows may live, and of those whose flows have ended."""
    leaving: list[Listener] = []
    guarded: list[Listener] = []
    for drain in runtime.drains.values():
        if drain.removed:
            one = Configuration.from_document({drain.removed["name"]: drain.removed}).listeners[0]
            (guarded if drain.cause == GONE else leaving).append(_leaving(one, runtime))
    return tuple(sorted(leaving, key=lambda listener: (listener.name, listener.backends[0].endpoint))), tuple(guarded)


def _leaving(removed: Listener, runtime: Runtime) -> Listener:
    backend = _effective_backend(removed, removed.backends[0], _bearing(removed.backend_keys[0], runtime))
    return replace(removed, admin_state="disabled", max_connections=0, backends=(backend._replace(is_leaving=True),))


def _effective_listener(listener: Listener, runtime: Runtime) -> Listener:
    if not (listener.health_check or runtime.expired or runtime.ramps):
        # Nothing that is known bears on it.
        return listener
    bearing = [_bearing(name, runtime) for name in listener.backend_keys]
    # Kept with the listener: many ask, also before and after a change, and most of what is known stays as it is.
    kept = vars(listener).get(_IN_FORCE)
    if not kept or kept[0] != bearing:
        backends = (_effective_backend(listener, *pair) for pair in zip(listener.backends, bearing))
        kept = vars(listener)[_IN_FORCE] = bearing, replace(listener, backends=tuple(backends))
    found: Listener = kept[1]
    return found


_IN_FORCE = "_in_force"

_Bearing = Tuple[str, Optional[int], Optional[int], bool]
"""What is known that bears on a registration: its health and the weight it asks for, steps risen, past its drain."""


def _bearing(name: str, runtime: Runtime) -> _Bearing:
    health = runtime.health.get(name)
    step, is_drain_expired = runtime.ramps.get(name), name in runtime.expired
    return (health.state, health.weight, step, is_drain_expired) if health else (INITIAL, None, step, is_drain_expired)


def _effective_backend(listener: Listener, backend: Backend, known: _Bearing) -> Backend:
    check = listener.health_check
    health, weight, step, is_drain_expired = known
    return backend._replace(
        health=health if check else "",
        weight=weight if check and check.dynamic_weight and weight is not None else backend.weight,
        ramp=1.0 if step is None else step / RAMP_STEPS,
        is_drain_expired=is_drain_expired,
    )
