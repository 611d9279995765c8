# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node of a running lab, and what a test or a person can do with it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .network import plug
from .process import Background, Result, enter, run
from .runtime import wait_booted
from .store import LabError, Store
from .topology import NodeSpec, Topology

BOOT_SECONDS = 180.0


class Node:
    """A machine of the lab. Commands are argument lists and run as root."""

    def __init__(self, store: Store, lab: str, spec: NodeSpec, topology: Topology) -> None:
        self.spec = spec
        self.name = spec.name
        self.container = f"{lab}-{spec.name}"
        self._store = store
        self._namespace = store.namespace(lab)
        self._topology = topology
        self._pid = 0

    @property
    def pid(self) -> int:
        """Return the process id of the node's PID 1 on this machine. Raise LabError while the node is off."""
        if not self._pid:
            self._pid = self._inspect_pid()
        if not self._pid:
            raise LabError(f"{self.name} is not running")
        return self._pid

    def run(
        self, arguments: Sequence[str], *, input: str | None = None, check: bool = True, timeout: float = 60
    ) -> Result:
        """Run a command to its end. Raise CommandFailed if `check` is set and it fails; `timeout` is in seconds."""
        return run(enter(self.pid, arguments), input=input, check=check, timeout=timeout)

    def start(self, arguments: Sequence[str], *, stdin: bool = False, output: IO[str] | None = None) -> Background:
        """Start a command and return at once. `output` is a file for all its output, instead of pipes."""
        return Background(enter(self.pid, arguments), stdin=stdin, output=output)

    def put(self, path: str, text: str, mode: str = "0644") -> None:
        """Write a file on the node, whole or not at all; missing folders are made."""
        self.run(["install", "-D", "-m", mode, "/dev/stdin", path], input=text)

    def get(self, path: str) -> str:
        """Return the text of a file on the node."""
        return self.run(["cat", path]).stdout

    def power_on(self) -> None:
        """Boot the node. Interfaces and addresses exist before systemd starts, as on a real machine."""
        self._store.podman(["init", self.container])
        self._pid = self._inspect_pid()
        plug(self._namespace, self.spec, self.pid, self._topology)
        self._store.podman(["start", self.container])
        self.wait_booted()

    def wait_booted(self, timeout: float = BOOT_SECONDS) -> None:
        """Wait until systemd has started everything. Raise LabError with the failed units and their log if not."""
        state = wait_booted(self.pid, timeout)
        if state == "running":
            return
        failed = run(enter(self.pid, ["systemctl", "--failed", "--plain", "--no-legend"]), check=False).stdout.strip()
        units = [line.split()[0] for line in failed.splitlines()]
        log = [run(enter(self.pid, ["journalctl", "-n20", "-qu", unit]), check=False).stdout for unit in units]
        raise LabError(
            f"{self.name} did not boot cleanly ({state or 'no state'}): {failed or 'no failed unit listed'}\n"
            + "".join(log)
        )

    def shut_down(self, timeout: int = 20) -> None:
        """Shut the node down, and kill it after `timeout` seconds."""
        with self._until_cleaned_up():
            self._store.podman(["stop", "--time", str(timeout), self.container])

    def power_off(self) -> None:
        """Kill the node, as a power failure does: no process on it can clean up."""
        with self._until_cleaned_up():
            self._store.podman(["kill", "--signal", "KILL", self.container])
            self._store.podman(["wait", self.container])

    def reboot(self, *, hard: bool = False) -> None:
        """Reboot the node. Files stay, but /run, /tmp and the state of the kernel are new."""
        if hard:
            self.power_off()
        else:
            self.shut_down()
        self.power_on()

    def is_running(self) -> bool:
        """Return whether the node runs and podman can enter it, which may fail after the machine has slept."""
        self._pid = 0
        entered = ["exec", self.container, "cat", "/proc/1/comm"]
        return self._inspect_pid() > 0 and self._store.podman(entered, check=False).strip() == "systemd"

    @contextmanager
    def _until_cleaned_up(self) -> Iterator[None]:
        """Wait until the stopped node's monitor has ended, because its cleaning up could affect the next boot."""
        monitor = self._inspect_pid("ConmonPid")
        yield
        self._pid = 0
        end = time.monotonic() + BOOT_SECONDS
        while monitor and _lives(monitor):
            if time.monotonic() > end:
                raise LabError(f"{self.name} is off, but its monitor, process {monitor}, does not end")
            time.sleep(0.02)

    def _inspect_pid(self, which: str = "Pid") -> int:
        # without this folder no node runs, and podman would make it again
        if not self._store.run_root.exists():
            return 0
        template = f"{{{{.State.{which}}}}}"
        pid = self._store.podman(
            ["inspect", "--type", "container", "--format", template, self.container], check=False
        ).strip()
        return int(pid or 0)


def _lives(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
