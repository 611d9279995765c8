# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the container runtime, and its options, that boots systemd on this machine."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from .process import enter, run
from .store import LabError, Store

_LIMITS = ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=30000:30000")


@dataclass(frozen=True)
class Runtime:
    """A container runtime with its options."""

    program: str
    options: tuple[str, ...]
    init: tuple[str, ...]

    def create_arguments(self, name: str, image: str, options: list[str]) -> list[str]:
        """Return the arguments of podman that create a container that boots systemd as PID 1."""
        return [
            "--runtime",
            self.program,
            "create",
            "--name",
            name,
            "--network",
            "none",
            "--privileged",
            "--systemd",
            "always",
            *self.options,
            *options,
            image,
            *self.init,
        ]


def find_runtime(store: Store, image: str, say: Callable[[str], None]) -> Runtime:
    """Return the first candidate that boots; remember it until the machine changes. Raise LabError if none boots."""
    memory = _memory(store, image)
    machine = [os.uname().release, str(_unified_cgroups()), store.podman(["--version"]).strip()]
    with store.lock("runtime"):
        remembered = _recall(memory, machine)
        if remembered:
            return remembered
        failures = []
        for candidate in _candidates():
            reason = _boot_failure(store, candidate, image)
            if reason is None:
                say(f"container runtime: {' '.join((candidate.program, *candidate.options))}")
                memory.write_text(json.dumps({"machine": machine, "runtime": asdict(candidate)}), encoding="utf-8")
                return candidate
            failures.append(f"{' '.join((candidate.program, *candidate.options))}: {reason}")
    failures = failures or ["neither crun nor runc is installed"]
    raise LabError("no container runtime boots systemd here:\n" + "\n".join(failures))


def forget_runtime(store: Store, image: str) -> None:
    """Forget the remembered runtime, so that the candidates are tried again."""
    _memory(store, image).unlink(missing_ok=True)


def wait_booted(pid: int, timeout: float) -> str:
    """Wait until systemd in the namespaces of process `pid` has finished its start, and return its state.

    Return "" if it takes longer than `timeout` or the process has ended.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
        state = run(enter(pid, ["systemctl", "is-system-running"]), check=False).stdout.strip()
        if state in ("running", "degraded", "maintenance"):
            return state
        time.sleep(0.1)
    return ""


def _candidates() -> list[Runtime]:
    init = ["/sbin/init"]
    if not _unified_cgroups():
        # newer systemd refuses the old hierarchy without this argument, which it reads in a container
        init.append("SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1")
    # on mixed hierarchies crun boots sometimes and sometimes not
    programs = ("crun", "runc") if _unified_cgroups() else ("runc", "crun")
    return [
        Runtime(program, options, tuple(init))
        for program in programs
        if shutil.which(program)
        for options in ((), _LIMITS)
    ]


def _boot_failure(store: Store, candidate: Runtime, image: str) -> str | None:
    """Boot a temporary container and return None if systemd started, otherwise the reason."""
    name = f"evenflow-probe-{os.getpid()}"
    try:
        store.podman(candidate.create_arguments(name, image, ["--label", "evenflow.lab=", *store.create_options()]))
        store.podman(["start", name])
        pid = int(store.podman(["inspect", "--format", "{{.State.Pid}}", name]))
        return None if wait_booted(pid, 20) == "running" else "systemd does not finish its start"
    except LabError as error:
        return str(error)
    finally:
        store.remove([name])


def _memory(store: Store, image: str) -> Path:
    return store.folder / f"runtime.{image.rpartition(':')[2]}.json"


def _recall(memory: Path, machine: list[str]) -> Runtime | None:
    try:
        stored = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if stored.get("machine") != machine:
        return None
    fields = stored["runtime"]
    return Runtime(fields["program"], tuple(fields["options"]), tuple(fields["init"]))


def _unified_cgroups() -> bool:
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()
