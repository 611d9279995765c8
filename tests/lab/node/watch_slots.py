# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prints when which listener's slots change on this node: seconds since the epoch, name. Argument: how long."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time


def main() -> None:
    # Ended from outside it ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_arguments: sys.exit())
    monitor = subprocess.Popen(["nft", "monitor"], stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(float(sys.argv[1]), monitor.kill)
    timer.start()
    try:
        for line in monitor.stdout or ():
            found = re.search(r" inet evenflow slots_(\S+)", line)
            if found:
                print(f"{time.time():.4f} {found[1]}", flush=True)
    finally:
        timer.cancel()
        monitor.kill()


if __name__ == "__main__":
    main()
