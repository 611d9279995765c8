# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In what the nodes of a fleet do not agree, by name."""

from __future__ import annotations

from typing import Any, Dict, Mapping

Reports = Mapping[str, Dict[str, Any]]
"""What ``lb_info`` with ``config`` and ``status`` returned, by node."""

_NODE = ("hash_seed",)
_ABSENT = "not there"


def disagreements(told: Reports) -> list[str]:
    """Compare nodes.

    :returns: a text for each thing in which they differ; empty if they send every flow to the same backend.
    """
    found = [f"agent of {node}: does not run" for node in sorted(told) if not told[node]["node"]["agent"]["running"]]
    facts: dict[str, dict[str, Any]] = {}
    for node, report in told.items():
        for name in _NODE:
            facts.setdefault(f"node {name}", {})[node] = report["node"][name]
        for listener in report["listeners"]:
            for name, value in _options(listener):
                facts.setdefault(name, {})[node] = value
    gone: set[str] = set()
    for name in facts:
        values = {node: facts[name].get(node, _ABSENT) for node in sorted(told)}
        if any(name.startswith(f"{place}: ") for place in gone):
            continue
        if any(value != values[min(values)] for value in values.values()):
            found.append(f"{name}: {', '.join(f'{value} on {node}' for node, value in values.items())}")
            if _ABSENT in values.values():
                gone.add(name)
    if not found and len({report["table_digest"] for report in told.values()}) > 1:
        found.append("table_digest: the nodes would not send every flow to the same backend")
    return found


def _options(listener: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return everything that is to be equal, outer things before those inside them."""
    place = f"listener {listener['name']}"
    found: list[tuple[str, Any]] = [(place, "there")]
    found += [
        (f"{place}: {option}", value)
        for option, value in listener.items()
        if option not in ("name", "backends", "pool", "active_flows")
    ]
    for backend in listener["backends"]:
        inside = f"{place}: backend {backend['name']} {backend['address']} port {backend['port']}"
        found.append((inside, "there"))
        found += [
            (f"{inside}: {option}", value)
            for option, value in backend.items()
            if option not in ("name", "address", "port", "id", "since", "active_flows", "health", "drain_remaining_sec")
        ]
    return found
