# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``lb_info`` tells of a node."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict
from typing import Any, Dict, Iterable, List, Tuple

from . import _kernel
from ._eligibility import accepts, eligible
from ._identity import backend_ids
from ._model import NOTHING_LEARNED, Configuration, Document, Listener, Runtime, Settings, fingerprint
from ._node import Node
from ._scheduler import SlotTable, slot_table

Told = Tuple[Dict[str, Any], List[Dict[str, Any]]]
"""What one part of a report says of a listener, and of each of its backends in their order."""


def report(node: Node, gather: Iterable[str], names: Iterable[str] | None) -> dict[str, Any]:
    """Read a node; nothing is changed.

    :param gather: parts, keys of :data:`GATHER`.
    :param names: listeners to tell of; ``None`` for all.
    :returns: ``listeners`` (a list sorted by name), ``fingerprint``, ``table_digest``, ``node``.
    """
    document, settings = node.configuration(), node.settings()
    view = _View(document, settings, node.runtime())
    wanted = document.keys() if names is None else set(names)
    parts = [_identities, *(GATHER[part] for part in GATHER if part in set(gather))]
    told = []
    for listener in view.configuration.listeners:
        if listener.name in wanted:
            entry: dict[str, Any] = {}
            lines: list[dict[str, Any]] = [{} for _backend in listener.backends]
            for part in parts:
                fields, backends = part(view, listener)
                entry.update(fields)
                for line, more in zip(lines, backends):
                    line.update(more)
            told.append({**entry, "backends": lines})
    return {
        "listeners": told,
        "fingerprint": fingerprint(document),
        "table_digest": view.digest(),
        "node": {"name": platform.node(), "kernel": platform.release(), **asdict(settings)},
    }


class _View:
    """A configuration and what follows from it."""

    def __init__(self, document: Document, settings: Settings, runtime: Runtime) -> None:
        self.document = document
        self.configuration = Configuration.from_document(document)
        self.ids = backend_ids(self.configuration)
        self._seed = settings.hash_seed
        self._runtime = runtime
        self._counters: dict[str, dict[int, tuple[int, int]]] = {}

    def table(self, listener: Listener, runtime: Runtime = NOTHING_LEARNED) -> SlotTable:
        return slot_table(listener, eligible(listener), self.ids, self._seed, runtime.shares.get(listener.name))

    def current_table(self, listener: Listener) -> SlotTable:
        return self.table(listener, self._runtime)

    def marks(self, listener: Listener) -> list[int]:
        return [self.ids[(listener.name, *backend.key)] for backend in listener.backends]

    def counters(self, name: str) -> dict[int, tuple[int, int]]:
        if name not in self._counters:
            self._counters[name] = _kernel.read_counters(name)
        return self._counters[name]

    def digest(self) -> str:
        """Name what decides where a flow goes: equal on nodes that would send every flow to the same backend."""
        routes = [
            (
                listener.address,
                listener.protocol,
                listener.ports,
                listener.session_affinity,
                accepts(listener),
                # Shares dealt by load are each node's own.
                repr(self.table(listener)),
                [backend.key for backend in eligible(listener)],
            )
            for listener in self.configuration.listeners
        ]
        return hashlib.sha256(json.dumps(routes, separators=(",", ":")).encode("utf-8")).hexdigest()


def _identities(view: _View, listener: Listener) -> Told:
    return {"name": listener.name}, [
        {"name": backend.name, "address": backend.address, "port": backend.port, "id": f"{mark:#010x}"}
        for backend, mark in zip(listener.backends, view.marks(listener))
    ]


def _config(view: _View, listener: Listener) -> Told:
    document = view.document[listener.name]
    return document, document["backends"]


def _status(_view: _View, listener: Listener) -> Told:
    if listener.admin_state == "disabled":
        status = "disabled"
    else:
        status = "no_monitor" if accepts(listener) else "offline"
    return {"status": status}, [
        {"status": "drained" if backend.admin_state == "drained" else "no_monitor"} for backend in listener.backends
    ]


def _counters(view: _View, listener: Listener) -> Told:
    names = ("flows", "packets_in", "bytes_in", "packets_out", "bytes_out")
    lines = []
    for mark in view.marks(listener):
        flows, _bytes = view.counters("acct_new").get(mark, (0, 0))
        ways = (*view.counters("acct_in").get(mark, (0, 0)), *view.counters("acct_out").get(mark, (0, 0)))
        lines.append(dict(zip(names, (flows, *ways))))
    return {"counters": {name: sum(line[name] for line in lines) for name in names}}, [
        {"counters": line} for line in lines
    ]


def _tables(view: _View, listener: Listener) -> Told:
    table = view.current_table(listener)
    shares = table.shares()
    total = sum(entry.weight for entry in table.entries)
    errors = [abs(shares[entry.id] - entry.weight * table.size / total) for entry in table.entries]
    told = {
        "scheduler": table.scheduler,
        "size": table.size,
        "worst_error_slots": round(max(errors, default=0.0), 6),
    }
    return {"table": told}, [{"slots": shares.get(mark, 0)} for mark in view.marks(listener)]


GATHER = {"config": _config, "status": _status, "counters": _counters, "tables": _tables}
"""The parts of a report that may be asked for."""
