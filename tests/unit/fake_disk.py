# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a disk still has after a power cut: contents and names that were synced, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Disk:
    """A folder on a disk that writes nothing by itself.

    :ivar contents: of files, by inode.
    :ivar names: in directories: an inode, a link's target, or ``None`` for a directory.
    """

    folder: Path
    contents: dict[int, bytes] = field(default_factory=dict)
    names: dict[str, dict[str, int | str | None]] = field(default_factory=dict)

    def sync(self) -> None:
        """Take everything as written."""
        for folder, _folders, files in os.walk(self.folder):
            self.sync_path(folder)
            for name in files:
                path = os.path.join(folder, name)
                if not os.path.islink(path):
                    self.sync_path(path)

    def sync_path(self, path: str) -> None:
        """Take the content of a file, or the names in a directory, as written."""
        if os.path.isdir(path):
            self.names[path] = {entry.name: _kind(entry) for entry in os.scandir(path)}
        else:
            self.contents[os.stat(path).st_ino] = Path(path).read_bytes()

    def cut_power(self) -> None:
        """Bring the folder to what is written."""
        shutil.rmtree(self.folder)
        self._restore(str(self.folder))

    def _restore(self, folder: str) -> None:
        os.mkdir(folder)
        for name, kind in self.names.get(folder, {}).items():
            path = os.path.join(folder, name)
            if kind is None:
                self._restore(path)
            elif isinstance(kind, str):
                os.symlink(kind, path)
            else:
                Path(path).write_bytes(self.contents.get(kind, b""))


def watch(disk: Disk, step: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every call that changes a file be a step, and every sync reach the disk."""
    for name in ("link", "mkdir", "replace", "rmdir", "symlink", "unlink"):
        monkeypatch.setattr(os, name, _before(name, getattr(os, name), step))
    real_open = os.open

    def open_(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            step(f"create {os.path.basename(str(path))}")
        return real_open(path, flags, *arguments, **options)

    def fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        step(f"fsync {os.path.basename(path)}")
        disk.sync_path(path)

    def sync() -> None:
        step("sync")
        disk.sync()

    for name, function in (("open", open_), ("fsync", fsync), ("sync", sync)):
        monkeypatch.setattr(os, name, function)


def _before(name: str, function: Callable[..., Any], step: Callable[[str], None]) -> Callable[..., Any]:
    def stepped(*arguments: Any, **options: Any) -> Any:
        # A folder that is removed piece by piece is one step: no one looks into it any more.
        if "dir_fd" not in options:
            step(f"{name} {os.path.basename(str(arguments[-1]))}")
        return function(*arguments, **options)

    return stepped


def _kind(entry: os.DirEntry[str]) -> int | str | None:
    if entry.is_symlink():
        return os.readlink(entry.path)
    return None if entry.is_dir() else entry.inode()
