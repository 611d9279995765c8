# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``lb_info`` tells of a node."""

from __future__ import annotations

import hashlib
import json
import platform
from typing import Any, Iterable

from . import _kernel
from ._eligibility import accepts, eligible
from ._identity import backend_ids
from ._model import Backend, Configuration, Listener, Settings, fingerprint
from ._node import Node
from ._scheduler import SlotTable, slot_table

GATHER = ("config", "status", "counters", "tables")
"""Parts of a report that may be asked for."""


def report(node: Node, gather: Iterable[str], names: Iterable[str] | None) -> dict[str, Any]:
    """Read a node; nothing is changed.

    :param gather: parts of :data:`GATHER`.
    :param names: listeners to tell of; ``None`` for all.
    :returns: ``listeners`` (a list sorted by name), ``fingerprint``, ``table_digest``, ``node``.
    """
    document, settings = node.configuration(), node.settings()
    configuration = Configuration.from_document(document)
    ids = backend_ids(configuration)
    tables = {
        listener.name: slot_table(listener, eligible(listener), ids, settings.hash_seed)
        for listener in configuration.listeners
    }
    counters = {name: _kernel.read_counters(f"acct_{name}") for name in _COUNTERS} if "counters" in gather else {}
    wanted = None if names is None else set(names)
    told = []
    for listener in configuration.listeners:
        if wanted is not None and listener.name not in wanted:
            continue
        entry: dict[str, Any] = {"name": listener.name}
        backends = [{"name": b.name, "address": b.address, "port": b.port} for b in listener.backends]
        registrations = [(backend, ids[(listener.name, *backend.key)]) for backend in listener.backends]
        if "config" in gather:
            entry.update(document[listener.name])
            backends = document[listener.name]["backends"]
        entry["backends"] = [dict(backend, id=f"{mark:#010x}") for backend, (_b, mark) in zip(backends, registrations)]
        if "status" in gather:
            entry["status"] = _listener_status(listener)
            for line, (backend, _mark) in zip(entry["backends"], registrations):
                line["status"] = _backend_status(backend)
        if "counters" in gather:
            for line, (_backend, mark) in zip(entry["backends"], registrations):
                line["counters"] = _backend_counters(counters, mark)
            lines = [line["counters"] for line in entry["backends"]]
            entry["counters"] = {name: sum(line[name] for line in lines) for name in _counter_names()}
        if "tables" in gather:
            entry["table"] = _table(tables[listener.name])
            shares = tables[listener.name].shares()
            for line, (_backend, mark) in zip(entry["backends"], registrations):
                line["slots"] = shares.get(mark, 0)
        told.append(entry)
    return {
        "listeners": told,
        "fingerprint": fingerprint(document),
        "table_digest": _digest(configuration, tables),
        "node": {"name": platform.node(), "kernel": platform.release(), **_settings(settings)},
    }


_COUNTERS = ("new", "in", "out")


def _counter_names() -> list[str]:
    return ["flows", "packets_in", "bytes_in", "packets_out", "bytes_out"]


def _backend_counters(counters: dict[str, dict[int, tuple[int, int]]], mark: int) -> dict[str, int]:
    flows = counters["new"].get(mark, (0, 0))[0]
    values = (flows, *counters["in"].get(mark, (0, 0)), *counters["out"].get(mark, (0, 0)))
    return dict(zip(_counter_names(), values))


def _listener_status(listener: Listener) -> str:
    if listener.admin_state == "disabled":
        return "disabled"
    return "no_monitor" if accepts(listener) else "offline"


def _backend_status(backend: Backend) -> str:
    return "drained" if backend.admin_state == "drained" else "no_monitor"


def _table(table: SlotTable) -> dict[str, Any]:
    total = sum(entry.weight for entry in table.entries)
    shares = table.shares()
    errors = [abs(shares[entry.id] - entry.weight * table.size / total) for entry in table.entries]
    return {
        "scheduler": table.scheduler,
        "size": table.size,
        "worst_error_slots": round(max(errors, default=0.0), 6),
    }


def _settings(settings: Settings) -> dict[str, Any]:
    return {"hash_seed": settings.hash_seed, "vip_mode": settings.vip_mode, "vip_interface": settings.vip_interface}


def _digest(configuration: Configuration, tables: dict[str, SlotTable]) -> str:
    """Name what decides where a flow goes: equal on nodes that would send every flow to the same backend."""
    routes = [
        (
            listener.address,
            listener.protocol,
            listener.ports,
            listener.session_affinity,
            accepts(listener),
            repr(tables[listener.name]),
            [backend.key for backend in eligible(listener)],
        )
        for listener in configuration.listeners
    ]
    text = json.dumps(routes, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
