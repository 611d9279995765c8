# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Configurations for tests: complete documents from the few options that a test is about."""

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
    """Return a registration with all its options."""
    return {**_defaults(BACKEND), "name": address, "address": address, "port": port, **options}


def listener(name: str, *backends: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return a listener with all its options, backends sorted as they are stored."""
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
    """Return a health check with all its options."""
    return {**_defaults(HEALTH_CHECK), "type": kind, **options}


def document(*listeners: dict[str, Any]) -> Document:
    """Return a configuration as plain data."""
    return {item["name"]: item for item in listeners}


def configuration(*listeners: dict[str, Any]) -> Configuration:
    """Return a configuration as values."""
    return Configuration.from_document(document(*listeners))


def machines(count: int, **options: Any) -> tuple[Backend, ...]:
    """Return registrations of as many machines as wanted, with consecutive addresses."""
    return tuple(Backend(**backend(f"198.19.{number // 250}.{number % 250 + 1}", **options)) for number in range(count))


def weighted(*weights: int) -> tuple[Backend, ...]:
    """Return a machine for each weight."""
    return tuple(one._replace(weight=weight) for one, weight in zip(machines(len(weights)), weights))


def service(backends: tuple[Backend, ...], **options: Any) -> Listener:
    """Return a listener over registrations."""
    return replace(configuration(listener("web")).listeners[0], backends=backends, **options)


def ids_of(one: Listener) -> dict[tuple[str, str, int], int]:
    """Return the ids of a listener's registrations."""
    return backend_ids(Configuration((one,)))


def _defaults(options: dict[str, Option]) -> dict[str, Any]:
    return {name: option.default for name, option in options.items()}
