# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of ``lb_info``: what a node balances, and in what state it is."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from dataclasses import asdict
from typing import Any, Dict, Iterable, List, Tuple

from .._config.document import Document, fingerprint
from .._config.identity import backend_ids
from .._config.model import Backend, Configuration, Listener, backend_key_of
from .._config.settings import Settings
from .._nft import admission, live_table
from .._schedule.scheduler import SlotTable, slot_table
from .._state.effective import effective
from .._state.eligibility import Pool, accepts, is_candidate, is_healthy, select
from .._state.runtime import EMPTY_RUNTIME, DrainCause, Runtime
from .._system import conntrack
from .view import NodeView

Section = Tuple[Dict[str, Any], List[Dict[str, Any]]]
"""The fields that a part of a report has for a listener, and for each of its backends in their order."""


def report(view: NodeView, gather: Iterable[str], names: Iterable[str] | None) -> dict[str, Any]:
    """Return the report of a node.

    :param gather: parts, keys of :data:`GATHER`.
    :param names: names of listeners; ``None`` for all.
    :returns: ``listeners`` (a list sorted by name), ``fingerprint``, ``table_digest``, ``node``.
    """
    document, settings = view.configuration(), view.settings()
    facts = _Facts(document, settings, view.runtime())
    reported = document.keys() if names is None else set(names)
    parts = [_identities, *(GATHER[part] for part in GATHER if part in set(gather))]
    listeners = []
    for listener in facts.configuration.listeners:
        if listener.name in reported:
            entry: dict[str, Any] = {}
            lines: list[dict[str, Any]] = [{} for _backend in listener.backends]
            for part in parts:
                fields, backends = part(facts, listener)
                entry.update(fields)
                for line, more in zip(lines, backends):
                    line.update(more)
            listeners.append({**entry, "backends": lines})
    return {
        "listeners": listeners,
        "fingerprint": fingerprint(document),
        "table_digest": facts.digest(),
        "node": {
            "name": platform.node(),
            "kernel": platform.release(),
            **asdict(settings),
            "agent": view.agent(),
            "leaving": facts.leaving(),
        },
    }


class _Facts:
    """A configuration, and what is computed from it or counted once for all parts of a report."""

    def __init__(self, document: Document, settings: Settings, runtime: Runtime) -> None:
        self.document = document
        self.configuration = effective(Configuration.from_document(document), runtime)
        self.ids = backend_ids(self.configuration)
        self._seed = settings.hash_seed
        self.runtime = runtime
        self._active: dict[int, int] | None = None
        self._counters: dict[str, dict[int, tuple[int, int]]] = {}

    def table(self, listener: Listener, runtime: Runtime = EMPTY_RUNTIME) -> SlotTable:
        return slot_table(listener, select(listener).backends, self.ids, self._seed, runtime.shares.get(listener.name))

    def current_table(self, listener: Listener) -> SlotTable:
        return self.table(listener, self.runtime)

    def marks(self, listener: Listener) -> list[int]:
        return [self.ids[(listener.name, *backend.endpoint)] for backend in listener.backends]

    def counters(self, name: str) -> dict[int, tuple[int, int]]:
        if name not in self._counters:
            self._counters[name] = live_table.read_counters(name)
        return self._counters[name]

    def active_flows(self) -> dict[int, int]:
        """Return the number of active flows by backend id."""
        if self._active is None:
            self._active = conntrack.count()
        return self._active

    def leaving(self) -> list[dict[str, Any]]:
        """Return the removed backends that still drain."""
        now = time.time()
        return [
            {
                "listener": drain.removed["name"],
                "address": drain.removed["backends"][0]["address"],
                "port": drain.removed["backends"][0]["port"],
                "drain_remaining_sec": _remaining(drain.deadline, now),
            }
            for drain in self.runtime.drains.values()
            if drain.cause == DrainCause.REMOVED and drain.removed
        ]

    def digest(self) -> str:
        """Return a digest of what decides where a flow goes: equal on nodes that send flows to the same backends."""
        routes = [
            (
                listener.address,
                listener.protocol,
                listener.ports,
                listener.session_affinity,
                accepts(listener, select(listener)),
                # Shares that follow the load differ between nodes.
                repr(self.table(listener)),
                [backend.endpoint for backend in select(listener).backends],
            )
            for listener in self.configuration.listeners
        ]
        return hashlib.sha256(json.dumps(routes, separators=(",", ":")).encode("utf-8")).hexdigest()


def _identities(facts: _Facts, listener: Listener) -> Section:
    return {"name": listener.name}, [
        {"name": backend.name, "address": backend.address, "port": backend.port, "id": f"{mark:#010x}"}
        for backend, mark in zip(listener.backends, facts.marks(listener))
    ]


def _config(facts: _Facts, listener: Listener) -> Section:
    document = facts.document[listener.name]
    return document, document["backends"]


def _status(facts: _Facts, listener: Listener) -> Section:
    lines = [_backend_status(facts, listener, *pair) for pair in zip(listener.backends, facts.marks(listener))]
    return {"status": _listener_status(listener), "pool": select(listener).pool}, lines


def _listener_status(listener: Listener) -> str:
    if listener.admin_state == "disabled":
        return "disabled"
    selection = select(listener)
    if not accepts(listener, selection):
        return "offline"
    if listener.health_check is None:
        return "no_monitor"
    candidates = [backend for backend in listener.backends if is_candidate(backend)]
    in_order = all(is_healthy(backend) for backend in candidates) and selection.pool != Pool.FAILOVER
    return "online" if in_order else "degraded"


def _backend_status(facts: _Facts, listener: Listener, backend: Backend, mark: int) -> dict[str, Any]:
    name = backend_key_of(listener.name, *backend.endpoint)
    health, drain = facts.runtime.health.get(name), facts.runtime.drains.get(name)
    flows = facts.active_flows().get(mark, 0)
    if backend.admin_state == "disabled":
        status, since = "disabled", None
    elif backend.admin_state == "drained":
        status = "drained" if backend.is_drain_expired or not flows else "draining"
        since = drain.since if drain else None
    else:
        status, since = backend.health or "no_monitor", health.since if health else None
    fields: dict[str, Any] = {"status": status, "since": _time(since), "active_flows": flows}
    if health:
        fields["health"] = {"state": health.state, "since": _time(health.since), "last_check": health.message}
        if listener.health_check:
            fields["health"]["detection_sec"] = listener.health_check.detection_sec
        if health.weight is not None:
            fields["health"]["weight"] = health.weight
    if status == "draining" and drain:
        fields["drain_remaining_sec"] = _remaining(drain.deadline, time.time())
    return fields


def _remaining(deadline: float | None, now: float) -> int | None:
    return None if deadline is None else max(0, round(deadline - now))


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _connections(facts: _Facts, listener: Listener) -> Section:
    flows = [facts.active_flows().get(mark, 0) for mark in facts.marks(listener)]
    return {"active_flows": sum(flows)}, [{"active_flows": count} for count in flows]


def _counters(facts: _Facts, listener: Listener) -> Section:
    names = ("flows", "packets_in", "bytes_in", "packets_out", "bytes_out")
    lines = []
    for mark in facts.marks(listener):
        flows, _bytes = facts.counters("acct_new").get(mark, (0, 0))
        ways = (*facts.counters("acct_in").get(mark, (0, 0)), *facts.counters("acct_out").get(mark, (0, 0)))
        lines.append(dict(zip(names, (flows, *ways))))
    totals: dict[str, Any] = {name: sum(line[name] for line in lines) for name in names}
    return {"counters": {**totals, "refused": _refused(facts, listener)}}, [{"counters": line} for line in lines]


def _refused(facts: _Facts, listener: Listener) -> dict[str, int]:
    """Return the number of flows that were refused, by the option for which they were."""
    options = admission.reasons(listener)
    counters = facts.counters(admission.counters_name(listener.name)) if options else {}
    return {option: counters.get(admission.REASONS[option], (0, 0))[0] for option in options}


def _tables(facts: _Facts, listener: Listener) -> Section:
    table = facts.current_table(listener)
    shares = table.shares()
    total = sum(entry.weight for entry in table.entries)
    errors = [abs(shares[entry.id] - entry.weight * table.size / total) for entry in table.entries]
    fields = {
        "scheduler": table.scheduler,
        "size": table.size,
        "worst_error_slots": round(max(errors, default=0.0), 6),
    }
    return {"table": fields}, [{"slots": shares.get(mark, 0)} for mark in facts.marks(listener)]


GATHER = {"config": _config, "status": _status, "connections": _connections, "counters": _counters, "tables": _tables}
"""The parts of a report that may be asked for."""
