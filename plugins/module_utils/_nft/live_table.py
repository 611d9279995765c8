# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the table as the kernel holds it, through the node's own ``nft``."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any, Iterable

from .._errors import NodeError
from . import runner
from .limits import Bucket
from .objects import FAMILY, TABLE, Element, LiveChain, LiveTable, Set, SetKind, Timed

_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_ABSENT = "No such file or directory"
_BUCKET = re.compile(r"(\w+) counter packets (\d+) bytes \d+ limit rate over 1/week burst (\d+) packets")


def read_table() -> LiveTable | None:
    """Read our table with its elements, without counters.

    :returns: ``None`` if there is no such table.
    :raises NodeError: nft fails.
    """
    completed = runner.run(["-j", "list", "table", FAMILY, TABLE])
    if completed.returncode and _ABSENT in completed.stderr:
        return None
    objects = _objects(completed)
    try:
        return _live_table(objects)
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError):
        # Another program has put something in the table that the library never writes.
        return LiveTable({}, {}, set(), is_refused=True)


def _live_table(objects: list[dict[str, Any]]) -> LiveTable:
    hooks: dict[str, str] = {}
    comments: dict[str, list[str]] = {}
    sets: dict[str, Set] = {}
    timeouts: set[str] = set()
    is_dormant = False
    for item in objects:
        kind, entry = next(iter(item.items()))
        if kind == "table":
            # Only other programs set a flag; nft 1.0.6 prints a wrong name for it.
            is_dormant = "flags" in entry
        elif kind == "chain":
            hooks[entry["name"]] = _hook(entry)
            comments[entry["name"]] = []
        elif kind == "rule":
            comments[entry["chain"]].append(entry.get("comment", ""))
        elif kind in ("set", "map"):
            elements = dict(_pair(element) for element in entry.get("elem", ()))
            sets[entry["name"]] = Set(SetKind(kind), "", elements, size=entry.get("size", 0))
        elif kind == "ct timeout":
            timeouts.add(entry["name"])
    chains = {name: LiveChain(tuple(comments[name]), hook) for name, hook in hooks.items()}
    return LiveTable(chains, sets, timeouts, is_dormant)


def read_counters(name: str) -> dict[int, tuple[int, int]]:
    """Read the counters of a set whose keys are marks.

    :returns: packets and bytes by mark; empty if there is no such set.
    :raises NodeError: nft fails.
    """
    completed = runner.run(["-j", "list", "set", FAMILY, TABLE, name])
    if completed.returncode and _ABSENT in completed.stderr:
        return {}
    counters: dict[int, tuple[int, int]] = {}
    for item in _objects(completed):
        for element in item.get("set", {}).get("elem", ()):
            counter = element["elem"]["counter"]
            counters[element["elem"]["val"]] = counter["packets"], counter["bytes"]
    return counters


def read_buckets(names: Iterable[str]) -> dict[tuple[str, Any], Bucket]:
    """Read the buckets of sets, in the form for people, because nft 1.0.6 leaves the places out of its JSON.

    :returns: the buckets by the name of the set and the key; none of a set that does not exist.
    :raises NodeError: nft fails.
    """
    buckets: dict[tuple[str, Any], Bucket] = {}
    for name in names:
        completed = runner.run(["list", "set", FAMILY, TABLE, name])
        if completed.returncode and _ABSENT in completed.stderr:
            continue
        runner.check(completed)
        for key, asked, places in _BUCKET.findall(completed.stdout):
            mark = int(key, 16) if key.startswith("0x") else key
            buckets[name, mark] = Bucket(int(places), int(asked))
    return buckets


def _objects(completed: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    runner.check(completed)
    try:
        listing: list[dict[str, Any]] = json.loads(completed.stdout)["nftables"]
    except ValueError as error:
        # nft 1.0.6 does it for a table that another process owns.
        raise NodeError(f"nft {' '.join(completed.args[1:])}: its output is not JSON ({error})") from error
    return listing


def _hook(entry: dict[str, Any]) -> str:
    if "hook" not in entry:
        return ""
    return f"type {entry['type']} hook {entry['hook']} priority {entry['prio']}; policy {entry['policy']};"


def _pair(element: Any) -> tuple[Any, Any]:
    """Return an element's key and value; the value of a set's element is ``None`` or its statement."""
    if isinstance(element, list):
        key, value = element
        timer = key.get("elem", {}) if isinstance(key, dict) else {}
        if "expires" in timer:
            # A rule that renews an element lengthens what is left, in old kernels without the time-out itself.
            timeout = max(timer["timeout"], timer["expires"])
            return _value(key), Timed(_value(value), timeout, timer["expires"])
        return _value(key), _value(value)
    if isinstance(element, dict) and "ct count" in element.get("elem", {}):
        return _value(element), Element(f"ct count over {element['elem']['ct count']['val']}")
    return _value(element), None


def _value(data: Any) -> Any:
    """Return a value of nft's JSON as the library writes it: a tuple for a concatenation, text for a verdict.

    What the library never writes becomes its JSON text.
    """
    if not isinstance(data, dict):
        return data
    if "concat" in data:
        parts = [_value(part) for part in data["concat"]]
        if len(parts) == 3:
            # Address, protocol, port: without /etc/protocols nft prints the protocol's number.
            parts[1] = _PROTOCOLS.get(parts[1], parts[1])
        return tuple(parts)
    if "range" in data:
        return "-".join(str(end) for end in data["range"])
    if "prefix" in data:
        return f"{data['prefix']['addr']}/{data['prefix']['len']}"
    if "elem" in data:
        return _value(data["elem"]["val"])
    kind, target = next(iter(data.items()))
    if kind in ("goto", "jump"):
        return f"{kind} {target['target']}"
    return kind if target is None else json.dumps(data, sort_keys=True)
