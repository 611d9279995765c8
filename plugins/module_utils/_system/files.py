# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read and write files so that a reader sees the old content or the new content, and never a part of either."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from itertools import groupby
from typing import Any, NamedTuple

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
        """Put the new files in their places, in the order in which they were written, also on the disk."""
        for folder, group in groupby(self._pending, key=lambda pending: os.path.dirname(pending[1])):
            for new, path in group:
                os.replace(new, path)
            sync_directory(folder)
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
    :raises NodeError: the file cannot be written; the disk is full, for instance.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise NodeError(f"{path}: {error.strerror}") from error


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


class NotJson(NodeError):
    """A file is not JSON."""


class Sealed(NamedTuple):
    """The content of a JSON file that names its own digest.

    :ivar is_intact: whether the file is as this library has written it, so that the content need not be checked.
    """

    content: Any
    is_intact: bool


def read_json(path: str, absent: Any, remedy: str = "remove it and run the playbook again") -> Any:
    """Return the content of a JSON file.

    :param absent: what to return if there is no such file.
    :param remedy: what the user can do about a file that is not JSON.
    :raises NotJson: the file is not JSON.
    :raises NodeError: the file cannot be read.
    """
    raw = _read(path)
    return absent if raw is None else _parse(path, raw, remedy)


def read_sealed(path: str, remedy: str = "remove it and run the playbook again") -> Sealed | None:
    """Return the content of a file that :func:`seal` has given its text; ``None`` if there is no such file.

    :raises NotJson: the file is not JSON.
    :raises NodeError: the file cannot be read.
    """
    raw = _read(path)
    if raw is None:
        return None
    content = _parse(path, raw, remedy)
    head, _newline, body = raw.partition(b"\n")
    format_ = content.get("format") if isinstance(content, dict) else None
    return Sealed(content, isinstance(format_, int) and head == _seal(format_, body))


def seal(format_: int, body: str) -> str:
    """Return the text of a JSON file that names its format and its own digest in its first line.

    :param body: the rest of the file: the other keys, and the closing brace.
    """
    raw = body.encode("utf-8")
    return f"{_seal(format_, raw).decode('ascii')}\n{body}"


def _seal(format_: int, body: bytes) -> bytes:
    digest = hashlib.blake2b(body, digest_size=16).hexdigest()
    return f'{{"format": {format_}, "digest": "{digest}",'.encode("ascii")


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NodeError(f"{path}: {error.strerror}") from error


def _parse(path: str, raw: bytes, remedy: str) -> Any:
    try:
        return json.loads(raw)
    except (RecursionError, ValueError) as error:
        raise NotJson(f"{path}: not JSON ({error}); {remedy}") from error
