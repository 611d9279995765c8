# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random configurations for hypothesis, from few names, addresses and ports, so that two of them often overlap."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ansible_collections.evenflow.l4lb.plugins.module_utils._model import Document, family
from ansible_collections.evenflow.l4lb.plugins.module_utils._options import AFFINITIES

from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP, VIP6, backend, document, listener

_POOLS = {
    "4": [f"198.19.0.{number}" for number in range(1, 5)],
    "6": [f"2001:db8:1::{number}" for number in range(1, 4)],
}
_WEIGHTS = st.sampled_from([0, 1, 2, 3, 100])


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Draw a valid configuration of up to four listeners."""
    served: set[tuple[str, str, str]] = set()
    found = []
    for name in draw(st.lists(st.sampled_from(["api", "dns", "mail", "web"]), unique=True)):
        options = draw(_options())
        free = [port for port in options["ports"] if (options["address"], options["protocol"], port) not in served]
        if not free:
            continue
        served.update((options["address"], options["protocol"], port) for port in free)
        backends = draw(_backends(options["address"]))
        found.append(listener(name, *backends, **{**options, "ports": sorted(free, key=int)}))
    return document(*found)


@st.composite
def _options(draw: st.DrawFn) -> dict[str, Any]:
    scheduler = draw(st.sampled_from(["mh", "wrr", "rr"]))
    return {
        "address": draw(st.sampled_from([VIP, "198.18.0.11", VIP6])),
        "protocol": draw(st.sampled_from(["tcp", "udp"])),
        "ports": draw(st.lists(st.sampled_from(["53", "80", "443"]), min_size=1, unique=True)),
        "admin_state": draw(st.sampled_from(["enabled", "enabled", "disabled"])),
        "scheduler": scheduler,
        "session_affinity": draw(st.sampled_from(AFFINITIES)) if scheduler == "mh" else "none",
    }


@st.composite
def _backends(draw: st.DrawFn, vip: str) -> list[dict[str, Any]]:
    keys = st.tuples(st.sampled_from(_POOLS[family(vip)]), st.sampled_from([0, 80, 8080]))
    return [
        backend(
            address, port, weight=draw(_WEIGHTS), admin_state=draw(st.sampled_from(["enabled", "enabled", "drained"]))
        )
        for address, port in draw(st.lists(keys, unique=True, max_size=5))
    ]
