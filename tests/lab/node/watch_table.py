# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prints what changes in our table on this node: seconds since the epoch, statement. Argument: how long."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time


def main() -> None:
    # Ended from outside it ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_arguments: sys.exit())
    # Into a pipe nft would print when a block is full.
    monitor = subprocess.Popen(["stdbuf", "-oL", "nft", "monitor"], stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(float(sys.argv[1]), monitor.kill)
    timer.start()
    try:
        for line in monitor.stdout or ():
            if " inet evenflow " in line:
                print(f"{time.time():.4f} {line.strip()[:200]}", flush=True)
    finally:
        timer.cancel()
        monitor.kill()


if __name__ == "__main__":
    main()
