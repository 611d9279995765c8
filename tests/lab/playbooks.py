# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run ansible-playbook without its start-up: a process that has loaded Ansible forks for each run.

Loading Ansible takes half of the time of a run with one task, and tests make hundreds of runs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from select import select
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from .store import LabError

_PROGRAM = "ansible-playbook"
_END_SECONDS = 10.0


class Playbooks:
    """Runs of ansible-playbook in one environment, also several at once. `scratch` is a folder for their outputs."""

    def __init__(self, environment: Mapping[str, str], scratch: Path) -> None:
        self._environment = dict(environment)
        self._scratch = scratch
        self._idle: list[_Loaded] = []
        self._lock = Lock()

    def run(self, arguments: Sequence[str], folder: Path, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run ansible-playbook in a folder and return its result. Raise TimeoutExpired after `timeout` seconds."""
        with self._lock:
            loaded = self._idle.pop() if self._idle else _Loaded(self._environment)
        try:
            with TemporaryDirectory(dir=self._scratch) as name:
                files = [Path(name, stream) for stream in ("stdout", "stderr")]
                status = loaded.run(arguments, folder, files, timeout)
                stdout, stderr = (file.read_text(encoding="utf-8", errors="replace") for file in files)
        except BaseException:
            loaded.end()
            raise
        with self._lock:
            self._idle.append(loaded)
        return subprocess.CompletedProcess([_PROGRAM, *arguments], status, stdout, stderr)


class _Loaded:
    """A process that has loaded Ansible. It ends with this process, which holds the other end of its input."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env=dict(environment),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._child = 0

    def run(self, arguments: Sequence[str], folder: Path, files: Sequence[Path], timeout: float) -> int:
        request = {"arguments": list(arguments), "folder": str(folder), "files": [str(file) for file in files]}
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._child = self._read_number()
        if not select([self._process.stdout], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired([_PROGRAM, *arguments], timeout)
        status = self._read_number()
        self._child = 0
        return status

    def _read_number(self) -> int:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise LabError(f"{_PROGRAM} could not be loaded, or its process ended; its errors are above")
        return int(line)

    def end(self) -> None:
        """End the process, and its current run if there is one."""
        assert self._process.stdin and self._process.stdout
        if self._child:
            with suppress(ProcessLookupError):
                # Ansible passes the signal on to its workers, which have sessions of their own
                os.kill(self._child, signal.SIGTERM)
                if not select([self._process.stdout], [], [], _END_SECONDS)[0]:
                    os.kill(self._child, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()


def _serve() -> None:
    # load what every run needs; each run reads the collection again
    import ansible.executor.module_common
    import ansible.executor.playbook_executor
    import ansible.plugins.strategy.linear  # noqa: F401
    from ansible.cli.playbook import PlaybookCLI

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(_play(PlaybookCLI, request))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _play(command: Any, request: dict[str, Any]) -> int:
    """Run the playbook in this process and return its exit status."""
    os.setsid()
    os.chdir(request["folder"])
    for descriptor, path in [(0, os.devnull), *zip((1, 2), request["files"])]:
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), descriptor)
    try:
        command.cli_executor([_PROGRAM, *request["arguments"]])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    _serve()
