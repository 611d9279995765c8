# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's files: configuration, settings, runtime state, the addresses that are ours."""

from __future__ import annotations

import json
import os
import re
from contextlib import AbstractContextManager, suppress
from typing import Any, Collection

from .._config.address import Address
from .._config.document import Document, complete
from .._config.model import Configuration
from .._config.settings import Settings, parse_settings
from .._config.stored import parse_stored
from .._config.values import unicast_address
from .._errors import InvalidInput, NodeError
from .._state.runtime import Runtime
from .._state.runtime_json import FORMAT as RUNTIME_FORMAT
from .._state.runtime_json import (
    HEALTH,
    LASTING,
    SINCE_BOOT,
    NewerFormat,
    checked_sections,
    sections_as_json,
    sections_as_written,
)
from .files import NotJson, PendingFiles, read_json, read_sealed, remove_file, replace_file, seal, sync_directory
from .lock import exclusive

FORMAT = 1
"""Version of the configuration file's format."""

DEFAULT_CONFIG_DIR = "/etc/evenflow"

_REMEDY = "restore it from listeners.json.previous beside it, or remove it and run the playbook again"
_VIPS_REMEDY = "remove it, and the addresses that the node no longer needs"
_OWN_FILES = (
    *("listeners.json", "listeners.json.previous", "vips.json", "vips.batch", "runtime.json"),
    *("health.json", "since_boot.json", "applied.json", "unfinished.json"),
)
_INTERFACE = re.compile(r"(?!\.\.?$)[!-.0-9;-~]{1,15}")
"""Names of interfaces: what the kernel takes and ``ip -batch`` reads as one word."""


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
        self._vips_file = os.path.join(self.state_dir, "vips.json")
        # In the order in which they are written: if the health were first, a backend could join without its ramp.
        self._runtime_files = (
            (os.path.join(self.state_dir, "runtime.json"), LASTING),
            (os.path.join(self.run_dir, "since_boot.json"), SINCE_BOOT),
            (os.path.join(self.state_dir, "health.json"), HEALTH),
        )
        self._edited: tuple[Any, Document] | None = None

    def lock(self) -> AbstractContextManager[None]:
        """Keep other programs from changing the node."""
        return exclusive(os.path.join(self.run_dir, "lock"))

    def configuration(self) -> Document:
        """Return the configuration; without a file it is empty. It must not be modified.

        A file that another program has edited, so that its digest differs, is validated like the input of a user.

        :raises NodeError: the file cannot be understood. It is left as it is.
        """
        sealed = read_sealed(self.listeners_file, _REMEDY)
        if sealed is None:
            return {}
        content = sealed.content
        if not isinstance(content, dict) or not isinstance(content.get("listeners"), dict):
            raise NodeError(f"{self.listeners_file}: not a configuration of evenflow; {_REMEDY}")
        if isinstance(content.get("format"), bool) or content.get("format") != FORMAT:
            raise NodeError(
                f"{self.listeners_file}: format {content.get('format')!r} is not {FORMAT}, the one this version reads; "
                "was it written by a newer version?"
            )
        try:
            if sealed.is_intact:
                return {name: complete(name, listener) for name, listener in content["listeners"].items()}
            unknown = sorted(content.keys() - {"format", "digest", "listeners"})
            if unknown:
                raise ValueError(f"unknown keys {unknown}")
            return self._parse_edited(content["listeners"])
        except ValueError as error:
            raise NodeError(f"{self.listeners_file}: {error}; {_REMEDY}") from error

    def _parse_edited(self, listeners: dict[str, Any]) -> Document:
        """Check listeners that another program has written; once, as long as they stay as they are."""
        if self._edited is None or self._edited[0] != listeners:
            self._edited = listeners, parse_stored(listeners)
        return self._edited[1]

    def write_configuration(self, files: PendingFiles, configuration: Configuration) -> None:
        """Write the configuration; its previous version is kept."""
        files.keep(self.listeners_file, f"{self.listeners_file}.previous")
        lines = (f"{json.dumps(name)}: {text}" for name, text in configuration.texts.items())
        files.write(self.listeners_file, seal(FORMAT, '"listeners": {\n' + ",\n".join(lines) + "\n}}\n"))

    def stamp(self) -> Any:
        """Return what differs between any two configuration files; ``None`` if there is none."""
        try:
            status = os.stat(self.listeners_file)
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def settings(self) -> Settings:
        """Return the node's settings; without a file they have their defaults.

        :raises NodeError: the file cannot be understood.
        """
        path = os.path.join(self.config_dir, "node.json")
        try:
            return parse_settings(read_json(path, {}))
        except InvalidInput as error:
            raise NodeError(f"{path}: {error}") from error

    def runtime(self) -> Runtime:
        """Return the runtime state, without the records that are damaged."""
        return self.read_runtime()[0]

    def read_runtime(self) -> tuple[Runtime, list[str]]:
        """Return the runtime state, and a text for each of its records that is damaged and was rejected.

        :raises NodeError: a file cannot be read, or was written by a newer version.
        """
        fields: dict[str, Any] = {}
        rejected: list[str] = []
        for path, sections in self._runtime_files:
            try:
                sealed = read_sealed(path)
                if sealed is None:
                    continue
                read, texts = (sections_as_written if sealed.is_intact else checked_sections)(sealed.content, sections)
                fields.update(read)
                rejected += [f"{path}: {text}; this is ignored" for text in texts]
            except NotJson as error:
                rejected.append(f"{error}; it is ignored")
            except NewerFormat as error:
                raise NodeError(f"{path}: {error}; was it written by a newer version?") from error
        return Runtime(**fields), rejected

    def save_runtime(self, after: Runtime, before: Runtime | None) -> None:
        """Write the runtime state.

        If there are drains, the file is on the disk when this returns. Without drains it is not synced, because
        everything else in it can be learned again.

        :param before: what the files hold; ``None`` if that is not known.
        """
        for path, sections in self._runtime_files:
            if before and all(getattr(after, name) == getattr(before, name) for name in sections):
                continue
            content = sections_as_json(after, sections)
            body = ",\n".join(f'"{name}": {json.dumps(section)}' for name, section in content.items())
            has_drains = "drains" in content and bool(after.drains or before is None or before.drains)
            replace_file(path, seal(RUNTIME_FORMAT, f"{body}}}\n"), sync=has_drains)
            if has_drains and (before is None or after.drains != before.drains):
                sync_directory(os.path.dirname(path))

    def vips(self) -> list[Address]:
        """Return the addresses that we put on interfaces.

        :raises NodeError: the file cannot be understood.
        """
        entries = read_json(self._vips_file, [])
        if not isinstance(entries, list):
            raise NodeError(f"{self._vips_file}: {entries!r:.80} is not a list of addresses; {_VIPS_REMEDY}")
        return [self._vip(entry) for entry in entries]

    def _vip(self, entry: Any) -> Address:
        is_complete = isinstance(entry, dict) and entry.keys() == {"interface", "address"}
        if not is_complete or not all(isinstance(value, str) for value in entry.values()):
            raise NodeError(f"{self._vips_file}: {entry!r:.80} is not an interface and an address; {_VIPS_REMEDY}")
        try:
            is_canonical = unicast_address(entry["address"]) == entry["address"]
        except ValueError:
            is_canonical = False
        if not is_canonical:
            raise NodeError(f"{self._vips_file}: address: {entry['address']!r:.80} is not an address; {_VIPS_REMEDY}")
        if not _INTERFACE.fullmatch(entry["interface"]):
            raise NodeError(
                f"{self._vips_file}: interface: {entry['interface']!r:.80} is not the name of an interface; "
                f"{_VIPS_REMEDY}"
            )
        return Address(entry["interface"], entry["address"])

    def save_vips(self, owned: Collection[Address]) -> None:
        """Write which addresses are ours. They are on the disk when this returns."""
        ours = sorted(owned, key=lambda address: (address.interface, address.address))
        entries = [{"interface": address.interface, "address": address.address} for address in ours]
        replace_file(self._vips_file, json.dumps(entries, indent=1) + "\n", sync=True)
        sync_directory(self.state_dir)

    def remove_leftovers(self) -> None:
        """Remove the new files of a change that died before they took their places."""
        new = {f"{name}.new" for name in _OWN_FILES}
        for folder in (self.config_dir, self.state_dir, self.run_dir):
            # The agent may not write to the configuration's folder. What stays is overwritten by the next change.
            with suppress(OSError):
                for name in new.intersection(os.listdir(folder)):
                    remove_file(os.path.join(folder, name))

    def read_run(self, name: str) -> Any:
        """Return the content of a file that lasts until the next boot; ``None`` without one."""
        try:
            return read_json(os.path.join(self.run_dir, name), None)
        except NodeError:
            # Only a record of our own: without it the kernel is asked.
            return None

    def remove_run(self, name: str) -> None:
        """Remove a file that lasts until the next boot, if it is there."""
        remove_file(os.path.join(self.run_dir, name))

    def write_run(self, name: str, content: Any) -> None:
        """Write a file that lasts until the next boot."""
        replace_file(os.path.join(self.run_dir, name), json.dumps(content), sync=False)
