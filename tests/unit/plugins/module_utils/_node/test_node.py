# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of a node as a whole, with real files and a kernel in memory."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterator
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
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.limits import Bucket
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import Element, content
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.transaction import Transaction
from ansible_collections.evenflow.l4lb.plugins.module_utils._node import agent_status
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import Health, HealthState
from ansible_collections.evenflow.l4lb.plugins.module_utils._system import conntrack
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.store import Store
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP, backend, check, document, listener
from ansible_collections.evenflow.l4lb.tests.unit.fake_machine import Machine, put
from ansible_collections.evenflow.l4lb.tests.unit.fake_nft import FakeNft

B1 = "198.19.0.1"
WEB = listener("web", backend("198.19.0.1"), backend("198.19.0.2"))
API = listener("api", backend("198.19.0.1"), ports=["443"], scheduler="wrr")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a fake machine that the library uses as the kernel."""
    fake = Machine(tmp_path / "etc")
    fake.install(monkeypatch)
    return fake


def weight(number: int) -> Edit:
    """Return the edit that changes the weight of the first backend of web."""
    return put({"name": "web", "backends": [{"address": "198.19.0.1", "weight": number}]})


class TestChange:
    def test_the_second_run_changes_nothing(self, machine: Machine) -> None:
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

    def test_a_known_table_is_not_read_again(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        assert machine.reads == 1
        machine.node.change(put(WEB))
        machine.node.change(weight(5))
        assert machine.reads == 1

    def test_a_foreign_transaction_causes_a_read_of_the_table(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        machine.foreign += 1
        assert not machine.node.change(put(WEB)).changed
        assert machine.reads == 2
        machine.node.change(put(WEB))
        assert machine.reads == 2

    def test_a_lost_table_is_restored_and_counts_as_changed(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        machine.nft.run("delete table inet evenflow")
        done = machine.node.change(put(WEB))
        assert done.changed
        assert not done.difference
        machine.assert_holds(document(WEB))

    def test_a_table_that_cannot_be_repaired_is_replaced_in_one_transaction(self, machine: Machine) -> None:
        """A prefix that another program has added to an interval map has no text with which it could be deleted."""
        machine.node.change(put(WEB))
        for edit in (put(WEB), weight(7)):
            assert machine.nft.table is not None
            machine.nft.table.sets["ranges4"].elements['{"prefix": {"addr": "10.0.0.0", "len": 8}}'] = "drop"
            machine.foreign += 1
            runs = len(machine.nft.runs)
            outcome = machine.node.change(edit)
            machine.assert_holds(outcome.config_after)
            assert len(machine.nft.runs) == runs + 1 and machine.nft.runs[-1][0] == "delete table inet evenflow"
            assert outcome.repairs == ["the table inet evenflow could not be changed any more; it is built anew"]
            assert not machine.node.change(edit).changed
        assert not [name for name in machine.files() if name.endswith(".new")]

    def test_a_refusal_without_a_foreign_change_does_not_replace_the_table(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine.node.change(put(WEB))
        refused: list[Transaction] = []

        def refuse(transaction: Transaction) -> int:
            refused.append(transaction)
            raise runner.NftFailed("File exists")

        monkeypatch.setattr(runner, "apply", refuse)
        with pytest.raises(NodeError, match="File exists"):
            machine.node.change(weight(7))
        assert len(refused) == 1
        machine.foreign += 1
        with pytest.raises(NodeError, match="File exists"):
            machine.node.change(weight(7))
        assert len(refused) == 3

    def test_a_dormant_table_is_woken(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        assert machine.nft.table is not None
        machine.nft.table.is_dormant, machine.foreign = True, machine.foreign + 1
        outcome = machine.node.change(put(WEB))
        assert outcome.changed and not machine.nft.table.is_dormant
        assert [line.split(" {")[0] for line in machine.nft.runs[-1]] == ["add table inet evenflow"]
        assert outcome.repairs == ["the table inet evenflow was dormant; it is awake"]
        assert not machine.node.change(put(WEB)).changed

    def test_a_foreign_transaction_during_a_change_is_noticed(
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

    def test_a_damaged_applied_file_causes_a_read_of_the_table(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        (machine.folder / "run" / "applied.json").write_text("{", encoding="ascii")
        assert not machine.node.change(put(WEB)).changed
        assert machine.reads == 2

    def test_another_hash_seed_changes_the_table(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        (machine.folder / "node.json").write_text('{"hash_seed": 1}', encoding="ascii")
        done = machine.node.change(put(WEB))
        assert done.changed
        assert {statement.split()[4] for statement in done.plan.transaction.lines()} == {"slots_web", "l_web"}

    def test_the_boot_files_restore_the_live_table(self, machine: Machine) -> None:
        for edit in (put(WEB, API), weight(0), partial(without_listener, name="api")):
            machine.node.change(edit)
            booted = FakeNft()
            booted.run(machine.boot_ruleset())
            assert booted.read_table() == machine.nft.read_table()


class TestCheckResults:
    WEB = {**listener("web", backend("198.19.0.1"), backend("198.19.0.2")), "health_check": check()}
    KEYS = ("web/198.19.0.1/0", "web/198.19.0.2/0")

    def test_a_changed_health_state_is_saved_by_the_reconciliation_only(self, machine: Machine) -> None:
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


class TestClock:
    def test_deadlines_move_with_a_clock_that_is_set_back(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        drained = machine.node.change(put({"name": "web", "backends": [{"address": B1, "admin_state": "drained"}]}))
        machine.node.set_clock_back(drained.runtime_after, 100)
        machine.reads = 0
        outcome = machine.node.reconcile({}, save=False)
        assert not outcome.changed and machine.reads == 0
        (before,), (after,) = (each.drains.values() for each in (drained.runtime_after, outcome.runtime_after))
        assert before.deadline and after == replace(before, since=before.since - 100, deadline=before.deadline - 100)


class TestCheckMode:
    @pytest.mark.parametrize(
        "edit", [put(WEB, API), weight(7), put(WEB), partial(without_listener, name="web"), put(API, purge="all")]
    )
    def test_check_mode_equals_the_real_run_and_writes_nothing(self, machine: Machine, edit: Edit) -> None:
        """Row 4."""
        machine.node.change(put(WEB))
        files, runs = machine.files(), len(machine.nft.runs)
        checked = machine.node.change(edit, check=True)
        assert (machine.files(), len(machine.nft.runs)) == (files, runs)
        outcome = machine.node.change(edit)
        assert (checked.changed, checked.difference, checked.config_after) == (
            outcome.changed,
            outcome.difference,
            outcome.config_after,
        )
        assert checked.plan.transaction.lines() == outcome.plan.transaction.lines()
        assert not machine.node.change(edit).changed
        assert not machine.node.change(edit, check=True).changed

    def test_an_empty_node_stays_empty(self, machine: Machine) -> None:
        assert machine.node.change(put(WEB), check=True).changed
        assert not machine.folder.exists()

    def test_rendering_does_not_read_the_kernel(self, machine: Machine) -> None:
        machine.node.change(put(API))
        files, reads = machine.files(), machine.reads
        outcome = machine.node.render(put(WEB))
        assert (outcome.config_before, outcome.config_after) == ({}, document(WEB))
        fresh = FakeNft()
        fresh.run(outcome.plan.transaction)
        assert (machine.files(), machine.reads) == (files, reads)


class TestRefused:
    def test_the_second_of_two_writers_with_the_same_fingerprint_fails(self, machine: Machine) -> None:
        """Row 2."""
        machine.node.change(put(WEB))
        expected = fingerprint(machine.view.configuration())
        machine.node.change(weight(7), expected=expected)
        files, runs = machine.files(), len(machine.nft.runs)
        with pytest.raises(ConditionNotMet, match="^conditionNotMet: fingerprint: "):
            machine.node.change(weight(9), expected=expected)
        assert (machine.files(), len(machine.nft.runs)) == (files, runs)
        assert machine.view.configuration()["web"]["backends"][0]["weight"] == 7

    def test_invalid_input_changes_nothing(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        files, runs = machine.files(), len(machine.nft.runs)
        with pytest.raises(InvalidInput):
            machine.node.change(put({"name": "web", "protocol": "udp"}))
        assert (machine.files(), len(machine.nft.runs)) == (files, runs)

    def test_a_refusal_of_the_kernel_changes_no_file(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
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
    def test_an_unreadable_configuration_stops_a_change(self, machine: Machine, content: str) -> None:
        """Row 49: the kernel keeps what it has, nothing is overwritten."""
        machine.node.change(put(WEB))
        (machine.folder / "listeners.json").write_text(content, encoding="ascii")
        files, held = machine.files(), machine.nft.read_table()
        with pytest.raises(NodeError, match="listeners.json: "):
            machine.node.change(put(API))
        assert machine.files() == files
        assert machine.nft.read_table() == held

    @pytest.mark.parametrize("call", ["open", "fsync", "link", "copy2"])
    def test_a_full_disk_at_any_point(self, machine: Machine, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        """Row 49: the error is clear, and the kernel and the file agree."""
        machine.node.change(put(WEB))
        files, held = machine.files(), machine.nft.read_table()
        place: Any = shutil if call == "copy2" else os
        original = getattr(place, call)
        calls: list[Any] = []

        def full(path: Any, *arguments: Any, **options: Any) -> Any:
            calls.append(path)
            # Directories are opened for syncing or listing only, which needs no free space.
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
            assert machine.nft.read_table() == held
        else:
            monkeypatch.undo()
            assert outcome.changed
            assert not calls


class TestVips:
    def test_vips_are_added_remembered_and_removed(self, machine: Machine) -> None:
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
    """Flows that are older than the listener are deleted, so that they are scheduled."""

    def test_only_destinations_that_were_not_served_before(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        assert machine.flows_to_delete == [Destination(VIP, "tcp", PortRange(80, 80))]
        machine.flows_to_delete.clear()
        machine.node.change(put({**WEB, "ports": ["80", "90-99"]}, API))
        assert machine.flows_to_delete == [
            Destination(VIP, "tcp", PortRange(443, 443)),
            Destination(VIP, "tcp", PortRange(90, 99)),
        ]

    def test_unchanged_destinations_keep_their_flows(self, machine: Machine) -> None:
        machine.node.change(put(WEB))
        machine.flows_to_delete.clear()
        machine.node.change(put(WEB))
        machine.node.change(weight(7))
        machine.node.change(put({**WEB, "admin_state": "disabled"}))
        assert machine.flows_to_delete == []

    def test_all_destinations_after_the_table_was_lost(self, machine: Machine) -> None:
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
        """Return the least-connections loop of a machine without flows."""
        self.active: dict[int, int] = {}
        monkeypatch.setattr(conntrack, "count", lambda: self.active)
        monkeypatch.setattr(live_table, "read_counters", lambda name: {})
        return LeastConnLoop(machine.node)

    def slots(self, machine: Machine) -> Counter[int]:
        """Return the number of slots of each backend."""
        live = machine.nft.read_table()
        assert live is not None
        return Counter(content(live.sets["slots_web"].elements).values())

    def test_slots_follow_the_load_and_nothing_else_changes(self, machine: Machine, loop: LeastConnLoop) -> None:
        machine.node.change(put(self.LC, API))
        first, second = sorted(self.slots(machine))
        assert not loop.tick()
        self.active[first] = 100
        assert loop.tick()
        assert self.slots(machine) == {second: 256}
        assert {statement.split()[4] for statement in machine.nft.runs[-1]} == {"slots_web"}
        assert not loop.tick()

    def test_a_module_run_keeps_the_shares_and_does_not_read_the_table(
        self, machine: Machine, loop: LeastConnLoop
    ) -> None:
        machine.node.change(put(self.LC))
        self.active[min(self.slots(machine))] = 100
        assert loop.tick()
        dealt, machine.reads = self.slots(machine), 0
        assert not machine.node.change(put(self.LC)).changed
        machine.node.change(put(API))
        assert (self.slots(machine), machine.reads) == (dealt, 0)

    def test_a_changed_pool_gets_new_shares(self, machine: Machine, loop: LeastConnLoop) -> None:
        machine.node.change(put(self.LC))
        self.active[min(self.slots(machine))] = 100
        loop.tick()
        machine.node.change(put({**self.LC, "backends": [*self.LC["backends"], backend("198.19.0.3")]}))
        assert sorted(self.slots(machine).values()) == [85, 85, 86]
        loop.tick()
        assert sorted(self.slots(machine).values()) == [128, 128]

    def test_a_foreign_transaction_before_a_tick_is_noticed(self, machine: Machine, loop: LeastConnLoop) -> None:
        machine.node.change(put(self.LC))
        self.active[min(self.slots(machine))] = 100
        machine.foreign += 1
        loop.tick()
        machine.reads = 0
        machine.node.change(put(self.LC))
        assert machine.reads == 1

    def test_a_lost_table_is_an_error(self, machine: Machine, loop: LeastConnLoop) -> None:
        machine.node.change(put(self.LC))
        self.active[min(self.slots(machine))] = 100
        machine.nft.table = None
        with pytest.raises(NodeError):
            loop.tick()

    def test_flows_are_not_counted_without_least_conn_listeners(
        self, machine: Machine, loop: LeastConnLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine.node.change(put(WEB))
        monkeypatch.setattr(conntrack, "count", None)
        assert not loop.tick()


class TestLimits:
    LIMITED = listener("web", backend("198.19.0.1", max_connections=5), backend("198.19.0.2"))

    @pytest.fixture(autouse=True)
    def two_flows(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give two flows to every backend."""
        self.alive = 2
        monkeypatch.setattr(conntrack, "count", lambda: dict.fromkeys(self.marks(machine), self.alive))

    def marks(self, machine: Machine) -> set[int]:
        """Return the ids of the backends of web."""
        present = Configuration.from_document(machine.view.configuration())
        return set(content(desired_table(present, Settings()).sets["acct_new"].elements))

    def limit(self, machine: Machine) -> Any:
        """Return the values of all elements of ``limit_backend``."""
        live = machine.nft.read_table()
        assert live is not None
        return list(content(live.sets["limit_backend"].elements).values())

    def edit(self, limit: int) -> Edit:
        """Return the edit that changes the limit of the first backend of web."""
        return put({"name": "web", "backends": [{"address": "198.19.0.1", "max_connections": limit}]})

    def test_a_changed_limit_is_reduced_by_existing_flows(self, machine: Machine) -> None:
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

    def test_a_limit_is_complete_after_existing_flows_have_ended(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        machine.node.change(self.edit(4))
        self.alive = 0
        assert machine.node.change(self.edit(4)).changed
        assert self.limit(machine) == [Element("ct count over 4")]
        assert not machine.node.change(self.edit(4)).changed

    def test_a_limit_is_complete_after_the_next_boot(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        machine.node.change(self.edit(4))
        parts = machine.folder / "state" / "restore" / "current" / "parts"
        written = "".join(path.read_text("ascii") for path in parts.iterdir())
        assert "ct count over 4" in written
        assert "ct count over 2" not in written

    def test_limits_of_a_restored_table_are_reduced_by_existing_flows(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        machine.nft.table, machine.foreign = None, machine.foreign + 1
        machine.node.change(put(self.LIMITED))
        assert self.limit(machine) == [Element("ct count over 3")]


class TestPlaces:
    """Limits whose places the agent deals."""

    LIMITED = listener("web", backend("198.19.0.1", max_connections=100), backend("198.19.0.2"), max_connections=1000)

    @pytest.fixture(autouse=True)
    def no_flows(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.active: dict[int, int] = {}
        monkeypatch.setattr(conntrack, "count", lambda: dict(self.active))

    @pytest.fixture
    def agent(self, tmp_path: Path) -> Iterator[None]:
        """Let modules see an agent."""
        with agent_status.held(Store(str(tmp_path / "etc"))):
            yield

    def dealt(self, machine: Machine) -> dict[str, Any]:
        """Return the verdicts that lead to buckets."""
        live = machine.nft.read_table()
        assert live is not None
        return {name: list(content(live.sets[name].elements).values()) for name in ("dealt", "dealt_web")}

    def places(self, machine: Machine) -> list[int]:
        """Return the places that are dealt, the backend's and the listener's."""
        return [bucket.places for bucket in machine.read_buckets(["bucket", "bucket_web"]).values()]

    def buckets(self, machine: Machine) -> dict[str, Bucket]:
        """Return the buckets of the backend, by the names of the sets."""
        return {name: bucket for (name, _key), bucket in machine.read_buckets(["bucket", "spare"]).items()}

    def deal(self, machine: Machine) -> bool:
        return machine.node.deal_places(lambda _limits, _left: True)

    @pytest.mark.usefixtures("agent")
    def test_places_are_dealt_and_taken(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        assert self.deal(machine)
        assert self.dealt(machine) == {"dealt": ["goto places_first"], "dealt_web": ["goto first_web"]}
        assert self.places(machine) == [100, 1000]
        assert self.deal(machine)
        assert self.dealt(machine) == {"dealt": ["goto places_some"], "dealt_web": ["goto some_web"]}
        assert self.places(machine) == [100, 1000]
        assert not self.deal(machine)
        mark = next(iter(content(machine.nft.read_table().sets["bucket"].elements)))  # type: ignore[union-attr]
        machine.asked, self.active = {mark: 120, "ipv4": 140}, {mark: 40}
        assert self.deal(machine)
        assert self.places(machine) == [60, 1000]

    @pytest.mark.usefixtures("agent")
    def test_places_of_ended_flows_go_into_the_other_bucket(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        self.deal(machine)
        self.deal(machine)
        mark = next(iter(content(machine.nft.read_table().sets["bucket"].elements)))  # type: ignore[union-attr]
        machine.asked, self.active = {mark: 70}, {}
        assert self.deal(machine)
        assert self.dealt(machine)["dealt"] == ["goto places_both"]
        machine.asked = {mark: 80}
        assert self.buckets(machine) == {"bucket": Bucket(100, 80), "spare": Bucket(70, 80)}
        assert self.deal(machine)
        assert self.buckets(machine) == {"bucket": Bucket(100, 80), "spare": Bucket(80, 80)}

    @pytest.mark.usefixtures("agent")
    def test_the_smaller_of_two_buckets_is_dealt_anew_at_once(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        self.deal(machine)
        self.deal(machine)
        mark = next(iter(content(machine.nft.read_table().sets["bucket"].elements)))  # type: ignore[union-attr]
        machine.asked = {mark: 40}
        self.deal(machine)
        assert self.buckets(machine) == {"bucket": Bucket(100, 40), "spare": Bucket(40, 40)}
        # 75 places are left in one and 15 in the other, and no flow lives.
        machine.asked = {mark: 25}
        runs = len(machine.nft.runs)
        assert self.deal(machine)
        assert len(machine.nft.runs) == runs + 2
        assert self.buckets(machine) == {"bucket": Bucket(100, 25), "spare": Bucket(25, 25)}
        assert self.dealt(machine)["dealt"] == ["goto places_both"]

    @pytest.mark.usefixtures("agent")
    def test_a_change_of_something_else_leaves_them_and_needs_no_reading(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        self.deal(machine)
        self.deal(machine)
        places, machine.reads = self.places(machine), 0
        commands = machine.node.change(weight(7)).plan.transaction.lines()
        assert not any("bucket" in command or "limit" in command for command in commands)
        assert not machine.node.change(weight(7)).changed
        assert (self.places(machine), machine.reads) == (places, 0)

    @pytest.mark.usefixtures("agent")
    def test_an_edited_limit_and_a_lost_table_are_counted_by_the_kernel_at_first(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        self.deal(machine)
        self.deal(machine)
        mark = next(iter(content(machine.nft.read_table().sets["bucket"].elements)))  # type: ignore[union-attr]
        machine.asked, self.active = {mark: 20}, {mark: 15}
        edit = put({"name": "web", "backends": [{"address": "198.19.0.1", "max_connections": 200}]})
        machine.node.change(edit)
        live = machine.nft.read_table()
        assert live is not None and self.dealt(machine) == {"dealt": [], "dealt_web": ["goto some_web"]}
        # 15 flows live, and 80 places of the bucket were left.
        assert list(content(live.sets["limit_backend"].elements).values()) == [Element("ct count over 105")]
        machine.nft.table = None
        machine.foreign += 1
        machine.node.change(edit)
        assert self.dealt(machine) == {"dealt": [], "dealt_web": []}

    def test_the_kernel_counts_where_the_agent_has_ended(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        self.deal(machine)
        self.deal(machine)
        mark = next(iter(content(machine.nft.read_table().sets["bucket"].elements)))  # type: ignore[union-attr]
        self.active = {mark: 15}
        machine.node.end_dealing()
        live = machine.nft.read_table()
        assert live is not None and self.dealt(machine) == {"dealt": [], "dealt_web": []}
        assert list(content(live.sets["limit_backend"].elements).values()) == [Element("ct count over 85")]
        assert list(content(live.sets["cap_web"].elements).values()) == [Element("ct count over 985")]

    def test_a_table_that_is_not_as_it_was_left_is_not_dealt(self, machine: Machine) -> None:
        machine.node.change(put(self.LIMITED))
        self.deal(machine)
        machine.nft.table = None
        assert not self.deal(machine)
