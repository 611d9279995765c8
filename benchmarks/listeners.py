# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listeners that the benchmarks configure."""

from __future__ import annotations

from typing import Any


def many(scheduler: str, count: int, backends: int, weight: int = 100, protocol: str = "tcp") -> list[dict[str, Any]]:
    """Return listeners on 198.19.0.1 and upwards; `weight` is that of one backend in their middle, others have 100."""
    changed = (count // 2, backends // 2)
    return [
        {
            "name": f"listener-{number}",
            "address": f"198.19.{number // 250}.{number % 250 + 1}",
            "protocol": protocol,
            "ports": [80],
            "scheduler": scheduler,
            "backends": [
                {
                    "address": f"198.18.{number % 200 + 10}.{backend + 1}",
                    "port": 8080,
                    "weight": weight if (number, backend) == changed else 100,
                }
                for backend in range(backends)
            ],
        }
        for number in range(count)
    ]
