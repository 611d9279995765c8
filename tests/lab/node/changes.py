# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make many changes in a row on this node by the library. Arguments: its folder, number of changes, pause, --tables.

Each change sets the weight of one backend in every listener; with weight 0 the backend has no slots. With --tables each
change sets another version of the rules instead, so that the whole table is replaced.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Document = dict[str, dict[str, Any]]

WEIGHTS = (3, 0, 1, 7, 2, 0, 5)


def main() -> None:
    folder, count, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    sys.path.insert(0, str(folder.parent))
    node_module = __import__(f"{folder.name}._node.node", fromlist=["Node"])
    nft: Any = __import__(f"{folder.name}._nft.objects", fromlist=["RULES_VERSION"])
    node = node_module.Node()
    changed = 0
    for number in range(count):
        edit: Callable[[Document], Document] = partial(with_weight, weight=WEIGHTS[number % len(WEIGHTS)])
        if "--tables" in sys.argv:
            nft.RULES_VERSION, edit = 1000 + number, dict
        done = node.change(edit).plan.transaction
        changed += bool(done) and ("--tables" not in sys.argv or "delete table inet evenflow" in done.lines())
        time.sleep(pause)
    print(changed)


def with_weight(before: Document, weight: int) -> Document:
    """Set the weight of backend b2 in every listener."""
    after = {}
    for name, listener in before.items():
        backends = [
            dict(backend, weight=weight) if backend["name"] == "b2" else backend for backend in listener["backends"]
        ]
        after[name] = dict(listener, backends=backends)
    return after


if __name__ == "__main__":
    main()
