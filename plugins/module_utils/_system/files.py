# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read and write files so that a reader sees the old content or the new content, and never a part of either."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from .._errors import NodeError


class PendingFiles:
    """New files that are written whole beside the old ones and take their places only by :meth:`commit`.

    A full disk shows before anything is replaced.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[str, str]] = []

    def write(self, path: str, text: str) -> None:
        """Write the new content of a file."""
        os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
        write_file(self._add(path), text, sync=True)

    def keep(self, path: str, previous: str) -> None:
        """Keep the present content of a file under another path; do nothing if there is no such file."""
        if os.path.exists(path):
            new = self._add(previous)
            remove_file(new)
            os.link(path, new)

    def link(self, path: str, target: str) -> None:
        """Let a symbolic link point to another target."""
        new = self._add(path)
        remove_file(new)
        os.symlink(target, new)

    def commit(self) -> None:
        """Put the new files in their places, in the order in which they were written."""
        for new, path in self._pending:
            os.replace(new, path)
            sync_directory(os.path.dirname(path))
        self._pending = []

    def abandon(self) -> None:
        """Remove the new files and leave the old ones. Do nothing after :meth:`commit`."""
        for new, _path in self._pending:
            remove_file(new)
        self._pending = []

    def _add(self, path: str) -> str:
        new = f"{path}.new"
        self._pending.append((new, path))
        return new


def write_file(path: str, text: str, sync: bool) -> None:
    """Write a file in place.

    :param sync: whether the content has to be on the disk when this returns.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def replace_file(path: str, text: str, sync: bool) -> None:
    """Write a file beside the old one and put it in its place.

    :param sync: whether the new content has to be on the disk before it takes its place.
    """
    os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
    write_file(f"{path}.new", text, sync)
    os.replace(f"{path}.new", path)


def sync_directory(path: str) -> None:
    """Wait until the names in a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_file(path: str) -> None:
    """Remove a file; do nothing if there is none."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def read_json(path: str, absent: Any, remedy: str = "remove it and run the playbook again") -> Any:
    """Return the content of a JSON file.

    :param absent: what to return if there is no such file.
    :param remedy: what the user can do about a file that is not JSON.
    :raises NodeError: the file cannot be read or is not JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return absent
    except OSError as error:
        raise NodeError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise NodeError(f"{path}: not JSON ({error}); {remedy}") from error
