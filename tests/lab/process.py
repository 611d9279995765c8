# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run commands to their end or in the background, in a node's namespaces or in the machine's."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

SLOWNESS = float(os.environ.get("EVENFLOW_SLOWNESS", "1"))
"""How many times longer than usual everything may take: a virtual machine without hardware support is slow."""

_ENVIRONMENT = {
    "EVENFLOW_SLOWNESS": str(SLOWNESS),
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": os.environ.get("TERM", "dumb"),
}


@dataclass(frozen=True)
class Result:
    """The exit status and the output of a command."""

    args: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class CommandFailed(Exception):
    """A command ended with a status other than 0."""

    def __init__(self, result: Result) -> None:
        self.result = result
        message = result.stderr.strip() or result.stdout.strip()
        super().__init__(f"{' '.join(result.args)} ended with {result.returncode}: {message}")


class Background(subprocess.Popen[str]):
    """A running command with text pipes, or with `output`, a file for its output and errors.

    Signals reach every process that the command started, also in a node.
    """

    def __init__(self, arguments: Sequence[str], *, stdin: bool = False, output: IO[str] | None = None) -> None:
        super().__init__(
            list(arguments),
            text=True,
            start_new_session=True,
            env=_ENVIRONMENT,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=output or subprocess.PIPE,
            stderr=subprocess.STDOUT if output else subprocess.PIPE,
        )

    def send_signal(self, sig: int) -> None:
        """Signal the whole group: nsenter only waits for the child that does the work."""
        try:
            os.killpg(self.pid, sig)
        except ProcessLookupError:
            pass


def enter(pid: int, arguments: Sequence[str], *, only_network: bool = False) -> list[str]:
    """Return the argument list that runs `arguments` in the namespaces of process `pid`."""
    which = ["--net"] if only_network else ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
    return ["nsenter", "--target", str(pid), *which, "--", *arguments]


def run(arguments: Sequence[str], *, input: str | None = None, check: bool = True, timeout: float = 60) -> Result:
    """Run a command to its end. Raise CommandFailed if it fails and `check` is set, TimeoutExpired if it is late."""
    process = Background(arguments, stdin=input is not None)
    try:
        stdout, stderr = process.communicate(input, timeout=timeout * SLOWNESS)
    except BaseException:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        raise
    result = Result(tuple(arguments), process.returncode, stdout, stderr)
    if check and result.returncode:
        raise CommandFailed(result)
    return result
