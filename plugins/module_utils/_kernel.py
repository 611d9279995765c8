# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads and writes the kernel's nftables state through the node's own ``nft``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

from . import _netlink
from ._errors import NodeError
from ._nft import FAMILY, TABLE, Element, FoundChain, FoundTable, Set, Timed, Transaction

_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_SUBSYSTEM = 10
_GET_GENERATION = 16
_GENERATION_ID = 1
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_OBJECT_DELETIONS = ("delete chain", "delete map", "delete set", "delete ct timeout")
_BUSY = "Device or resource busy"


def apply(transaction: Transaction) -> int:
    """Run a transaction: all of it or nothing.

    One that has checkpoints may be run in batches, of which only the last one shows.

    :returns: by how much it has raised the kernel's generation.
    :raises NodeError: the kernel or nft refused it; nothing of it took effect.
    """
    done = 0
    for batch in transaction.batches():
        try:
            done += _apply_batch(batch)
        except NodeError:
            if done:
                _run(["delete", "table", FAMILY, TABLE])
            raise
    return done


def _apply_batch(batch: Transaction) -> int:
    """Run statements at once.

    Kernels before 6.2 may refuse the deletion of a chain or set in the transaction that ends its use; then the
    deletions follow in a second one.
    """
    done = _run(["-f", "-"], batch.text())
    deletions = [text for text in batch.statements if text.startswith(_OBJECT_DELETIONS)]
    if not (done.returncode and _BUSY in done.stderr and deletions):
        _checked(done)
        return 1
    first, second = Transaction(), Transaction()
    first.statements = [text for text in batch.statements if text not in set(deletions)]
    second.statements = deletions
    _checked(_run(["-f", "-"], first.text()))
    _checked(_run(["-f", "-"], second.text()))
    return 2


def read_table() -> FoundTable | None:
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
    chains = {name: FoundChain(tuple(comments[name]), hook) for name, hook in hooks.items()}
    return FoundTable(chains, sets, timeouts)


def read_counters(name: str) -> dict[int, tuple[int, int]]:
    """Read the counters of a set whose keys are marks.

    :returns: packets and bytes by mark; empty if the set is not there.
    """
    done = _run(["-j", "list", "set", FAMILY, TABLE, name])
    if done.returncode and "No such file or directory" in done.stderr:
        return {}
    found: dict[int, tuple[int, int]] = {}
    for item in _objects(done):
        for element in item.get("set", {}).get("elem", ()):
            counter = element["elem"]["counter"]
            found[element["elem"]["val"]] = counter["packets"], counter["bytes"]
    return found


def generation() -> int:
    """Return the kernel's nftables generation: a number that every transaction of anybody raises by one."""
    try:
        answer = next(_netlink.ask(_SUBSYSTEM, _GET_GENERATION))
    except OSError as error:
        raise NodeError(f"the kernel does not tell its nftables generation: {error.strerror}") from error
    found = _netlink.parse(answer, _netlink.PREAMBLE)
    if _GENERATION_ID not in found:
        raise NodeError("the kernel's answer does not hold an nftables generation")
    return int.from_bytes(found[_GENERATION_ID], "big")


def _list_table() -> list[dict[str, Any]] | None:
    done = _run(["-j", "list", "table", FAMILY, TABLE])
    if done.returncode and "No such file or directory" in done.stderr:
        return None
    return _objects(done)


def _objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    _checked(done)
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


def nft_program() -> str:
    """Return the path of the node's nft.

    :raises NodeError: there is none.
    """
    program = shutil.which("nft", path=_PATH)
    if program is None:
        raise NodeError(f"nft: not found in {_PATH}; install the package nftables")
    return program


def _run(arguments: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    # The library also runs where there is no AnsibleModule with its run_command.
    return subprocess.run(  # pylint: disable=ansible-bad-function
        [nft_program(), *arguments],
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )


def _checked(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise NodeError(f"nft {' '.join(done.args[1:])}: {done.stderr.strip()[:2000]} (exit code {done.returncode})")
