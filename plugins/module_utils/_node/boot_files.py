# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files that bring the node to its last state at boot without Python: the ruleset for nft, the VIPs for ip."""

from __future__ import annotations

import os
import re
import shutil
import time
from typing import Collection, Mapping

from .._config.address import Address, family
from .._nft.parts import TABLE_COMMENT, Part, digest, parts
from .._nft.plan import Plan
from .._nft.transaction import Transaction
from .._system.files import PendingFiles, remove_file, write_file


class BootFiles:
    """What ``evenflow-restore.service`` and ``evenflow-vips.service`` load.

    The ruleset is a folder of files, most of which a change leaves as they are. A new folder takes the place of the old
    one by a symbolic link, and shares the files that are equal.
    """

    def __init__(self, state_dir: str) -> None:
        self._batch = os.path.join(state_dir, "vips.batch")
        self._base = os.path.join(state_dir, "restore")
        self._current = os.path.join(self._base, "current")

    def are_intact(self, owned: Collection[Address]) -> bool:
        """Return whether the files are as they were written, judged by their sizes.

        :param owned: the addresses that are ours.
        """
        return self._read_main() == self._main(self._sizes()) and (_read(self._batch) or "") == _batch(owned)

    def write(self, files: PendingFiles, plan: Plan) -> None:
        """Write what the node is to be brought to at the next boot."""
        self.write_ruleset(files, parts(plan.boot))
        self.write_vips(files, plan.owned)

    def write_vips(self, files: PendingFiles, owned: Collection[Address]) -> None:
        """Write the addresses that ``ip -batch`` puts on interfaces."""
        text = _batch(owned)
        if text != (_read(self._batch) or ""):
            files.write(self._batch, text)

    def write_ruleset(self, files: PendingFiles, ruleset: list[Part]) -> None:
        """Write the ruleset that ``nft -f`` loads. It is on the disk when this returns, and has no place yet.

        Unchanged parts keep their text, and unchanged files are linked. If a file is damaged, all are written anew.
        """
        by_file, sizes = _by_file(ruleset), self._sizes()
        is_intact = self._read_main() == self._main(sizes)
        if is_intact and by_file.keys() == sizes.keys():
            return
        old = sizes if is_intact else {}
        folder = f"{self._base}/{time.time_ns():x}"
        os.makedirs(os.path.join(folder, "parts"), mode=0o750)
        previous = {name.split(".")[0]: self._part(name) for name in old}
        new_sizes = {}
        for name, content in by_file.items():
            path = os.path.join(folder, "parts", name)
            if name in old:
                os.link(self._part(name), path)
            else:
                _write_parts(path, content, previous.get(content[0].file))
            new_sizes[name] = os.stat(path).st_size
        write_file(os.path.join(folder, "main.nft"), self._main(new_sizes), sync=False)
        # Many small files: one sync of the disk costs less than one for each.
        os.sync()
        files.link(self._current, os.path.basename(folder))

    def remove_unused(self) -> None:
        """Remove all folders but the one that boots."""
        used = {"current"} | ({os.readlink(self._current)} if os.path.islink(self._current) else set())
        for name in _names(self._base):
            path = os.path.join(self._base, name)
            if os.path.islink(path) and name not in used:
                remove_file(path)
            elif name not in used:
                shutil.rmtree(path, ignore_errors=True)

    def _part(self, name: str) -> str:
        return os.path.join(self._current, "parts", name)

    def _sizes(self) -> dict[str, int]:
        """Return the sizes of the files that boot, by name."""
        return {name: os.stat(self._part(name)).st_size for name in _names(self._part(""))}

    def _read_main(self) -> str | None:
        return _read(os.path.join(self._current, "main.nft"))

    def _main(self, sizes: Mapping[str, int]) -> str:
        """Return the text of the file that includes all others; it names their sizes, so that damage shows."""
        head = Transaction()
        head.add_table(TABLE_COMMENT)
        head.delete_table()
        listing = "".join(f"# {name}: {sizes[name]} bytes\n" for name in sorted(sizes))
        return f'{listing}{head.text()}include "{self._current}/parts/*.nft"\n'


def _batch(owned: Collection[Address]) -> str:
    ours = sorted(owned, key=lambda address: (address.interface, address.address))
    return "".join(f"address replace {address.prefix} dev {address.interface}{_no_dad(address)}\n" for address in ours)


def _no_dad(address: Address) -> str:
    return " nodad" if family(address.address) == "6" else ""


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []


def _by_file(ruleset: list[Part]) -> dict[str, list[Part]]:
    """Return the parts of each file, by the file's name, which names its content."""
    groups: dict[str, list[Part]] = {}
    for part in ruleset:
        groups.setdefault(part.file, []).append(part)
    return {f"{file}.{digest(' '.join(map(_label, group)))}.nft": group for file, group in groups.items()}


def _write_parts(path: str, content: list[Part], previous: str | None) -> None:
    """Write a file of parts, with the text from the file before it where that has them."""
    known: dict[str, str] = {}
    if previous:
        with open(previous, encoding="utf-8") as file:
            _before, *pieces = re.split(r"^# (.+)\n", file.read(), flags=re.MULTILINE)
        known = dict(zip(pieces[::2], pieces[1::2]))
    texts = (f"# {_label(part)}\n{known.get(_label(part)) or part.write().text()}" for part in content)
    write_file(path, "".join(texts), sync=False)


def _label(part: Part) -> str:
    return f"{part.name} {part.digest}"
