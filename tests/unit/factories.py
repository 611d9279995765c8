# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Factories of configurations: build complete documents from the few options that a test is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.address import address_bytes
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.identity import backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Backend, Configuration, Listener
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.option import Option
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.options import BACKEND, HEALTH_CHECK, LISTENER

VIP = "198.18.0.10"
VIP6 = "2001:db8::10"


def backend(address: str, port: int = 0, **options: Any) -> dict[str, Any]:
    """Return a backend as plain data, with a value for every option."""
    return {**_defaults(BACKEND), "name": address, "address": address, "port": port, **options}


def listener(name: str, *backends: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return a listener as plain data, with a value for every option and the backends in stored order."""
    return {
        **_defaults(LISTENER),
        "name": name,
        "address": VIP,
        "protocol": "tcp",
        "ports": ["80"],
        "backends": sorted(backends, key=lambda item: (address_bytes(item["address"]), item["port"])),
        **options,
    }


def check(kind: str = "tcp", **options: Any) -> dict[str, Any]:
    """Return a health check as plain data, with a value for every option."""
    return {**_defaults(HEALTH_CHECK), "type": kind, **options}


def document(*listeners: dict[str, Any]) -> Document:
    """Return the configuration of some listeners as plain data."""
    return {item["name"]: item for item in listeners}


def configuration(*listeners: dict[str, Any]) -> Configuration:
    """Return the configuration of some listeners as a ``Configuration``."""
    return Configuration.from_document(document(*listeners))


def machines(count: int, **options: Any) -> tuple[Backend, ...]:
    """Return backends on a number of machines with consecutive addresses."""
    return tuple(Backend(**backend(f"198.19.{number // 250}.{number % 250 + 1}", **options)) for number in range(count))


def weighted(*weights: int) -> tuple[Backend, ...]:
    """Return backends with the given weights, each on a machine of its own."""
    return tuple(machine._replace(weight=weight) for machine, weight in zip(machines(len(weights)), weights))


def service(backends: tuple[Backend, ...], **options: Any) -> Listener:
    """Return a listener with the given backends."""
    return replace(configuration(listener("web")).listeners[0], backends=backends, **options)


def ids_of(concerned: Listener) -> dict[tuple[str, str, int], int]:
    """Return the ids of a listener's backends by listener, address and port."""
    return backend_ids(Configuration((concerned,)))


def _defaults(options: dict[str, Option]) -> dict[str, Any]:
    return {name: option.default for name, option in options.items()}
