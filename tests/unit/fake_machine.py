# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node for tests, whose kernel is in memory and whose files are on disk."""

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
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import live_table, runner
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.desired_table import desired_table
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.limits import Bucket
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import LiveTable, content
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.transaction import Transaction
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.node import Node
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.view import NodeView
from ansible_collections.evenflow.l4lb.plugins.module_utils._system import addresses, conntrack
from ansible_collections.evenflow.l4lb.tests.unit.fake_nft import FakeNft, NftRefused


class Machine:
    """A node with a kernel in memory.

    :ivar nft: the nftables of the kernel.
    :ivar foreign: the number of transactions of other programs, which also raise the generation.
    :ivar reads: the number of times that the table was read.
    :ivar addresses: the addresses on the interfaces of the node.
    :ivar flows: the active flows of each backend id.
    :ivar step: a function that is called with a name before each change of the kernel.
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
        self.asked: dict[Any, int] = {}
        self.flows_to_delete: list[Destination] = []
        self.step: Callable[[str], None] = lambda name: None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replace the library's access to the kernel by this one."""
        monkeypatch.setattr(live_table, "read_table", self.read_table)
        monkeypatch.setattr(live_table, "read_buckets", self.read_buckets)
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
        """Return the number of transactions that the kernel has applied."""
        return len(self.nft.runs) + self.foreign

    def read_table(self) -> LiveTable | None:
        """Return the live table, or ``None``."""
        self.reads += 1
        return self.nft.read_table()

    def read_buckets(self, names: Iterable[str]) -> dict[tuple[str, Any], Bucket]:
        """Return the buckets in sets; the number of flows that asked for a place is in :attr:`asked`, by key."""
        sets = self.nft.table.sets if self.nft.table else {}
        return {
            (name, key): Bucket(int(element.statement.split()[-2]), self.asked.get(key, 0))
            for name in names
            if name in sets
            for key, element in sets[name].elements.items()
        }

    def apply(self, transaction: Transaction) -> int:
        """Apply a transaction to the kernel."""
        self.step("nft")
        try:
            self.nft.run(transaction)
        except NftRefused as error:
            raise runner.NftFailed(str(error)) from error
        return 1

    def read_addresses(self, interfaces: set[str]) -> frozenset[Address]:
        """Return the addresses on interfaces."""
        return frozenset(address for address in self.addresses if address.interface in interfaces)

    @contextmanager
    def added_addresses(self, added: Iterable[Address]) -> Iterator[None]:
        """Add addresses to interfaces, and remove them again if the body of the ``with`` statement fails."""
        for address in added:
            self.step("add address")
            self.addresses.add(address)
        try:
            yield
        except BaseException:
            self.addresses -= set(added)
            raise

    def announce_addresses(self, announced: Iterable[Address]) -> None:
        """Record the addresses that were announced to the neighbours."""
        self.step("announce")
        self.announced = tuple(announced)
        self.ever_announced |= set(self.announced)

    def remove_addresses(self, removed: Iterable[Address]) -> None:
        """Remove addresses from interfaces."""
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
        """Record the destinations whose unmarked flows were to be deleted."""
        for destination in destinations:
            self.step("delete unmarked flows")
            self.flows_to_delete.append(destination)
        return 0

    def files(self) -> dict[str, bytes]:
        """Return the content of all files but the lock, and the target of each link."""
        return {
            str(path): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            for path in self.folder.rglob("*")
            if path.name != "lock" and (path.is_symlink() or path.is_file())
        }

    def assert_holds(self, desired: Document) -> None:
        """Fail if the kernel or the configuration file differs from a configuration."""
        expected = desired_table(Configuration.from_document(desired), Settings()).as_live()
        live = self.nft.read_table()
        assert live is not None
        assert live.chains == expected.chains
        assert {name: each.elements for name, each in live.sets.items()} == {
            name: content(each.elements) for name, each in expected.sets.items()
        }
        assert self.view.configuration() == desired

    def boot_ruleset(self) -> str:
        """Return the ruleset that nft loads at boot."""
        folder = self.folder / "state" / "restore" / "current"
        head = (folder / "main.nft").read_text("utf-8").splitlines()
        assert head[-1] == f'include "{folder}/parts/*.nft"'
        parts = [path.read_text("ascii") for path in sorted((folder / "parts").iterdir())]
        return "".join(f"{line}\n" for line in head[:-1]) + "".join(parts)


def put(*items: dict[str, Any], purge: str = "none") -> Edit:
    """Return the edit that a task with these listeners makes."""
    faults = Faults()
    return checked(partial(with_listeners, items=parse_listeners(list(items), faults), purge=purge), faults)
