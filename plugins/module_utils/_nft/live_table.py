# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the table as the kernel holds it, through the node's own ``nft``."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from .._errors import NodeError
from .objects import FAMILY, TABLE, Element, LiveChain, LiveTable, Set, Timed
from .runner import checked, run

_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}


def read_table() -> LiveTable | None:
    """Read our table, elements included; counters are left out.

    :returns: ``None`` if there is no such table.
    """
    listing = _list_table()
    if listing is None:
        return None
    hooks: dict[str, str] = {}
    comments: dict[str, list[str]] = {}
    sets: dict[str, Set] = {}
    timeouts: set[str] = set()
    for item in listing:
        kind, entry = next(iter(item.items()))
        if kind == "chain":
            hooks[entry["name"]] = _hook(entry)
            comments[entry["name"]] = []
        elif kind == "rule":
            comments[entry["chain"]].append(entry.get("comment", ""))
        elif kind in ("set", "map"):
            sets[entry["name"]] = Set(kind, "", dict(_pair(element) for element in entry.get("elem", ())))
        elif kind == "ct timeout":
            timeouts.add(entry["name"])
    chains = {name: LiveChain(tuple(comments[name]), hook) for name, hook in hooks.items()}
    return LiveTable(chains, sets, timeouts)


def read_counters(name: str) -> dict[int, tuple[int, int]]:
    """Read the counters of a set whose keys are marks.

    :returns: packets and bytes by mark; empty if the set is not there.
    """
    done = run(["-j", "list", "set", FAMILY, TABLE, name])
    if done.returncode and "No such file or directory" in done.stderr:
        return {}
    found: dict[int, tuple[int, int]] = {}
    for item in _objects(done):
        for element in item.get("set", {}).get("elem", ()):
            counter = element["elem"]["counter"]
            found[element["elem"]["val"]] = counter["packets"], counter["bytes"]
    return found


def _list_table() -> list[dict[str, Any]] | None:
    done = run(["-j", "list", "table", FAMILY, TABLE])
    if done.returncode and "No such file or directory" in done.stderr:
        return None
    return _objects(done)


def _objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    checked(done)
    try:
        listing: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    except ValueError as error:
        # nft 1.0.6 does it for a table that another process owns.
        raise NodeError(f"nft {' '.join(done.args[1:])}: prints what is not JSON ({error})") from error
    return listing


def _hook(entry: dict[str, Any]) -> str:
    if "hook" not in entry:
        return ""
    return f"type {entry['type']} hook {entry['hook']} priority {entry['prio']}; policy {entry['policy']};"


def _pair(element: Any) -> tuple[Any, Any]:
    if isinstance(element, list):
        key, value = element
        timer = key.get("elem", {}) if isinstance(key, dict) else {}
        if "expires" in timer:
            return _value(key), Timed(_value(value), timer["timeout"], timer["expires"])
        return _value(key), _value(value)
    if isinstance(element, dict) and "ct count" in element.get("elem", {}):
        return _value(element), Element(f"ct count over {element['elem']['ct count']['val']}")
    return _value(element), None


def _value(found: Any) -> Any:
    """Turn a value of nft's JSON into ours: a tuple for a concatenation, text for a verdict.

    What we never write, such as a prefix in a set of somebody else's, becomes its JSON text.
    """
    if not isinstance(found, dict):
        return found
    if "concat" in found:
        parts = [_value(part) for part in found["concat"]]
        if len(parts) == 3:
            # Address, protocol, port: without /etc/protocols nft tells the protocol's number.
            parts[1] = _PROTOCOLS.get(parts[1], parts[1])
        return tuple(parts)
    if "range" in found:
        return "-".join(str(end) for end in found["range"])
    if "elem" in found:
        return _value(found["elem"]["val"])
    kind, target = next(iter(found.items()))
    if kind in ("goto", "jump"):
        return f"{kind} {target['target']}"
    return kind if target is None else json.dumps(found, sort_keys=True)
