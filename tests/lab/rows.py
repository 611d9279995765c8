# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Listeners over the lab's backends, as the tests of the behaviour's rows write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .lab import Lab
from .topology import BACK, routed_vip4, routed_vip6

FAMILIES = (4, 6)


def vip(family: int, host: int) -> str:
    """A VIP that the client reaches by way of the load balancers."""
    return routed_vip6(host) if family == 6 else routed_vip4(host)


def target(address: str, port: int) -> str:
    """An endpoint as URLs and the traffic programs write it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def backend_address(lab: Lab, name: str, family: int) -> str:
    nic = lab.node(name).spec.nic(BACK)
    return nic.v6 if family == 6 else nic.v4


def listener(
    lab: Lab, name: str, family: int, host: int, *, port: int = 0, weights: Sequence[int] = (100, 100, 100),
    **options: Any,
) -> dict[str, Any]:
    """A listener with one registration per weight, of backends b1, b2, …; tcp on port 80 if not said otherwise."""
    backends = [
        {"name": f"b{number}", "address": backend_address(lab, f"b{number}", family), "port": port, "weight": weight}
        for number, weight in enumerate(weights, 1)
    ]
    found = {"name": name, "address": vip(family, host), "protocol": "tcp", "ports": [80], "backends": backends}
    return {**found, **options}
