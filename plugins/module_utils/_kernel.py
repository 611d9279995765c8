# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads and writes the kernel's nftables state through the node's own ``nft``."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
from typing import Any

from ._errors import NodeError
from ._nft import FAMILY, TABLE, Element, FoundChain, FoundTable, Set, Timed, Transaction

_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_NETLINK_NETFILTER = 12
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_NEWGEN = 15
_NFT_MSG_GETGEN = 16
_NFTA_GEN_ID = 1
_NLM_F_REQUEST = 1
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_BUSY = "Device or resource busy"


def apply(transaction: Transaction) -> None:
    """Run a transaction: all of it or nothing.

    Kernels before 6.2 may refuse the deletion of a chain or set in the transaction that ends its use; then the
    deletions follow in a second one.

    :raises NodeError: the kernel or nft refused it; nothing of it took effect.
    """
    done = _run(["-f", "-"], transaction.text())
    deletions = [text for text in transaction.statements if text.startswith(("delete chain", "delete map", "delete set", "delete ct"))]
    if done.returncode and _BUSY in done.stderr and deletions:
        first, second = Transaction(), Transaction()
        first.statements = [text for text in transaction.statements if text not in set(deletions)]
        second.statements = deletions
        _checked(_run(["-f", "-"], first.text()))
        done = _run(["-f", "-"], second.text())
    _checked(done)


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
    _checked(done)
    found: dict[int, tuple[int, int]] = {}
    for item in json.loads(done.stdout)["nftables"]:
        for element in item.get("set", {}).get("elem", ()):
            counter = element["elem"]["counter"]
            found[element["elem"]["val"]] = counter["packets"], counter["bytes"]
    return found


def generation() -> int:
    """Return the kernel's nftables generation: a number that every transaction of anybody raises by one.

    The one fixed request is written out here, because importing a netlink library would cost a no-op run more than
    all the rest of it (0.2 s).
    """
    header = struct.pack("=IHHII", 20, _NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_GETGEN, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.settimeout(5)
        netlink.bind((0, 0))
        netlink.send(header + struct.pack("=BBH", socket.AF_UNSPEC, 0, 0))
        answer = netlink.recv(4096)
    if struct.unpack_from("=H", answer, 4)[0] != _NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_NEWGEN:
        raise NodeError("the kernel does not tell its nftables generation: is nf_tables available, and are we root?")
    offset = 20
    while offset + 4 <= len(answer):
        length, kind = struct.unpack_from("=HH", answer, offset)
        if kind & 0x3FFF == _NFTA_GEN_ID:
            return int(struct.unpack_from("!I", answer, offset + 4)[0])
        offset += max(4, length + 3 & ~3)
    raise NodeError("the kernel's answer does not hold an nftables generation")


def _list_table() -> list[dict[str, Any]] | None:
    done = _run(["-j", "list", "table", FAMILY, TABLE])
    if done.returncode and "No such file or directory" in done.stderr:
        return None
    _checked(done)
    listing: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
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
    """Turn a value of nft's JSON into ours: a tuple for a concatenation, text for a verdict."""
    if not isinstance(found, dict):
        return found
    if "concat" in found:
        parts = found["concat"]
        if len(parts) == 3:
            # Address, protocol, port: without /etc/protocols nft tells the protocol's number.
            return parts[0], _PROTOCOLS.get(parts[1], parts[1]), _value(parts[2])
        return tuple(_PROTOCOLS.get(part, part) for part in parts)
    if "range" in found:
        return "-".join(str(end) for end in found["range"])
    if "elem" in found:
        return _value(found["elem"]["val"])
    verdict, target = next(iter(found.items()))
    return f"{verdict} {target['target']}" if target else verdict


def _run(arguments: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    program = shutil.which("nft", path=_PATH)
    if program is None:
        raise NodeError(f"nft: not found in {_PATH}; install the package nftables")
    return subprocess.run(
        [program, *arguments],
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
