# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's podman store, separate from the store of the machine's user."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")


class LabError(Exception):
    """An operation of the lab failed; the text has the reason and, if possible, what to do."""


def cache_dir() -> Path:
    """Return the project's cache folder, from the environment."""
    chosen = os.environ.get("EVENFLOW_CACHE")
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).absolute() / "evenflow"


class Store:
    """Podman with separate storage, locks and configuration.

    Containers and images are below the cache; what must not outlive a boot is below /run.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self.cache = cache or cache_dir()
        self.folder = self.cache / "lab"
        # podman refuses a run root longer than 50 characters, so it is not below the cache
        self.tag = "evenflow-" + hashlib.sha256(str(self.cache).encode()).hexdigest()[:8]
        self.run_root = Path("/run") / self.tag
        self.wrapper = self.folder / "podman"
        self.systemd_host = Path("/run/systemd/system").is_dir()

    def prepare(self) -> None:
        """Write the configuration and the `podman` wrapper that people and Ansible can call."""
        for folder in (self.folder, self.folder / "tmp", self.folder / "networks"):
            folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "containers.conf"
        write_changed(configuration, self._configuration(), 0o644)
        command = [
            "podman",
            "--root",
            str(self.cache / "podman"),
            "--runroot",
            str(self.run_root),
            "--tmpdir",
            str(self.run_root / "tmp"),
        ]
        write_changed(
            self.wrapper,
            "\n".join(
                [
                    "#!/bin/sh",
                    "# Podman on the lab's own store.",
                    f"CONTAINERS_CONF={_quote(str(configuration))}",
                    f"TMPDIR={_quote(str(self.folder / 'tmp'))}",
                    "export CONTAINERS_CONF TMPDIR",
                    f'exec {" ".join(_quote(word) for word in command)} "$@"',
                    "",
                ]
            ),
            0o755,
        )

    def podman(self, arguments: Sequence[str], *, check: bool = True, timeout: float = 120) -> str:
        """Run one podman command and return its output. Raise LabError if it fails and `check` is set."""
        done = subprocess.run(
            [str(self.wrapper), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise LabError(f"podman {' '.join(arguments)} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def create_options(self) -> list[str]:
        """Return the options of `podman create` that every container of the store needs."""
        # a separate cgroup can be removed again; on a systemd host systemd removes its slices
        return [] if self.systemd_host else ["--cgroup-parent", "/" + self.tag]

    def namespace(self, lab: str) -> str:
        """Return the name of a lab's network namespace, which differs from those of other caches."""
        return f"{self.tag}-{lab}"

    def containers(self, lab: str | None = None) -> list[str]:
        """Return the names of the containers of one lab, or of all labs."""
        label = f"evenflow.lab={lab}" if lab else "evenflow.lab"
        return self.podman(["ps", "--all", "--filter", f"label={label}", "--format", "{{.Names}}"]).split()

    def remove(self, containers: Sequence[str]) -> None:
        """Kill and remove containers, and ignore those that do not exist any more."""
        if containers:
            self.podman(["rm", "--force", "--ignore", "--time", "0", *containers])

    def tidy(self) -> None:
        """Remove what the store has left outside the cache, unless a lab is up or is being brought up."""
        with self.lock("store", wait=False) as alone:
            if alone and not self.containers():
                self._wait_monitors(10)
                self._remove_traces()

    @contextmanager
    def lock(self, name: str, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
        """Hold a lock, which is released also if the process is killed; yield whether it was acquired."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{name}.lock", "w", encoding="ascii") as handle:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def _wait_monitors(self, seconds: float) -> None:
        """Wait for the monitors of removed containers: each runs podman once more after its container has ended."""
        deadline = time.monotonic() + seconds
        while _mentioned_by_a_process(str(self.run_root)) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _remove_traces(self) -> None:
        for folder in sorted(_CGROUP_ROOT.glob(f"*/{self.tag}")) + sorted(_CGROUP_ROOT.glob(self.tag)):
            _remove_cgroup(folder)
        overlay = self.cache / "podman" / "overlay"
        for mount in _mounts_below(self.run_root) + _mounts_at(overlay):
            subprocess.run(["umount", mount], check=False, capture_output=True)
        shutil.rmtree(self.run_root, ignore_errors=True)

    def _configuration(self) -> str:
        manager = "systemd" if self.systemd_host else "cgroupfs"
        # locks in shared memory would be shared with the machine's own podman
        return "\n".join(
            [
                "[containers]",
                'log_driver = "k8s-file"',
                "[engine]",
                'lock_type = "file"',
                'events_logger = "none"',
                f'cgroup_manager = "{manager}"',
                "[network]",
                f'network_config_dir = "{self.folder / "networks"}"',
                "",
            ]
        )


def write_changed(path: Path, text: str, mode: int) -> None:
    """Replace a file only if its text differs, so that a file in use by another process stays whole."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(mode)
    fresh.replace(path)


def _quote(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def _mentioned_by_a_process(text: str) -> bool:
    """Return whether the command line of any process of the machine contains a text."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    return True
            except OSError:
                # the process has ended
                continue
    return False


def _mounts_below(folder: Path) -> list[str]:
    return [point for point in reversed(_mount_points()) if Path(point).is_relative_to(folder)]


def _mounts_at(folder: Path) -> list[str]:
    return [point for point in _mount_points() if point == str(folder)]


def _mount_points() -> list[str]:
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return [line.split()[1].replace("\\040", " ") for line in lines]


def _remove_cgroup(folder: Path) -> None:
    """Remove a cgroup and its children, except those that still have processes."""
    for parent, _children, _files in os.walk(folder, topdown=False):
        try:
            os.rmdir(parent)
        except OSError:
            continue
