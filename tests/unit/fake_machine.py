# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine whose kernel is in memory and whose files are real."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.address import Address, Destination
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.edit import Edit, checked, with_listeners
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.validation import Faults, parse_listeners
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import NodeError
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import live_table, runner
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.desired_table import table
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import LiveTable, content
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.transaction import Transaction
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.node import Node
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.view import NodeView
from ansible_collections.evenflow.l4lb.plugins.module_utils._system import addresses, conntrack
from ansible_collections.evenflow.l4lb.tests.unit.fake_nft import FakeNft, NftRefused


class Machine:
    """A machine with a kernel in memory.

    :ivar nft: its nftables.
    :ivar foreign: transactions of others, which raise the generation too.
    :ivar reads: how often the table was read.
    :ivar addresses: what is on its interfaces.
    :ivar flows: the active flows of each backend id.
    :ivar step: is called before each change of the kernel, with a name for it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = Node(str(folder))
        self.view = NodeView(str(folder))
        self.nft = FakeNft()
        self.foreign = 0
        self.reads = 0
        self.addresses: set[Address] = set()
        self.announced: tuple[Address, ...] = ()
        self.ever_announced: set[Address] = set()
        self.flows: dict[int, int] = {}
        self.flows_to_delete: list[Destination] = []
        self.step: Callable[[str], None] = lambda name: None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the library take this machine for its own."""
        monkeypatch.setattr(live_table, "read_table", self.read_table)
        for name in ("generation", "apply"):
            monkeypatch.setattr(runner, name, getattr(self, name))
        monkeypatch.setattr(addresses, "read", self.read_addresses)
        monkeypatch.setattr(addresses, "added", self.added_addresses)
        monkeypatch.setattr(addresses, "announce", self.announce_addresses)
        monkeypatch.setattr(addresses, "remove", self.remove_addresses)
        monkeypatch.setattr(addresses, "check_interface", lambda name: None)
        for name in ("count", "delete_flows", "delete_unmarked"):
            monkeypatch.setattr(conntrack, name, getattr(self, name))

    def generation(self) -> int:
        """Return the number of transactions."""
        return len(self.nft.runs) + self.foreign

    def read_table(self) -> LiveTable | None:
        """Return the table."""
        self.reads += 1
        return self.nft.found()

    def apply(self, transaction: Transaction) -> int:
        """Run a transaction."""
        self.step("nft")
        try:
            self.nft.run(transaction)
        except NftRefused as error:
            raise NodeError(str(error)) from error
        return 1

    def read_addresses(self, interfaces: set[str]) -> frozenset[Address]:
        """Return the addresses on interfaces."""
        return frozenset(address for address in self.addresses if address.interface in interfaces)

    @contextmanager
    def added_addresses(self, added: Iterable[Address]) -> Iterator[None]:
        """Put addresses on interfaces; they go again if what happens inside fails."""
        for address in added:
            self.step("add address")
            self.addresses.add(address)
        try:
            yield
        except BaseException:
            self.addresses -= set(added)
            raise

    def announce_addresses(self, announced: Iterable[Address]) -> None:
        """Remember what the neighbours were told."""
        self.step("announce")
        self.announced = tuple(announced)
        self.ever_announced |= set(self.announced)

    def remove_addresses(self, removed: Iterable[Address]) -> None:
        """Take addresses off interfaces."""
        for address in removed:
            self.step("remove address")
            self.addresses.discard(address)

    def count(self, marks: Collection[int] = ()) -> dict[int, int]:
        """Return the active flows of each backend id."""
        return {mark: flows for mark, flows in self.flows.items() if not marks or mark in marks}

    def delete_flows(self, fates: Mapping[int, str]) -> None:
        """Delete the flows of backends."""
        for mark in fates:
            self.step("delete flows")
            self.flows.pop(mark, None)

    def delete_unmarked(self, destinations: Iterable[Destination]) -> int:
        """Remember whose unmarked flows were to be deleted."""
        for destination in destinations:
            self.step("delete unmarked flows")
            self.flows_to_delete.append(destination)
        return 0

    def files(self) -> dict[str, bytes]:
        """Return all files, links among them by their target; the lock is none."""
        return {
            str(path): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            for path in self.folder.rglob("*")
            if path.name != "lock" and (path.is_symlink() or path.is_file())
        }

    def assert_holds(self, wanted: Document) -> None:
        """Fail if the kernel or the file does not hold a configuration."""
        expected = table(Configuration.from_document(wanted), Settings()).as_live()
        found = self.nft.found()
        assert found is not None
        assert found.chains == expected.chains
        assert {name: one.elements for name, one in found.sets.items()} == {
            name: content(one.elements) for name, one in expected.sets.items()
        }
        assert self.view.configuration() == wanted

    def boot_ruleset(self) -> str:
        """Return the text that nft loads at boot."""
        folder = self.folder / "state" / "restore" / "current"
        head = (folder / "main.nft").read_text("utf-8").splitlines()
        assert head[-1] == f'include "{folder}/parts/*.nft"'
        parts = [path.read_text("ascii") for path in sorted((folder / "parts").iterdir())]
        return "".join(f"{line}\n" for line in head[:-1]) + "".join(parts)


def put(*items: dict[str, Any], purge: str = "none") -> Edit:
    """Return the edit that a task with listeners asks for."""
    faults = Faults()
    return checked(partial(with_listeners, items=parse_listeners(list(items), faults), purge=purge), faults)
