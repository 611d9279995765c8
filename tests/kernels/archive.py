# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write archives that the kernel unpacks as its first file system: cpio in the format "newc"."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """A folder or file of an archive."""

    name: str
    mode: int
    data: bytes = b""


def folder_entries(source: Path, name: str, ignored: Iterable[str] = ("__pycache__",)) -> Iterator[Entry]:
    """Yield the entries of a folder with all that it holds, as folder `name`."""
    yield Entry(name, stat.S_IFDIR | 0o755)
    for path in sorted(source.iterdir()):
        if path.name in ignored:
            continue
        if path.is_dir():
            yield from folder_entries(path, f"{name}/{path.name}", ignored)
        else:
            yield file_entry(path, f"{name}/{path.name}")


def file_entry(source: Path, name: str) -> Entry:
    """Return the entry of a file, as file `name` with the permissions of `source`."""
    return Entry(name, stat.S_IFREG | stat.S_IMODE(source.stat().st_mode), source.read_bytes())


def archive(entries: Iterable[Entry]) -> bytes:
    """Return an archive that belongs to root. Folders of an entry's path that no entry names are made."""
    parts, folders = [], set()
    for entry in entries:
        for parent in reversed(Path(entry.name).parents[:-1]):
            if str(parent) not in folders:
                folders.add(str(parent))
                parts.append(_packed(Entry(str(parent), stat.S_IFDIR | 0o755)))
        if entry.name not in folders:
            parts.append(_packed(entry))
        if stat.S_ISDIR(entry.mode):
            folders.add(entry.name)
    return b"".join([*parts, _packed(Entry("TRAILER!!!", 0))])


def _packed(entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    # inode, mode, uid, gid, links, time, size, four device numbers, length of the name, checksum
    fields = (0, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
