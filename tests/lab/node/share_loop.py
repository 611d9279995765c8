# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The loop for lc and wlc on this node. Arguments: the folder of the library, seconds. Prints how often it dealt."""

from __future__ import annotations

import sys
import time
from pathlib import Path


def main() -> None:
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    sys.path.insert(0, str(folder.parent))
    node_module = __import__(f"{folder.name}._node", fromlist=["Node"])
    controller = __import__(f"{folder.name}._share_controller", fromlist=["TICK"])
    loop = __import__(f"{folder.name}._share_loop", fromlist=["ShareLoop"]).ShareLoop(node_module.Node())
    end, dealt = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        began = time.monotonic()
        dealt += loop.tick()
        time.sleep(max(0.0, controller.TICK - (time.monotonic() - began)))
    print(dealt)


if __name__ == "__main__":
    main()
