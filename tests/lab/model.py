# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model of the kernel's choice of a backend for the tuple of a new flow to a listener with a hash scheduler."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.identity import backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration, Listener
from ansible_collections.evenflow.l4lb.plugins.module_utils._schedule.scheduler import slot_table
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.eligibility import select

_MASK = 0xFFFFFFFF
_PROTOCOLS = {"tcp": 6, "udp": 17}


@dataclass(frozen=True)
class Flow:
    """The tuple of a flow's first packet, as it reaches the VIP."""

    protocol: str
    source: str
    source_port: int
    destination: str
    destination_port: int


class Model:
    """The listeners of a node with a hash scheduler.

    :param document: the configuration, ``{name: listener options}``.
    :param seed: the fleet's hash seed.
    """

    def __init__(self, document: dict[str, dict[str, Any]], seed: int) -> None:
        self._seed = seed
        configuration = Configuration.from_document(document)
        ids = backend_ids(configuration)
        addresses = {mark: address for (_name, address, _port), mark in ids.items()}
        self._listeners: list[tuple[Listener, list[str]]] = []
        for listener in configuration.listeners:
            table = slot_table(listener, select(listener).backends, ids, seed)
            slots = [addresses[mark] for mark in table.slots()]
            self._listeners.append((listener, slots))

    def backend(self, flow: Flow) -> str:
        """Return the address of the backend that a new flow gets. Raise KeyError if no listener serves the flow."""
        for listener, slots in self._listeners:
            if (listener.address, listener.protocol) == (flow.destination, flow.protocol) and any(
                ports.first <= flow.destination_port <= ports.last for ports in listener.ports
            ):
                hashed = listener.session_affinity if listener.scheduler == "mh" else listener.scheduler
                return slots[reciprocal_scale(jhash(_hashed(flow, hashed), self._seed), len(slots))]
        raise KeyError(flow)


def reciprocal_scale(value: int, end: int) -> int:
    """Scale a 32-bit hash to 0 … end-1 as the kernel does (``include/linux/kernel.h``), not by modulo."""
    return value * end >> 32


def jhash(key: bytes, seed: int) -> int:
    """Hash a key as the kernel's ``jhash`` does: Bob Jenkins' lookup3, little-endian 32-bit values."""
    a = b = c = (0xDEADBEEF + len(key) + seed) & _MASK
    while len(key) > 12:
        a, b, c = (a + _word(key, 0)) & _MASK, (b + _word(key, 4)) & _MASK, (c + _word(key, 8)) & _MASK
        a, b, c = _mix(a, b, c)
        key = key[12:]
    if not key:
        return c
    rest = key.ljust(12, b"\0")
    return _final((a + _word(rest, 0)) & _MASK, (b + _word(rest, 4)) & _MASK, (c + _word(rest, 8)) & _MASK)


def _hashed(flow: Flow, hashed: str) -> bytes:
    """Return the hashed fields as nftables registers hold them: each begins at a multiple of four bytes."""
    source = ipaddress.ip_address(flow.source).packed
    destination = ipaddress.ip_address(flow.destination).packed
    protocol = bytes([_PROTOCOLS[flow.protocol], 0, 0, 0])
    ports = b"".join(port.to_bytes(2, "big") + b"\0\0" for port in (flow.source_port, flow.destination_port))
    return {
        "none": source + destination + protocol + ports,
        "client_ip_port_proto": source + destination + protocol + ports,
        "client_ip_proto": source + destination + protocol,
        "client_ip": source + destination,
        "client_ip_no_destination": source,
        "sh": source,
        "dh": destination,
    }[hashed]


def _word(key: bytes, offset: int) -> int:
    return int.from_bytes(key[offset : offset + 4], "little")


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> 32 - bits) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    a = (a - c & _MASK) ^ _rotated(c, 4)
    c = c + b & _MASK
    b = (b - a & _MASK) ^ _rotated(a, 6)
    a = a + c & _MASK
    c = (c - b & _MASK) ^ _rotated(b, 8)
    b = b + a & _MASK
    a = (a - c & _MASK) ^ _rotated(c, 16)
    c = c + b & _MASK
    b = (b - a & _MASK) ^ _rotated(a, 19)
    a = a + c & _MASK
    c = (c - b & _MASK) ^ _rotated(b, 4)
    b = b + a & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = (c ^ b) - _rotated(b, 14) & _MASK
    a = (a ^ c) - _rotated(c, 11) & _MASK
    b = (b ^ a) - _rotated(a, 25) & _MASK
    c = (c ^ b) - _rotated(b, 16) & _MASK
    a = (a ^ c) - _rotated(c, 4) & _MASK
    b = (b ^ a) - _rotated(a, 14) & _MASK
    c = (c ^ b) - _rotated(b, 24) & _MASK
    return c
