# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node from end to end: real files, a kernel in memory."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.evenflow.l4lb.plugins.module_utils import _addresses, _kernel
from ansible_collections.evenflow.l4lb.plugins.module_utils._edit import Edit, checked, with_listeners, without_listener
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import ConditionNotMet, InvalidInput, NodeError
from ansible_collections.evenflow.l4lb.plugins.module_utils._model import Configuration, Document, Settings, fingerprint
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import FoundTable, Transaction
from ansible_collections.evenflow.l4lb.plugins.module_utils._node import Node
from ansible_collections.evenflow.l4lb.plugins.module_utils._plan import Address, content
from ansible_collections.evenflow.l4lb.plugins.module_utils._ruleset import table
from ansible_collections.evenflow.l4lb.plugins.module_utils._validation import Faults, parse_listeners
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP, backend, document, listener
from ansible_collections.evenflow.l4lb.tests.unit.fake_nft import FakeNft, NftRefused

WEB = listener("web", backend("198.19.0.1"), backend("198.19.0.2"))
API = listener("api", backend("198.19.0.1"), ports=["443"], scheduler="wrr")


class Machine:
    """A machine with a kernel in memory.

    :ivar nft: its nftables.
    :ivar foreign: transactions of others, which raise the generation too.
    :ivar reads: how often the table was read.
    :ivar addresses: what is on its interfaces.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = Node(str(folder))
        self.nft = FakeNft()
        self.foreign = 0
        self.reads = 0
        self.addresses: set[Address] = set()
        self.announced: tuple[Address, ...] = ()

    def generation(self) -> int:
        """Return the number of transactions."""
        return len(self.nft.runs) + self.foreign

    def read_table(self) -> FoundTable | None:
        """Return the table."""
        self.reads += 1
        return self.nft.found()

    def apply(self, transaction: Transaction) -> None:
        """Run a transaction."""
        try:
            self.nft.run(transaction)
        except NftRefused as error:
            raise NodeError(str(error)) from error

    def read_addresses(self, interfaces: set[str]) -> frozenset[Address]:
        """Return the addresses on interfaces."""
        return frozenset(address for address in self.addresses if address.interface in interfaces)

    @contextmanager
    def added_addresses(self, added: Any) -> Iterator[None]:
        """Put addresses on interfaces; they go again if what happens inside fails."""
        self.addresses |= set(added)
        try:
            yield
        except BaseException:
            self.addresses -= set(added)
            raise

    def announce_addresses(self, announced: Any) -> None:
        """Remember what the neighbours were told."""
        self.announced = tuple(announced)

    def remove_addresses(self, removed: Any) -> None:
        """Take addresses off interfaces."""
        self.addresses -= set(removed)

    def files(self) -> dict[str, bytes]:
        """Return all files, links among them by their target; the lock is none."""
        return {
            str(path): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            for path in self.folder.rglob("*")
            if path.name != "lock" and (path.is_symlink() or path.is_file())
        }

    def assert_holds(self, wanted: Document) -> None:
        """Fail if the kernel or the file does not hold a configuration."""
        expected = table(Configuration.from_document(wanted), Settings()).as_found()
        found = self.nft.found()
        assert found is not None
        assert found.chains == expected.chains
        assert {name: one.elements for name, one in found.sets.items()} == {
            name: content(one.elements) for name, one in expected.sets.items()
        }
        assert self.node.configuration() == wanted


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine that the library takes for its own."""
    found = Machine(tmp_path / "etc")
    for name in ("generation", "read_table", "apply"):
        monkeypatch.setattr(_kernel, name, getattr(found, name))
    monkeypatch.setattr(_addresses, "read", found.read_addresses)
    monkeypatch.setattr(_addresses, "added", found.added_addresses)
    monkeypatch.setattr(_addresses, "announce", found.announce_addresses)
    monkeypatch.setattr(_addresses, "remove", found.remove_addresses)
    monkeypatch.setattr(_addresses, "check_interface", lambda name: None)
    return found


def put(*items: dict[str, Any], purge: str = "none") -> Edit:
    """Return the edit that a task with listeners asks for."""
    faults = Faults()
    return checked(partial(with_listeners, items=parse_listeners(list(items), faults), purge=purge), faults)


def weight(number: int) -> Edit:
    """Return the edit that gives a backend of web another weight."""
    return put({"name": "web", "backends": [{"address": "198.19.0.1", "weight": number}]})


class TestChange:
    def test_first_run_then_nothing(self, machine: Machine) -> None:
        """Row 3: the second run writes nothing at all."""
        first = machine.node.change(put(WEB, API))
        assert first.changed
        machine.assert_holds(document(WEB, API))
        files, stamps = machine.files(), {name: os.stat(name).st_mtime_ns for name in machine.files()}
        second = machine.node.change(put(WEB, API))
        assert not second.changed
        assert machine.files() == files
        assert {name: os.stat(name).st_mtime_ns for name in files} == stamps
        assert len(machine.nft.runs) == 1

    def test_a_no_op_does_not_read_the_table(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        assert machine.reads == 1
        machine.node.change(put(WEB))
        machine.node.change(weight(5))
        assert machine.reads == 1

    def test_somebody_elses_transaction_makes_it_read_again(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        machine.foreign += 1
        assert not machine.node.change(put(WEB)).changed
        assert machine.reads == 2
        machine.node.change(put(WEB))
        assert machine.reads == 2

    def test_a_lost_table_comes_back_and_counts_as_changed(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        machine.nft.run("delete table inet evenflow")
        done = machine.node.change(put(WEB))
        assert done.changed
        assert not done.difference
        machine.assert_holds(document(WEB))

    def test_a_foreign_transaction_during_ours_is_not_taken_for_ours(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def apply_and_disturb(transaction: Transaction) -> None:
            machine.apply(transaction)
            machine.nft.run("add element inet evenflow vips4 { 198.18.0.99 }")

        monkeypatch.setattr(_kernel, "apply", apply_and_disturb)
        machine.node.change(put(WEB))
        monkeypatch.setattr(_kernel, "apply", machine.apply)
        assert machine.node.change(put(WEB)).changed
        machine.assert_holds(document(WEB))

    def test_a_broken_memory_is_no_trouble(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        (machine.folder / "run" / "applied.json").write_text("{", encoding="ascii")
        assert not machine.node.change(put(WEB)).changed
        assert machine.reads == 2

    def test_another_seed_changes_the_kernel(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        (machine.folder / "node.json").write_text('{"hash_seed": 1}', encoding="ascii")
        done = machine.node.change(put(WEB))
        assert done.changed
        assert {statement.split()[4] for statement in done.plan.transaction.statements} == {"slots_web", "l_web"}

    def test_the_boot_files_are_the_kernels_state(self, machine: Machine) -> None:
        for edit in (put(WEB, API), weight(0), partial(without_listener, name="api")):
            machine.node.change(edit)
            reborn = FakeNft()
            folder = machine.folder / "state" / "restore" / "current"
            head = (folder / "main.nft").read_text("utf-8").splitlines()
            assert head[-1] == f'include "{folder}/parts/*.nft"'
            parts = [path.read_text("ascii") for path in sorted((folder / "parts").iterdir())]
            reborn.run("".join(f"{line}\n" for line in head[:-1]) + "".join(parts))
            assert reborn.found() == machine.nft.found()


class TestCheckMode:
    @pytest.mark.parametrize(
        "edit", [put(WEB, API), weight(7), put(WEB), partial(without_listener, name="web"), put(API, purge="all")]
    )
    def test_it_says_what_the_real_run_does_and_writes_nothing(self, machine: Machine, edit: Edit) -> None:
        """Row 4."""
        machine.node.change(put(WEB))
        files, runs = machine.files(), len(machine.nft.runs)
        said = machine.node.change(edit, check=True)
        assert (machine.files(), len(machine.nft.runs)) == (files, runs)
        done = machine.node.change(edit)
        assert (said.changed, said.difference, said.after) == (done.changed, done.difference, done.after)
        assert said.plan.transaction.statements == done.plan.transaction.statements
        assert not machine.node.change(edit).changed
        assert not machine.node.change(edit, check=True).changed

    def test_an_empty_node_stays_empty(self, machine: Machine) -> None:
        assert machine.node.change(put(WEB), check=True).changed
        assert not machine.folder.exists()

    def test_rendering_reads_no_kernel(self, machine: Machine) -> None:
        machine.node.change(put(API))
        files, reads = machine.files(), machine.reads
        outcome = machine.node.render(put(WEB))
        assert (outcome.before, outcome.after) == ({}, document(WEB))
        fresh = FakeNft()
        fresh.run(outcome.plan.transaction)
        assert (machine.files(), machine.reads) == (files, reads)


class TestRefused:
    def test_the_second_of_two_writers_with_one_fingerprint(self, machine: Machine) -> None:
        """Row 2."""
        machine.node.change(put(WEB))
        known = fingerprint(machine.node.configuration())
        machine.node.change(weight(7), expected=known)
        files, runs = machine.files(), len(machine.nft.runs)
        with pytest.raises(ConditionNotMet, match="^conditionNotMet: fingerprint: "):
            machine.node.change(weight(9), expected=known)
        assert (machine.files(), len(machine.nft.runs)) == (files, runs)
        assert machine.node.configuration()["web"]["backends"][0]["weight"] == 7

    def test_bad_input(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        files, runs = machine.files(), len(machine.nft.runs)
        with pytest.raises(InvalidInput):
            machine.node.change(put({"name": "web", "protocol": "udp"}))
        assert (machine.files(), len(machine.nft.runs)) == (files, runs)

    def test_the_kernel_refuses(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        """Row 42: neither the file nor the boot files change."""
        machine.node.change(put(WEB))
        files = machine.files()

        def refuse(_transaction: Transaction) -> None:
            raise NodeError("no")

        monkeypatch.setattr(_kernel, "apply", refuse)
        with pytest.raises(NodeError, match="^no$"):
            machine.node.change(put(API))
        assert machine.files() == files
        monkeypatch.setattr(_kernel, "apply", machine.apply)
        assert not machine.node.change(put(WEB)).changed

    @pytest.mark.parametrize(
        "content", ["", "{", "null", '{"format": 2, "listeners": {}}', '{"format": 1, "listeners": {"web": {}}}']
    )
    def test_a_configuration_that_cannot_be_understood(self, machine: Machine, content: str) -> None:
        """Row 49: the kernel keeps what it has, nothing is overwritten."""
        machine.node.change(put(WEB))
        (machine.folder / "listeners.json").write_text(content, encoding="ascii")
        files, held = machine.files(), machine.nft.found()
        with pytest.raises(NodeError, match="listeners.json: "):
            machine.node.change(put(API))
        assert machine.files() == files
        assert machine.nft.found() == held

    @pytest.mark.parametrize("call", ["open", "fsync", "link", "copy2"])
    def test_a_full_disk_at_any_point(self, machine: Machine, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        """Row 49: a clear error, and the kernel and the file tell the same."""
        machine.node.change(put(WEB))
        files, held = machine.files(), machine.nft.found()
        place: Any = shutil if call == "copy2" else os
        original = getattr(place, call)
        calls: list[Any] = []

        def full(path: Any, *arguments: Any, **options: Any) -> Any:
            calls.append(path)
            # A directory is opened to be synced, not to be written.
            if isinstance(path, str) and os.path.isdir(path):
                return original(path, *arguments, **options)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path if isinstance(path, str) else None)

        monkeypatch.setattr(place, call, full)
        try:
            outcome = machine.node.change(put(API))
        except NodeError as error:
            assert os.strerror(errno.ENOSPC) in str(error)
            monkeypatch.undo()
            assert machine.files() == files
            assert machine.nft.found() == held
        else:
            monkeypatch.undo()
            assert outcome.changed
            assert not calls


class TestVips:
    def test_put_on_an_interface_remembered_and_taken_off(self, machine: Machine) -> None:
        machine.folder.mkdir()
        (machine.folder / "node.json").write_text('{"vip_mode": "address", "vip_interface": "lan"}', encoding="ascii")
        ours, foreign = Address("lan", VIP), Address("lan", "198.18.0.77")
        machine.addresses = {foreign}
        assert machine.node.change(put(WEB)).changed
        assert machine.addresses == {ours, foreign}
        assert machine.announced == (ours,)
        assert not machine.node.change(put(WEB)).changed
        machine.addresses.remove(ours)
        assert machine.node.change(put(WEB), check=True).plan.add == (ours,)
        assert machine.node.change(put(WEB)).changed
        machine.node.change(partial(without_listener, name="web"))
        assert machine.addresses == {foreign}
