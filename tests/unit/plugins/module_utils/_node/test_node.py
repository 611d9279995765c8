# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node from end to end: real files, a kernel in memory."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.least_conn_loop import LeastConnLoop
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.address import Address, Destination
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import fingerprint
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.edit import (
    Edit,
    without_listener,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.ports import PortRange
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import ConditionNotMet, InvalidInput, NodeError
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import live_table, runner
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.desired_table import desired_table
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import Element, content
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.transaction import Transaction
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import Health, HealthState
from ansible_collections.evenflow.l4lb.plugins.module_utils._system import conntrack
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP, backend, check, document, listener
from ansible_collections.evenflow.l4lb.tests.unit.fake_machine import Machine, put
from ansible_collections.evenflow.l4lb.tests.unit.fake_nft import FakeNft

WEB = listener("web", backend("198.19.0.1"), backend("198.19.0.2"))
API = listener("api", backend("198.19.0.1"), ports=["443"], scheduler="wrr")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine that the library takes for its own."""
    found = Machine(tmp_path / "etc")
    found.install(monkeypatch)
    return found


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
        def apply_and_disturb(transaction: Transaction) -> int:
            done = machine.apply(transaction)
            machine.nft.run("add element inet evenflow vips4 { 198.18.0.99 }")
            return done

        monkeypatch.setattr(runner, "apply", apply_and_disturb)
        machine.node.change(put(WEB))
        monkeypatch.setattr(runner, "apply", machine.apply)
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
        assert {statement.split()[4] for statement in done.plan.transaction.lines()} == {"slots_web", "l_web"}

    def test_the_boot_files_are_the_kernels_state(self, machine: Machine) -> None:
        for edit in (put(WEB, API), weight(0), partial(without_listener, name="api")):
            machine.node.change(edit)
            reborn = FakeNft()
            reborn.run(machine.boot_ruleset())
            assert reborn.found() == machine.nft.found()


class TestCheckResults:
    WEB = {**listener("web", backend("198.19.0.1"), backend("198.19.0.2")), "health_check": check()}
    KEYS = ("web/198.19.0.1/0", "web/198.19.0.2/0")

    def test_a_result_that_changes_a_state_is_left_to_the_reconciliation(self, machine: Machine) -> None:
        machine.node.change(put(self.WEB))
        healthy = {key: Health(HealthState.HEALTHY, 1.0, message="ok") for key in self.KEYS}
        machine.node.reconcile(healthy, save=False)
        latest = {
            self.KEYS[0]: replace(healthy[self.KEYS[0]], message="slow"),
            self.KEYS[1]: Health(HealthState.UNHEALTHY, 2.0, message="refused"),
        }
        machine.node.save_check_results(latest)
        assert machine.view.runtime().health == {**healthy, self.KEYS[0]: latest[self.KEYS[0]]}
        outcome = machine.node.reconcile(latest, save=False)
        assert outcome.changed and not outcome.repairs
        assert machine.view.runtime().health == latest


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
        assert (said.changed, said.difference, said.config_after) == (done.changed, done.difference, done.config_after)
        assert said.plan.transaction.lines() == done.plan.transaction.lines()
        assert not machine.node.change(edit).changed
        assert not machine.node.change(edit, check=True).changed

    def test_an_empty_node_stays_empty(self, machine: Machine) -> None:
        assert machine.node.change(put(WEB), check=True).changed
        assert not machine.folder.exists()

    def test_rendering_reads_no_kernel(self, machine: Machine) -> None:
        machine.node.change(put(API))
        files, reads = machine.files(), machine.reads
        outcome = machine.node.render(put(WEB))
        assert (outcome.config_before, outcome.config_after) == ({}, document(WEB))
        fresh = FakeNft()
        fresh.run(outcome.plan.transaction)
        assert (machine.files(), machine.reads) == (files, reads)


class TestRefused:
    def test_the_second_of_two_writers_with_one_fingerprint(self, machine: Machine) -> None:
        """Row 2."""
        machine.node.change(put(WEB))
        known = fingerprint(machine.view.configuration())
        machine.node.change(weight(7), expected=known)
        files, runs = machine.files(), len(machine.nft.runs)
        with pytest.raises(ConditionNotMet, match="^conditionNotMet: fingerprint: "):
            machine.node.change(weight(9), expected=known)
        assert (machine.files(), len(machine.nft.runs)) == (files, runs)
        assert machine.view.configuration()["web"]["backends"][0]["weight"] == 7

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

        monkeypatch.setattr(runner, "apply", refuse)
        with pytest.raises(NodeError, match="^no$"):
            machine.node.change(put(API))
        assert machine.files() == files
        monkeypatch.setattr(runner, "apply", machine.apply)
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
            # A directory is opened to be synced or searched, not to be written.
            if call == "open" and not arguments[0] & os.O_CREAT:
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


class TestAppeared:
    """Flows that the kernel knows from before their listener came are to be scheduled too."""

    def test_only_what_nobody_served_before(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        assert machine.flows_to_delete == [Destination(VIP, "tcp", PortRange(80, 80))]
        machine.flows_to_delete.clear()
        machine.node.change(put({**WEB, "ports": ["80", "90-99"]}, API))
        assert machine.flows_to_delete == [
            Destination(VIP, "tcp", PortRange(443, 443)),
            Destination(VIP, "tcp", PortRange(90, 99)),
        ]

    def test_nothing_where_nothing_changes(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        machine.flows_to_delete.clear()
        machine.node.change(put(WEB))
        machine.node.change(weight(7))
        machine.node.change(put({**WEB, "admin_state": "disabled"}))
        assert machine.flows_to_delete == []

    def test_all_after_the_table_was_lost(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        machine.nft.table = None
        machine.foreign += 1
        machine.flows_to_delete.clear()
        machine.node.change(put(WEB))
        assert machine.flows_to_delete == [Destination(VIP, "tcp", PortRange(80, 80))]


class TestShareLoop:
    LC = listener("web", backend("198.19.0.1"), backend("198.19.0.2"), scheduler="lc")

    @pytest.fixture
    def loop(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> LeastConnLoop:
        """The loop of the machine, on which no flow lives yet."""
        self.active: dict[int, int] = {}
        monkeypatch.setattr(conntrack, "count", lambda: self.active)
        monkeypatch.setattr(live_table, "read_counters", lambda name: {})
        return LeastConnLoop(machine.node)

    def slots(self, machine: Machine) -> Counter[int]:
        """Count each backend's slots."""
        found = machine.nft.found()
        assert found is not None
        return Counter(content(found.sets["slots_web"].elements).values())

    def test_it_deals_by_load_and_changes_only_slots(self, machine: Machine, loop: LeastConnLoop) -> None:
        machine.node.change(put(self.LC, API))
        one, two = sorted(self.slots(machine))
        assert not loop.tick()
        self.active[one] = 100
        assert loop.tick()
        assert self.slots(machine) == {two: 256}
        assert {statement.split()[4] for statement in machine.nft.runs[-1]} == {"slots_web"}
        assert not loop.tick()

    def test_a_run_of_a_module_keeps_what_was_dealt_and_reads_nothing(
        self, machine: Machine, loop: LeastConnLoop
    ) -> None:
        machine.node.change(put(self.LC))
        self.active[min(self.slots(machine))] = 100
        assert loop.tick()
        dealt, machine.reads = self.slots(machine), 0
        assert not machine.node.change(put(self.LC)).changed
        machine.node.change(put(API))
        assert (self.slots(machine), machine.reads) == (dealt, 0)

    def test_another_pool_has_its_own_shares(self, machine: Machine, loop: LeastConnLoop) -> None:
        machine.node.change(put(self.LC))
        self.active[min(self.slots(machine))] = 100
        loop.tick()
        machine.node.change(put({**self.LC, "backends": [*self.LC["backends"], backend("198.19.0.3")]}))
        assert sorted(self.slots(machine).values()) == [85, 85, 86]
        loop.tick()
        assert sorted(self.slots(machine).values()) == [128, 128]

    def test_somebody_elses_transaction_is_not_taken_for_its_own(self, machine: Machine, loop: LeastConnLoop) -> None:
        machine.node.change(put(self.LC))
        self.active[min(self.slots(machine))] = 100
        machine.foreign += 1
        loop.tick()
        machine.reads = 0
        machine.node.change(put(self.LC))
        assert machine.reads == 1

    def test_a_lost_table_is_told(self, machine: Machine, loop: LeastConnLoop) -> None:
        machine.node.change(put(self.LC))
        self.active[min(self.slots(machine))] = 100
        machine.nft.table = None
        with pytest.raises(NodeError):
            loop.tick()

    def test_without_such_listeners_nothing_is_counted(
        self, machine: Machine, loop: LeastConnLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine.node.change(put(WEB))
        monkeypatch.setattr(conntrack, "count", None)
        assert not loop.tick()


class TestLimits:
    LIMITED = listener("web", backend("198.19.0.1", max_connections=5), backend("198.19.0.2"))

    @pytest.fixture(autouse=True)
    def two_flows(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every backend has two flows."""
        self.alive = 2
        monkeypatch.setattr(conntrack, "count", lambda: dict.fromkeys(self.marks(machine), self.alive))

    def marks(self, machine: Machine) -> set[int]:
        """Return the ids of the backends of web."""
        present = Configuration.from_document(machine.view.configuration())
        return set(content(desired_table(present, Settings()).sets["acct_new"].elements))

    def limit(self, machine: Machine) -> Any:
        """Return what the one limit's element says."""
        found = machine.nft.found()
        assert found is not None
        return list(content(found.sets["limit_backend"].elements).values())

    def edit(self, limit: int) -> Edit:
        """Return the edit that gives the first backend another limit."""
        return put({"name": "web", "backends": [{"address": "198.19.0.1", "max_connections": limit}]})

    def test_an_edited_limit_is_lower_by_the_flows_that_live(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        assert self.limit(machine) == [Element("ct count over 5")]
        machine.node.change(self.edit(4))
        assert self.limit(machine) == [Element("ct count over 2")]
        machine.reads = 0
        assert not machine.node.change(self.edit(4)).changed
        assert not machine.node.change(self.edit(4)).changed
        assert machine.reads == 0
        machine.node.change(weight(7))
        assert self.limit(machine) == [Element("ct count over 2")]

    def test_it_is_whole_again_once_they_have_ended(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        machine.node.change(self.edit(4))
        self.alive = 0
        assert machine.node.change(self.edit(4)).changed
        assert self.limit(machine) == [Element("ct count over 4")]
        assert not machine.node.change(self.edit(4)).changed

    def test_it_is_whole_at_the_next_boot(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        machine.node.change(self.edit(4))
        parts = machine.folder / "state" / "restore" / "current" / "parts"
        written = "".join(path.read_text("ascii") for path in parts.iterdir())
        assert "ct count over 4" in written
        assert "ct count over 2" not in written

    def test_a_table_that_was_lost_counts_anew(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        machine.nft.table, machine.foreign = None, machine.foreign + 1
        machine.node.change(put(self.LIMITED))
        assert self.limit(machine) == [Element("ct count over 3")]
