# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The differences between the nodes of a fleet, by the names of options."""

from __future__ import annotations

from typing import Any, Dict, Mapping

Reports = Mapping[str, Dict[str, Any]]
"""The results of ``lb_info`` with ``config`` and ``status``, by the name of the node."""

_NODE_SETTINGS = ("hash_seed",)
_PRESENT, _ABSENT = "present", "absent"

_LISTENER_IGNORED = ("name", "backends", "pool", "active_flows")
_BACKEND_IGNORED = ("name", "address", "port", "id", "since", "active_flows", "health", "drain_remaining_sec")
"""Keys that identify a listener or backend, follow from others, or differ between nodes that agree."""


def disagreements(reports: Reports) -> list[str]:
    """Compare nodes.

    :returns: one text for each difference; an empty list if the nodes send every flow to the same backend.
    """
    nodes = sorted(reports)
    differences = [f"agent of {node}: not running" for node in nodes if not reports[node]["node"]["agent"]["running"]]
    values: dict[str, dict[str, Any]] = {}
    for node, report in reports.items():
        for setting in _NODE_SETTINGS:
            values.setdefault(f"node {setting}", {})[node] = report["node"][setting]
        for listener in report["listeners"]:
            for name, value in _options(listener):
                values.setdefault(name, {})[node] = value
    absent: set[str] = set()
    for name in values:
        by_node = {node: values[name].get(node, _ABSENT) for node in nodes}
        if any(name.startswith(f"{outer}: ") for outer in absent):
            continue
        if any(value != by_node[nodes[0]] for value in by_node.values()):
            differences.append(f"{name}: {', '.join(f'{value} on {node}' for node, value in by_node.items())}")
            if _ABSENT in by_node.values():
                absent.add(name)
    if not differences and len({report["table_digest"] for report in reports.values()}) > 1:
        differences.append("table_digest: the nodes would not send every flow to the same backend")
    return differences


def _options(listener: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return everything that must be equal on all nodes; a listener or backend comes before its options."""
    place = f"listener {listener['name']}"
    options: list[tuple[str, Any]] = [(place, _PRESENT)]
    options += [(f"{place}: {name}", value) for name, value in listener.items() if name not in _LISTENER_IGNORED]
    for backend in listener["backends"]:
        inner = f"{place}: backend {backend['name']} {backend['address']} port {backend['port']}"
        options.append((inner, _PRESENT))
        options += [(f"{inner}: {name}", value) for name, value in backend.items() if name not in _BACKEND_IGNORED]
    return options
