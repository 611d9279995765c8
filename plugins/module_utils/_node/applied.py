# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of what was last applied to the kernel, with which a run that changes nothing need not read the table."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from typing import Any, Dict

from .._config.address import Address
from .._config.derived import Derived
from .._config.model import Configuration
from .._config.settings import Settings
from .._nft import live_table, runner
from .._nft.desired_table import desired_table
from .._nft.objects import LiveTable
from .._nft.static_rules import rules_digest
from .._state.runtime import Runtime
from .._system.store import Store

Snapshot = Dict[str, Any]
"""Everything that the live table follows from, and the kernel's generation when it was applied, as JSON can hold it."""

_NAME = "applied.json"
_SO_NETNS_COOKIE = 71


class Applied:
    """The record of one node. It lasts until the next boot, as the table does."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def exists(self) -> bool:
        """Whether anything has been applied since the last boot."""
        return self._store.read_run(_NAME) is not None

    def equals(self, snapshot: Snapshot) -> bool:
        """Return whether the record is this snapshot."""
        return bool(self._store.read_run(_NAME) == snapshot)

    def save(self, snapshot: Snapshot) -> None:
        """Write the record, unless another program's transaction came after ours: then the kernel has to be read."""
        if runner.generation() == snapshot["generation"] and not self.equals(snapshot):
            self._store.write_run(_NAME, snapshot)

    def read_table(
        self,
        snapshot: Snapshot,
        effective_before: Configuration,
        settings: Settings,
        runtime_before: Runtime,
        owned: frozenset[Address],
        derived: Derived,
    ) -> LiveTable | None:
        """Return the live table: computed if no program has changed nftables since we did, else read from the kernel.

        :param snapshot: of the configuration, settings, runtime state and owned addresses, and of the kernel's present
            generation.
        """
        if not self.equals(snapshot):
            return live_table.read_table()
        vips = {vip.address for vip in owned}
        return desired_table(effective_before, settings, vips, runtime_before, derived).as_live()


def take_snapshot(
    fingerprint: str, settings: Settings, runtime: Runtime, owned: frozenset[Address], generation: int
) -> Snapshot:
    """Return the snapshot of a configuration that is applied.

    :param fingerprint: of the configuration.
    :param generation: the kernel's.
    """
    return {
        "network": _network_namespace(),
        "rules": rules_digest(),
        "generation": generation,
        "fingerprint": fingerprint,
        "settings": asdict(settings),
        "owned": sorted(f"{vip.prefix} {vip.interface}" for vip in owned),
        "runtime": runtime.visible_in_kernel,
    }


def _network_namespace() -> str:
    """Return a name of the network namespace that no other has, before the next boot or after."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            cookie = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8).hex()
        except OSError:
            cookie = "before 5.14"
    return f"{boot} {cookie} {os.stat('/proc/self/ns/net').st_ino}"
