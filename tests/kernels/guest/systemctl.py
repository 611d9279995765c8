# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start and stop services of a node in a virtual machine, which has no systemd: the verbs and settings that tests use.

systemctl start | stop | restart UNIT
systemctl show --property ActiveState,MainPID UNIT
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

UNITS = Path("/usr/local/lib/systemd/system")
RUN = Path("/run/units")
_SD_LISTEN_FDS_START = 3


def main() -> None:
    verb, name = sys.argv[1], sys.argv[-1]
    unit = Unit(name if "." in name else f"{name}.service")
    if verb in ("stop", "restart"):
        unit.stop()
    if verb in ("start", "restart"):
        unit.start()
    if verb == "show":
        print(f"ActiveState={'active' if unit.pid else 'inactive'}\nMainPID={unit.pid or 0}")
    if verb not in ("start", "stop", "restart", "show"):
        raise SystemExit(__doc__)


class Unit:
    """A service; of the settings of its file only those are read that are named here."""

    def __init__(self, name: str) -> None:
        lines = (UNITS / name).read_text(encoding="utf-8").splitlines()
        pairs = [line.split("=", 1) for line in lines if "=" in line and line[0] not in "#{"]
        self._settings = dict(pairs)
        self._record = RUN / f"{name}.pid"
        self._socket = RUN / f"{name}.socket"

    @property
    def pid(self) -> int | None:
        """Return the process id of the service, or None if it does not run."""
        if not self._record.exists():
            return None
        pid = int(self._record.read_text(encoding="ascii"))
        return pid if Path(f"/proc/{pid}").exists() else None

    def start(self) -> None:
        """Start the service, and wait until it is ready."""
        if self.pid:
            return
        RUN.mkdir(exist_ok=True)
        for name in self._settings.get("Wants", "").split():
            Unit(f"{name.removesuffix('.socket')}.service").start()
        if "RuntimeDirectory" in self._settings:
            Path("/run", self._settings["RuntimeDirectory"]).mkdir(exist_ok=True)
        if "ExecStartPre" in self._settings:
            subprocess.run(shlex.split(self._settings["ExecStartPre"]), check=True)
        command = shlex.split(self._settings["ExecStart"])
        environment = dict(
            os.environ, **dict(word.split("=", 1) for word in self._settings.get("Environment", "").split())
        )
        # A service must not hold the pipes of the command that starts it.
        with open("/dev/console", "w", encoding="utf-8") as console:
            if "Type" not in self._settings:
                self._start_with_socket(command, environment, console)
            elif self._settings["Type"] == "forking":
                subprocess.run(
                    command, check=True, env=environment, stdin=subprocess.DEVNULL, stdout=console, stderr=console
                )
            else:
                self._start_notifying(command, environment, console)

    def _start_with_socket(self, command: list[str], environment: dict[str, str], console: TextIO) -> None:
        """Start a service that systemd would start at the first connection to its socket."""
        path = Path(Unit(f"{self._record.stem.removesuffix('.service')}.socket")._settings["ListenStream"])
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            process = subprocess.Popen(
                command,
                env=environment,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=[_SD_LISTEN_FDS_START],
                preexec_fn=lambda: os.dup2(listening.fileno(), _SD_LISTEN_FDS_START),
            )
        self._record.write_text(str(process.pid), encoding="ascii")

    def _start_notifying(self, command: list[str], environment: dict[str, str], console: TextIO) -> None:
        self._socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.bind(str(self._socket))
            channel.settimeout(0.5)
            process = subprocess.Popen(
                command,
                env={**environment, "NOTIFY_SOCKET": str(self._socket)},
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
            self._record.write_text(str(process.pid), encoding="ascii")
            while not _is_ready(channel):
                if process.poll() is not None:
                    raise SystemExit(f"{self._record.stem} ended with {process.returncode}; the console has its output")

    def stop(self) -> None:
        """End the service, and wait until it has ended."""
        if pid := self.pid:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 300
            while self.pid:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{self._record.stem}: process {pid} does not end")
                time.sleep(0.02)
        self._record.unlink(missing_ok=True)


def _is_ready(channel: socket.socket) -> bool:
    try:
        return b"READY=1" in channel.recv(65536)
    except TimeoutError:
        return False


main()
