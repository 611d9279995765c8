# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's files: configuration, settings, runtime state, the addresses that are ours."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from typing import Any, Iterable

from .._config.address import Address
from .._config.document import Document, complete
from .._config.model import Configuration
from .._config.settings import Settings
from .._errors import NodeError
from .._state.runtime import Runtime
from .files import PendingFiles, read_json, replace_file
from .lock import exclusive

FORMAT = 1
"""Version of the configuration file's format."""

DEFAULT_CONFIG_DIR = "/etc/evenflow"

_REMEDY = "restore it from listeners.json.previous beside it, or remove it and run the playbook again"


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
        self._runtime_file = os.path.join(self.state_dir, "runtime.json")
        self._vips_file = os.path.join(self.state_dir, "vips.json")

    def lock(self) -> AbstractContextManager[None]:
        """Keep other programs from changing the node."""
        return exclusive(os.path.join(self.run_dir, "lock"))

    def configuration(self) -> Document:
        """Return the configuration; without a file it is empty.

        :raises NodeError: the file cannot be understood. It is left as it is.
        """
        content = read_json(self.listeners_file, {"format": FORMAT, "listeners": {}}, _REMEDY)
        if not isinstance(content, dict) or not isinstance(content.get("listeners"), dict):
            raise NodeError(f"{self.listeners_file}: not a configuration of evenflow; {_REMEDY}")
        if content.get("format") != FORMAT:
            raise NodeError(
                f"{self.listeners_file}: format {content.get('format')!r} is not {FORMAT}, the one this version reads; "
                "was it written by a newer version?"
            )
        try:
            return {name: complete(name, listener) for name, listener in content["listeners"].items()}
        except ValueError as error:
            raise NodeError(f"{self.listeners_file}: {error}; {_REMEDY}") from error

    def write_configuration(self, files: PendingFiles, configuration: Configuration) -> None:
        """Write the configuration; its previous version is kept."""
        files.keep(self.listeners_file, f"{self.listeners_file}.previous")
        lines = (f"{json.dumps(name)}: {text}" for name, text in configuration.texts().items())
        files.write(self.listeners_file, f'{{"format": {FORMAT}, "listeners": {{\n' + ",\n".join(lines) + "\n}}\n")

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
            settings = Settings(**read_json(path, {}))
        except TypeError as error:
            raise NodeError(f"{path}: {error}") from error
        if isinstance(settings.hash_seed, bool) or not isinstance(settings.hash_seed, int):
            raise NodeError(f"{path}: hash_seed: {settings.hash_seed!r} is not a whole number")
        if not isinstance(settings.vip_interface, str):
            raise NodeError(f"{path}: vip_interface: {settings.vip_interface!r} is not text")
        if not 0 <= settings.hash_seed <= 0xFFFFFFFF:
            raise NodeError(f"{path}: hash_seed: {settings.hash_seed} is not in 0–4294967295")
        if settings.vip_mode not in ("none", "address"):
            raise NodeError(f"{path}: vip_mode: {settings.vip_mode!r} is not one of none, address")
        if settings.vip_dedicated is not None and not isinstance(settings.vip_dedicated, bool):
            raise NodeError(f"{path}: vip_dedicated: {settings.vip_dedicated!r} is not true, false or null")
        if isinstance(settings.log_group, bool) or not isinstance(settings.log_group, int):
            raise NodeError(f"{path}: log_group: {settings.log_group!r} is not a whole number")
        if not 0 <= settings.log_group <= 65535:
            raise NodeError(f"{path}: log_group: {settings.log_group} is not in 0–65535")
        if settings.vip_mode == "address" and not settings.vip_interface:
            raise NodeError(f"{path}: vip_interface: required with vip_mode address")
        return settings

    def runtime(self) -> Runtime:
        """Return the runtime state."""
        try:
            content = read_json(self._runtime_file, None) or {}
        except NodeError:
            # What checks tell comes again; a drain begins anew.
            content = {}
        since_boot = self.read_run(_SINCE_BOOT) or {}
        return Runtime.from_json({**content, **since_boot} if isinstance(since_boot, dict) else content)

    def save_runtime(self, runtime: Runtime, before: Runtime) -> None:
        """Write the runtime state.

        :param before: what was written the last time.
        """
        content, old = runtime.as_json(), before.as_json()
        since_boot = {name: content[name] for name in _UNTIL_REBOOT}
        if any(since_boot[name] != old[name] for name in _UNTIL_REBOOT):
            self.write_run(_SINCE_BOOT, since_boot)
        lasting = {name: content[name] for name in content if name not in _UNTIL_REBOOT}
        if any(lasting[name] != old[name] for name in lasting):
            # Checks come again; a deadline has to be the same after a power cut.
            replace_file(self._runtime_file, json.dumps(lasting), sync=lasting["drains"] != old["drains"])

    def vips(self) -> list[Address]:
        """Return the addresses that we put on interfaces."""
        entries = read_json(self._vips_file, [])
        return [Address(entry["interface"], entry["address"]) for entry in entries]

    def write_vips(self, files: PendingFiles, owned: Iterable[Address]) -> None:
        """Write which addresses are ours, if they differ from those that are written."""
        ours = sorted(owned, key=lambda address: (address.interface, address.address))
        if ours != self.vips():
            entries = [{"interface": address.interface, "address": address.address} for address in ours]
            files.write(self._vips_file, json.dumps(entries, indent=1) + "\n")

    def read_run(self, name: str) -> Any:
        """Return the content of a file that lasts until the next boot; ``None`` without one."""
        try:
            return read_json(os.path.join(self.run_dir, name), None)
        except NodeError:
            # Only a record of our own: without it the kernel is asked.
            return None

    def write_run(self, name: str, content: Any) -> None:
        """Write a file that lasts until the next boot."""
        replace_file(os.path.join(self.run_dir, name), json.dumps(content), sync=False)


_SINCE_BOOT = "since_boot.json"
_UNTIL_REBOOT = ("shares", "uncounted", "ending")
