# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules between options, listeners and backends, which need the whole configuration to be checked."""

from __future__ import annotations

import json
from typing import Any

from .address import family
from .document import Document
from .options import CHECK_OPTIONS, CHECKS_WITHOUT_PORT, HASH_SCHEDULERS, HEALTH_CHECK, LISTENER, MAX_RING_SIZE
from .ports import PortRange, parse_ports
from .validation import Faults


def check_document(document: Document, before: Document, faults: Faults) -> None:
    """Check the rules of a configuration after a change.

    :param before: the configuration before the change.
    :param faults: gets an error for each rule that is broken.
    """
    served: dict[tuple[str, str], list[tuple[PortRange, bool, str]]] = {}
    for name in sorted(document):
        listener = document[name]
        prefix = faults.prefix(name)
        for option, rule in LISTENER.items():
            if rule.required and listener[option] is None and not faults.has_error(f"{prefix}{option}"):
                faults.add(f"{prefix}{option}", "required for a new listener")
        _check_protocol(listener, before.get(name), prefix, faults)
        _check_ports(listener, prefix, faults)
        _check_affinity(listener, prefix, faults)
        _check_persistence(listener, prefix, faults)
        _check_failover(listener, prefix, faults)
        if listener["health_check"]:
            _check_health_check(listener, f"{prefix}health_check.", faults)
        if listener["address"]:
            _check_backends(listener, faults)
            _check_clients(listener, prefix, faults)
        if listener["address"] and listener["protocol"]:
            for ports in parse_ports(listener["ports"]) if listener["ports"] else ():
                entry = (ports, faults.mentions(name), name)
                served.setdefault((listener["address"], listener["protocol"]), []).append(entry)
    for (address, protocol), entries in served.items():
        _check_overlap(address, protocol, sorted(entries), faults)


def warnings(listener: dict[str, Any]) -> list[str]:
    """Return a text for each combination of options that is allowed and seldom intended.

    If the first two datagrams of a flow are handled at the same time, each of them advances the counter of the
    scheduler, so they go to two backends. This happens to 7 to 11 % of the flows whose client sends two at once.
    """
    texts = []
    if listener["protocol"] in ("udp", "any") and listener["scheduler"] not in HASH_SCHEDULERS:
        texts.append(
            f"listener {listener['name']}: with scheduler {listener['scheduler']}, the first two datagrams of a flow "
            f"can go to different backends if they are sent at the same time; {', '.join(HASH_SCHEDULERS)} prevent this"
        )
    if listener["idle_timeout_sec"] and listener["protocol"] == "sctp":
        texts.append(
            f"listener {listener['name']}: with protocol sctp idle_timeout_sec ends idle sessions but not idle flows; "
            "nftables has timeouts for TCP and UDP only"
        )
    if listener["connection_persistence_on_unhealthy_backends"] == "always_persist":
        texts.append(
            f"listener {listener['name']}: with always_persist the flows of a backend that has failed stay with it "
            "until they have been idle for too long"
        )
    return texts


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
    if all(port_range.is_single for port_range in parse_ports(ports)):
        return
    for backend in listener["backends"]:
        if backend["port"]:
            path = faults.prefix(listener["name"], backend["address"], backend["port"])
            faults.add(f"{path}port", f"{backend['port']}: with ports {', '.join(ports)} the only allowed value is 0")


def _check_overlap(address: str, protocol: str, entries: list[tuple[PortRange, bool, str]], faults: Faults) -> None:
    """Report listeners that share a port, at the one that the user's input has.

    :param entries: ports, whether the input has their listener, and its name; in ascending order of ports.
    """
    widest = entries[0]
    for entry in entries[1:]:
        if entry[0].first <= widest[0].last and entry[2] != widest[2]:
            (other_ports, _in_input, other), (ports, _in_input, name) = sorted(
                (entry, widest), key=lambda item: item[1:]
            )
            faults.add(
                f"{faults.prefix(name)}ports",
                f"{ports}/{protocol} on {address} is served by listener {other} ({other_ports}) already",
            )
        widest = max(widest, entry, key=lambda item: item[0].last)


def _check_affinity(listener: dict[str, Any], prefix: str, faults: Faults) -> None:
    affinity, scheduler = listener["session_affinity"], listener["scheduler"]
    if affinity != "none" and scheduler not in HASH_SCHEDULERS and listener["tracking_mode"] == "per_connection":
        faults.add(
            f"{prefix}session_affinity",
            f"{affinity!r} with scheduler {scheduler}, which does not hash ({', '.join(HASH_SCHEDULERS)} do), needs "
            "tracking_mode per_session; with per_connection the only allowed value is none",
        )


def _check_persistence(listener: dict[str, Any], prefix: str, faults: Faults) -> None:
    option = "connection_persistence_on_unhealthy_backends"
    if listener[option] == "always_persist" and listener["tracking_mode"] == "per_session":
        faults.add(
            f"{prefix}{option}",
            "'always_persist' is not allowed with tracking_mode per_session; allowed: default_for_protocol, "
            "never_persist",
        )


def _check_failover(listener: dict[str, Any], prefix: str, faults: Faults) -> None:
    policy = listener["failover_policy"]
    if policy["failover_ratio"] and not any(backend["failover"] for backend in listener["backends"]):
        faults.add(
            f"{prefix}failover_policy.failover_ratio",
            f"{policy['failover_ratio']:g} needs a backend with failover: true; without one only 0 is allowed",
        )
    if policy["disable_connection_drain_on_failover"] and listener["protocol"] not in (None, "tcp"):
        faults.add(
            f"{prefix}failover_policy.disable_connection_drain_on_failover",
            f"true is not allowed with protocol {listener['protocol']}, only with tcp",
        )


def _check_health_check(listener: dict[str, Any], prefix: str, faults: Faults) -> None:
    check = listener["health_check"]
    kind = check.get("type")
    if kind not in CHECK_OPTIONS:
        # The option itself has an error already.
        return
    of_some_types = {name for names in CHECK_OPTIONS.values() for name in names}
    for name, option in HEALTH_CHECK.items():
        if name in of_some_types and name not in CHECK_OPTIONS[kind] and check[name] != option.default:
            types = ", ".join(kind for kind, names in CHECK_OPTIONS.items() if name in names)
            faults.add(f"{prefix}{name}", f"is not an option of type {kind}, only of {types}")
    if "tls" in CHECK_OPTIONS[kind] and not check["tls"]:
        for name in ("tls_verify", "ca_file"):
            if check[name] != HEALTH_CHECK[name].default:
                faults.add(f"{prefix}{name}", f"{json.dumps(check[name])} needs tls: true with type {kind}")
    if check["timeout_sec"] > check["check_interval_sec"]:
        faults.add(
            f"{prefix}timeout_sec",
            f"{check['timeout_sec']} is above check_interval_sec; allowed: 1–{check['check_interval_sec']}",
        )
    needed = {"dns": ("query",), "udp": ("request", "response"), "script": ("command",)}
    for name in needed.get(kind, ()):
        if not check[name] and not faults.has_error(f"{prefix}{name}"):
            faults.add(f"{prefix}{name}", f"required with type {kind}")
    if listener["ports"] and not check["port"] and kind not in CHECKS_WITHOUT_PORT:
        if not all(ports.is_single for ports in parse_ports(listener["ports"])):
            faults.add(
                f"{prefix}port",
                f"0 is not allowed with ports {', '.join(listener['ports'])}: name the port to check, 1–65535",
            )


def _check_clients(listener: dict[str, Any], prefix: str, faults: Faults) -> None:
    """Check that what is about addresses of clients is of the listener's family."""
    ip_version = family(listener["address"])
    others = [network for network in listener["source_ranges"] if family(network) != ip_version]
    if others:
        faults.add(
            f"{prefix}source_ranges", f"{others[0]} is not IPv{ip_version}, as the listener's {listener['address']} is"
        )
    for option in ("max_connection_rate_per_client", "max_connections_per_client"):
        bits = (listener[option] or {}).get("prefix")
        if bits and bits > 32 and ip_version == "4":
            faults.add(f"{prefix}{option}.prefix", f"{bits} is not in 1–32, the bits of an IPv4 address")


def _check_backends(listener: dict[str, Any], faults: Faults) -> None:
    ip_version = family(listener["address"])
    for backend in listener["backends"]:
        address = backend["address"]
        if family(address) == ip_version and address != listener["address"]:
            continue
        path = f"{faults.prefix(listener['name'], address, backend['port'])}address"
        if address == listener["address"]:
            faults.add(path, f"{address} is the listener's own address")
        else:
            faults.add(path, f"{address} is not IPv{ip_version}, as the listener's {listener['address']} is")
    if len(listener["backends"]) == 1 and listener["backends"][0]["capacity_scaler"] == 0:
        only = listener["backends"][0]
        path = f"{faults.prefix(listener['name'], only['address'], only['port'])}capacity_scaler"
        faults.add(path, "0 is not allowed for a listener's only backend; allowed: 0.1–1.0")
    if len(listener["backends"]) > MAX_RING_SIZE:
        faults.add(
            f"{faults.prefix(listener['name'])}backends", f"{len(listener['backends'])} are more than {MAX_RING_SIZE}"
        )
