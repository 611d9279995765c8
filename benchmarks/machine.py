# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine that a benchmark runs on, and its network namespaces."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pyroute2 import netns


def describe() -> str:
    """Return a line with what the figures depend on: processors, load, versions."""
    nft = subprocess.run(["nft", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    return f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, kernel {platform.release()}, {nft}"


class Namespace:
    """A network namespace that exists until `close`."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        own = os.stat("/proc/self/ns/net").st_ino
        while os.stat(self._path).st_ino == own:
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        return self._keeper.pid

    @property
    def _path(self) -> str:
        return f"/proc/{self._keeper.pid}/ns/net"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Enter the namespace for the length of the block; a socket that is made in the block stays in it."""
        back = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            netns.setns(self._path)
            yield
        finally:
            netns.setns(f"/proc/self/fd/{back}")
            os.close(back)

    def run(self, *command: str, text: str | None = None) -> str:
        """Run a command in the namespace and return its output. Raise CalledProcessError if it fails."""
        enter = ["nsenter", f"--net={self._path}", *command]
        return subprocess.run(enter, check=True, input=text, capture_output=True, text=True).stdout

    def close(self) -> None:
        self._keeper.terminate()
        self._keeper.wait()


@contextmanager
def namespaces(count: int) -> Iterator[Sequence[Namespace]]:
    """Make network namespaces for the length of a block."""
    made = [Namespace() for _number in range(count)]
    try:
        yield made
    finally:
        for namespace in made:
            namespace.close()
