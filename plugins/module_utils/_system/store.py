# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's files: configuration, settings, what boots, what we know of the kernel."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import time
from contextlib import contextmanager, suppress
from typing import Any, Iterable, Iterator

from .._config.address import Address, family
from .._config.document import Document, complete
from .._config.model import Configuration
from .._config.settings import Settings, parse_settings
from .._errors import InvalidInput, NodeError
from .._nft.parts import Part, digest
from .._nft.transaction import Transaction
from .._state.runtime import Runtime

FORMAT = 1
"""Version of the configuration file's format."""

LOCK_TIMEOUT = 120
"""Seconds to wait for others who change the node."""

DEFAULT_CONFIG_DIR = "/etc/evenflow"


class Store:
    """The files of one node.

    State and run-time files are in their usual places for the usual configuration directory, inside any other one.
    """

    def __init__(self, config_dir: str = DEFAULT_CONFIG_DIR) -> None:
        usual = os.path.normpath(config_dir) == DEFAULT_CONFIG_DIR
        self.config_dir = config_dir
        self.state_dir = "/var/lib/evenflow" if usual else os.path.join(config_dir, "state")
        self.run_dir = "/run/evenflow" if usual else os.path.join(config_dir, "run")
        self.listeners_file = os.path.join(config_dir, "listeners.json")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep everybody else from changing the node.

        :raises NodeError: somebody else did not finish within :data:`LOCK_TIMEOUT` seconds.
        """
        path = os.path.join(self.run_dir, "lock")
        deadline = time.monotonic() + LOCK_TIMEOUT
        try:
            os.makedirs(self.run_dir, mode=0o750, exist_ok=True)
            with open(path, "a", encoding="ascii") as file:
                while not _locked(file.fileno()):
                    if time.monotonic() > deadline:
                        raise NodeError(f"{path}: still held by somebody else after {LOCK_TIMEOUT} s")
                    time.sleep(0.02)
                yield
        except OSError as error:
            raise NodeError(f"{error.filename or path}: {error.strerror}") from error

    def configuration(self) -> Document:
        """Read the configuration; without a file it is empty.

        :raises NodeError: the file cannot be understood. It is left as it is.
        """
        found = _read_json(self.listeners_file, {"format": FORMAT, "listeners": {}})
        if not isinstance(found, dict) or not isinstance(found.get("listeners"), dict):
            raise NodeError(f"{self.listeners_file}: not a configuration of evenflow; {_REMEDY}")
        if found.get("format") != FORMAT:
            raise NodeError(
                f"{self.listeners_file}: format {found.get('format')!r} is not {FORMAT}, the one this version reads; "
                "was it written by a newer version?"
            )
        try:
            return {name: complete(name, listener) for name, listener in found["listeners"].items()}
        except ValueError as error:
            raise NodeError(f"{self.listeners_file}: {error}; {_REMEDY}") from error

    def stamp(self) -> Any:
        """Return what differs between any two configuration files; ``None`` if there is none."""
        try:
            found = os.stat(self.listeners_file)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def settings(self) -> Settings:
        """Read the node's settings; without a file they have their defaults.

        :raises NodeError: the file cannot be understood.
        """
        path = os.path.join(self.config_dir, "node.json")
        try:
            return parse_settings(_read_json(path, {}))
        except InvalidInput as error:
            raise NodeError(f"{path}: {error}") from error

    def runtime(self) -> Runtime:
        """Read what the node has learned and begun."""
        lasting = os.path.join(self.state_dir, _LASTING)
        try:
            found = _read_json(lasting, None) or {}
        except NodeError:
            # What checks tell comes again; a drain begins anew.
            found = {}
        since_boot = self.read_run(_SINCE_BOOT) or {}
        return Runtime.from_json({**found, **since_boot} if isinstance(since_boot, dict) else found)

    def save_runtime(self, runtime: Runtime, before: Runtime) -> None:
        """Write what the node has learned and begun.

        :param before: what was written the last time.
        """
        content, old = runtime.as_json(), before.as_json()
        since_boot = {name: content[name] for name in _UNTIL_REBOOT}
        if any(since_boot[name] != old[name] for name in _UNTIL_REBOOT):
            self.write_run(_SINCE_BOOT, since_boot)
        lasting = {name: content[name] for name in content if name not in _UNTIL_REBOOT}
        if any(lasting[name] != old[name] for name in lasting):
            path = os.path.join(self.state_dir, _LASTING)
            os.makedirs(self.state_dir, mode=0o750, exist_ok=True)
            # Checks come again; a deadline has to be the same after a power cut.
            _write(f"{path}.new", json.dumps(lasting), sync=lasting["drains"] != old["drains"])
            os.replace(f"{path}.new", path)

    def vips(self) -> list[Address]:
        """Read which addresses we put on interfaces."""
        found = _read_json(os.path.join(self.state_dir, "vips.json"), [])
        return [Address(entry["interface"], entry["address"]) for entry in found]

    def read_run(self, name: str) -> Any:
        """Read what the node knows of itself until the next boot; ``None`` if nothing is known."""
        try:
            return _read_json(os.path.join(self.run_dir, name), None)
        except NodeError:
            # Only a memory of our own: without it the kernel is asked.
            return None

    def write_run(self, name: str, content: Any) -> None:
        """Remember until the next boot."""
        path = os.path.join(self.run_dir, name)
        os.makedirs(self.run_dir, mode=0o750, exist_ok=True)
        _write(f"{path}.new", json.dumps(content), sync=False)
        os.replace(f"{path}.new", path)

    def change(self) -> Change:
        """Begin a change of the files that matter."""
        return Change(self)


class Change:
    """New files that are written whole beside the old ones first and take their place only by :meth:`commit`.

    A full disk shows before anything is replaced.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: list[tuple[str, str]] = []
        self._restore: str | None = None

    def configuration(self, wanted: Configuration) -> None:
        """Write the configuration; its previous version is kept."""
        if os.path.exists(self._store.listeners_file):
            kept = f"{self._store.listeners_file}.previous"
            self._pending.append((f"{kept}.new", kept))
            _unlink(f"{kept}.new")
            os.link(self._store.listeners_file, f"{kept}.new")
        lines = (f"{json.dumps(name)}: {text}" for name, text in wanted.texts.items())
        text = f'{{"format": {FORMAT}, "listeners": {{\n' + ",\n".join(lines) + "\n}}\n"
        self._write(self._store.listeners_file, text)

    def vips(self, owned: Iterable[Address]) -> None:
        """Write which addresses are ours: for us to know, and for ``ip -batch`` to put back at boot."""
        ours = sorted(owned, key=lambda address: (address.interface, address.address))
        if ours == self._store.vips():
            return
        entries = [{"interface": address.interface, "address": address.address} for address in ours]
        self._write(os.path.join(self._store.state_dir, "vips.json"), json.dumps(entries, indent=1) + "\n")
        lines = [f"address replace {address.prefix} dev {address.interface}{_no_dad(address)}\n" for address in ours]
        self._write(os.path.join(self._store.state_dir, "vips.batch"), "".join(lines))

    def restore(self, parts: list[Part], head: Transaction) -> None:
        """Write the ruleset that ``nft -f`` loads at boot.

        A part that is there from the last time is not computed again, a file of such parts not written again.

        :param head: what comes before all parts.
        """
        base = os.path.join(self._store.state_dir, "restore")
        current = os.path.join(base, "current")
        files = _files(parts)
        old = _listed(os.path.join(current, "parts"))
        if sorted(files) == old:
            return
        self._restore = new = f"{base}/{time.time_ns():x}"
        os.makedirs(os.path.join(new, "parts"), mode=0o750)
        kept = {name.split(".")[0]: os.path.join(current, "parts", name) for name in old}
        for name, its in files.items():
            path = os.path.join(new, "parts", name)
            try:
                os.link(os.path.join(current, "parts", name), path)
            except FileNotFoundError:
                _write_parts(path, its, kept.get(its[0].file))
        _write(os.path.join(new, "main.nft"), f'{head.text()}include "{current}/parts/*.nft"\n', sync=False)

    def commit(self) -> None:
        """Put the new files in their places."""
        for new, path in self._pending:
            os.replace(new, path)
            _sync_directory(os.path.dirname(path))
        self._pending = []
        if self._restore:
            base = os.path.dirname(self._restore)
            # Many small files: one sync of the disk costs less than one for each.
            os.sync()
            link = f"{self._restore}.link"
            os.symlink(os.path.basename(self._restore), link)
            os.replace(link, os.path.join(base, "current"))
            for name in os.listdir(base):
                if name not in ("current", os.path.basename(self._restore)):
                    shutil.rmtree(os.path.join(base, name), ignore_errors=True)
            self._restore = None

    def abandon(self) -> None:
        """Remove the new files; the old ones stand. Does nothing after :meth:`commit`."""
        for new, _path in self._pending:
            _unlink(new)
        if self._restore:
            shutil.rmtree(self._restore, ignore_errors=True)
        self._pending, self._restore = [], None

    def _write(self, path: str, text: str) -> None:
        os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
        new = f"{path}.new"
        self._pending.append((new, path))
        _write(new, text, sync=True)


_LASTING = "runtime.json"
_SINCE_BOOT = "since_boot.json"
_UNTIL_REBOOT = ("shares", "uncounted", "ending")

_REMEDY = "restore it from listeners.json.previous beside it, or remove it and run the playbook again"


def _no_dad(address: Address) -> str:
    return " nodad" if family(address.address) == "6" else ""


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _listed(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []


def _files(parts: list[Part]) -> dict[str, list[Part]]:
    """Return which parts each file has; its name tells its content."""
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(part.file, []).append(part)
    return {f"{file}.{digest(' '.join(map(_label, its)))}.nft": its for file, its in found.items()}


def _write_parts(path: str, parts: list[Part], old: str | None) -> None:
    """Write a file of parts, from the one before it where that has them."""
    kept: dict[str, str] = {}
    if old:
        with open(old, encoding="utf-8") as file:
            _nothing, *found = re.split(r"^# (.+)\n", file.read(), flags=re.MULTILINE)
        kept = dict(zip(found[::2], found[1::2]))
    texts = (f"# {_label(part)}\n{kept.get(_label(part)) or part.write().text()}" for part in parts)
    _write(path, "".join(texts), sync=False)


def _label(part: Part) -> str:
    return f"{part.name} {part.digest}"


def _read_json(path: str, absent: Any) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return absent
    except OSError as error:
        raise NodeError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise NodeError(f"{path}: not JSON ({error}); {_REMEDY}") from error


def _write(path: str, text: str, sync: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
