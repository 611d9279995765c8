# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node: reads what is, plans, applies, remembers. What modules do to a node, they do through this."""

from __future__ import annotations

import os
import socket
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from . import _addresses, _kernel
from ._difference import Difference, difference
from ._edit import Edit
from ._errors import ConditionNotMet
from ._model import Configuration, Document, Settings, fingerprint
from ._nft import RULES_VERSION, FoundTable, Transaction
from ._plan import TABLE_COMMENT, Address, Live, Plan, parts, plan
from ._ruleset import table
from ._store import DEFAULT_CONFIG_DIR, Change, Store

_SO_NETNS_COOKIE = 71


@dataclass
class Outcome:
    """What a change did, or would do.

    :ivar difference: between the two configurations.
    :ivar plan: what had to be done on the node.
    """

    before: Document
    after: Document
    difference: Difference
    plan: Plan

    @property
    def changed(self) -> bool:
        """Whether the configuration or the node differs from before."""
        return bool(self.difference or self.plan)


class Node:
    """This machine as a load balancer.

    :param config_dir: the directory of its configuration.
    """

    def __init__(self, config_dir: str = DEFAULT_CONFIG_DIR) -> None:
        self._store = Store(config_dir)

    def change(self, edit: Edit, check: bool = False, expected: str | None = None) -> Outcome:
        """Change the configuration and bring the kernel to it, also where only the kernel differs.

        :param edit: gives the configuration after, from the one before.
        :param check: only say what would be done.
        :param expected: fingerprint that the configuration must have.
        :raises InvalidInput: the edit is refused; nothing was changed.
        :raises ConditionNotMet: the configuration has another fingerprint; nothing was changed.
        :raises NodeError: the node could not be read or changed; the last good state stands.
        """
        with nullcontext() if check else self._store.lock():
            before = self._store.configuration()
            found = fingerprint(before)
            if expected is not None and expected != found:
                raise ConditionNotMet(expected, found)
            after = edit(before)
            settings = self._store.settings()
            if settings.vip_mode == "address":
                _addresses.check_interface(settings.vip_interface)
            generation = _kernel.generation()
            live = Live(self._table(before, settings, generation), *self._addresses(settings))
            wanted = plan(Configuration.from_document(after), settings, live)
            outcome = Outcome(before, after, difference(before, after), wanted)
            if not check:
                self._apply(outcome, settings, generation)
            return outcome

    def render(self, edit: Edit) -> Outcome:
        """Say what a node without any listener would be given; nothing is read from the kernel or written."""
        after = edit({})
        wanted = plan(Configuration.from_document(after), self._store.settings(), Live())
        return Outcome({}, after, difference({}, after), wanted)

    def configuration(self) -> Document:
        """Return the configuration as it stands."""
        return self._store.configuration()

    def settings(self) -> Settings:
        """Return the node's own settings."""
        return self._store.settings()

    def _apply(self, outcome: Outcome, settings: Settings, generation: int) -> None:
        memory = self._memory(outcome.after, settings, generation)
        if outcome.changed:
            files = self._store.change()
            try:
                if outcome.difference:
                    files.configuration(outcome.after)
                _boot_files(files, outcome.plan)
                with _addresses.added(outcome.plan.add):
                    if outcome.plan.transaction:
                        _kernel.apply(outcome.plan.transaction)
                        memory["generation"] += 1
                files.commit()
            finally:
                files.abandon()
            _addresses.announce(outcome.plan.add)
            _addresses.remove(outcome.plan.remove)
        # Somebody else's transaction in between would be taken for ours: then remember nothing.
        if _kernel.generation() == memory["generation"] and self._store.read_run("applied.json") != memory:
            self._store.write_run("applied.json", memory)

    def _table(self, before: Document, settings: Settings, generation: int) -> FoundTable | None:
        """Return our table: from memory as long as nobody has touched nftables since we did, else from the kernel."""
        if self._store.read_run("applied.json") == self._memory(before, settings, generation):
            return table(Configuration.from_document(before), settings).as_found()
        return _kernel.read_table()

    def _addresses(self, settings: Settings) -> tuple[frozenset[Address], frozenset[Address]]:
        owned = frozenset(self._store.vips())
        interfaces = {address.interface for address in owned}
        if settings.vip_mode == "address":
            interfaces.add(settings.vip_interface)
        return _addresses.read(interfaces), owned

    def _memory(self, document: Document, settings: Settings, generation: int) -> dict[str, Any]:
        return {
            "network": _network_namespace(),
            "rules": RULES_VERSION,
            "generation": generation,
            "fingerprint": fingerprint(document),
            "settings": asdict(settings),
        }


def _boot_files(files: Change, wanted: Plan) -> None:
    head = Transaction()
    head.add_table(TABLE_COMMENT)
    head.delete_table()
    files.restore(parts(wanted.table), head)
    files.vips(wanted.owned)


def _network_namespace() -> str:
    """Name the network namespace in a way that no other one has, before the next boot or after."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            cookie = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8).hex()
        except OSError:
            cookie = "before 5.14"
    return f"{boot} {cookie} {os.stat('/proc/self/ns/net').st_ino}"
