# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the plan: it always leads to the desired table, and with as few statements as possible."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.address import Address
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.identity import backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import transaction
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.desired_table import desired_table
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import LiveTable, Timed, content
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.parts import TABLE_COMMENT, parts
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.plan import Live, Plan, plan
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.static_rules import STATIC_CHAINS
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP, VIP6, backend, configuration, listener
from ansible_collections.evenflow.l4lb.tests.unit.fake_nft import FakeNft, FakeTable
from ansible_collections.evenflow.l4lb.tests.unit.strategies import documents
from hypothesis import example, given
from hypothesis import strategies as st

SETTINGS = Settings()
ONE, TWO, THREE = "198.19.0.1", "198.19.0.2", "198.19.0.3"
WEB = listener("web", backend(ONE), backend(TWO), backend(THREE))
API = listener("api", backend(ONE), backend(TWO), backend(THREE), ports=["443"], scheduler="wrr")


def change(nft: FakeNft, desired: Configuration, settings: Settings = SETTINGS) -> Plan:
    """Plan a change from the live table, run it and return the plan."""
    result = plan(desired, settings, Live(nft.read_table()))
    if result.transaction:
        nft.run(result.transaction)
    return result


def kernel_with(*listeners: dict[str, Any]) -> FakeNft:
    """Return a kernel with the table of some listeners."""
    nft = FakeNft()
    change(nft, configuration(*listeners))
    return nft


def table_of_kernel(nft: FakeNft) -> FakeTable:
    """Return the table of a kernel, which must exist."""
    assert nft.table is not None
    return nft.table


def verb_and_object(statement: str) -> str:
    """Return the verb and the object of a statement without the content."""
    return " ".join(statement.split()[:5])


def assert_holds(nft: FakeNft, desired: Configuration, settings: Settings = SETTINGS) -> None:
    """Fail if the kernel's table differs from the desired table of a configuration."""
    expected = desired_table(desired, settings)
    live = table_of_kernel(nft)
    assert live.comment == TABLE_COMMENT
    assert {name: (each.kind, each.declaration, each.elements) for name, each in live.sets.items()} == {
        name: (each.kind, each.declaration, dict(content(each.elements))) for name, each in expected.sets.items()
    }
    assert live.timeouts == expected.timeouts
    assert {name: (chain.hook, chain.rules) for name, chain in live.chains.items()} == {
        name: (chain.hook, list(zip(chain.rules, chain.comments))) for name, chain in expected.chains.items()
    }


class TestAnyChange:
    @given(documents(), documents(), st.sampled_from([SETTINGS, Settings(hash_seed=1)]))
    @example({}, {}, SETTINGS)
    def test_the_kernel_ends_with_the_table_of_the_configuration(
        self, before: Document, after: Document, settings: Settings
    ) -> None:
        nft, desired = FakeNft(), Configuration.from_document(after)
        change(nft, Configuration.from_document(before))
        assert_holds(nft, Configuration.from_document(before))
        change(nft, desired, settings)
        assert_holds(nft, desired, settings)
        assert not plan(desired, settings, Live(nft.read_table()))
        assert len(nft.runs) <= 2

    @given(documents(), documents())
    def test_a_remembered_table_gives_the_same_plan_as_a_read_one(self, before: Document, after: Document) -> None:
        old, new = Configuration.from_document(before), Configuration.from_document(after)
        nft = FakeNft()
        change(nft, old)
        remembered = plan(new, SETTINGS, Live(desired_table(old, SETTINGS).as_live()))
        assert remembered.transaction.lines() == plan(new, SETTINGS, Live(nft.read_table())).transaction.lines()

    @given(documents())
    def test_an_unchanged_configuration_has_an_empty_plan(self, document: Document) -> None:
        desired = Configuration.from_document(document)
        again = plan(desired, SETTINGS, Live(desired_table(desired, SETTINGS).as_live()))
        assert not again
        assert again.transaction.lines() == []

    @given(documents())
    def test_all_parts_in_order_are_the_first_load(self, document: Document) -> None:
        desired = Configuration.from_document(document)
        desired_parts = parts(desired_table(desired, SETTINGS))
        assert [part.name for part in desired_parts] == sorted(part.name for part in desired_parts)
        nft = FakeNft()
        nft.run("".join(part.write().text() for part in desired_parts))
        assert_holds(nft, desired)
        load = plan(desired, SETTINGS, Live()).transaction
        assert load.text() == "".join(part.write().text() for part in desired_parts)

    @given(documents(), documents())
    def test_parts_with_equal_digests_have_equal_text(self, first: Document, second: Document) -> None:
        written: dict[tuple[str, str], str] = {}
        for document in (first, second):
            for part in parts(desired_table(Configuration.from_document(document), SETTINGS)):
                assert written.setdefault((part.name, part.digest), part.write().text()) == part.write().text()

    def test_changed_slots_change_the_digest_of_a_part(self) -> None:
        lighter = {**WEB, "backends": [backend(ONE, weight=50), backend(TWO), backend(THREE)]}
        digests = [
            {part.name: part.digest for part in parts(desired_table(configuration(web, API), SETTINGS))}
            for web in (WEB, lighter)
        ]
        assert {name for name in digests[0] if digests[0][name] != digests[1][name]} == {"1_web"}


class TestSmallChange:
    def slots(self, nft: FakeNft, name: str) -> dict[int, int]:
        """Return the slots of a listener."""
        return dict(table_of_kernel(nft).sets[f"slots_{name}"].elements)

    def test_a_weight_under_mh_touches_only_the_slots_that_change(self) -> None:
        nft = kernel_with(WEB, API)
        before = self.slots(nft, "web")
        lighter = listener("web", backend(ONE, weight=50), backend(TWO), backend(THREE))
        done = change(nft, configuration(lighter, API)).transaction.lines()
        differing = [slot for slot, mark in self.slots(nft, "web").items() if before[slot] != mark]
        assert [verb_and_object(statement) for statement in done] == [
            "delete element inet evenflow slots_web",
            "add element inet evenflow slots_web",
        ]
        assert done[0].split(" { ")[1] == ", ".join(map(str, differing)) + " }"
        assert [int(element.split(" : ")[0]) for element in done[1][:-2].split(" { ")[1].split(", ")] == differing
        assert 0 < len(differing) < len(before) / 3

    def test_a_weight_under_wrr_touches_only_its_listener(self) -> None:
        nft = kernel_with(WEB, API)
        heavier = {**API, "backends": [backend(ONE), backend(TWO, weight=200), backend(THREE)]}
        done = change(nft, configuration(WEB, heavier)).transaction.lines()
        assert {verb_and_object(statement) for statement in done} == {
            "delete element inet evenflow slots_api",
            "add element inet evenflow slots_api",
            "flush chain inet evenflow l_api",
            "add rule inet evenflow l_api",
        }
        assert len(self.slots(nft, "api")) == 4

    def test_a_rule_stays_if_the_modulus_is_unchanged(self) -> None:
        nft = kernel_with(API)
        other = {**API, "backends": [backend(ONE), backend(TWO), backend(THREE, weight=0), backend("198.19.0.4")]}
        done = change(nft, configuration(other)).transaction.lines()
        assert not any(" l_api" in statement for statement in done)

    def test_a_description_does_not_change_the_table(self) -> None:
        nft = kernel_with(WEB)
        assert not change(nft, configuration({**WEB, "description": "other"}))

    def test_a_drain_changes_only_slots(self) -> None:
        nft = kernel_with(WEB, API)
        drained = listener("web", backend(ONE, admin_state="drained"), backend(TWO), backend(THREE))
        done = change(nft, configuration(drained, API)).transaction.lines()
        assert {statement.split()[4] for statement in done} == {"slots_web"}

    def test_a_changed_pool_is_replaced_in_one_transaction(self) -> None:
        nft = kernel_with(WEB)
        changed = listener("web", backend("198.19.0.8"), backend("198.19.0.9"))
        done = change(nft, configuration(changed)).transaction.lines()
        assert len(nft.runs) == 2
        assert not any(statement.startswith(("delete table", "delete map", "flush chain")) for statement in done)

    def test_a_removed_listener_leaves_nothing_in_the_table(self) -> None:
        nft = kernel_with(WEB, API)
        change(nft, configuration(API))
        assert_holds(nft, configuration(API))
        assert "web" not in repr(nft.table)

    def test_a_port_moves_to_another_listener(self) -> None:
        nft = kernel_with(WEB, API)
        desired = configuration({**WEB, "ports": ["8080"]}, {**API, "ports": ["80", "443"]})
        change(nft, desired)
        assert_holds(nft, desired)
        assert table_of_kernel(nft).sets["listeners4"].elements[VIP, "tcp", 80] == "goto l_api"

    def test_one_of_two_listeners_with_the_same_endpoint_is_removed(self) -> None:
        """Row 52: the other listener keeps the guard, the ids and thereby the counters."""
        shared = backend(ONE, 80)
        web, api = listener("web", shared), listener("api", shared, ports=["443"])
        nft = kernel_with(web, api)
        marks = {key[0]: mark for key, mark in backend_ids(configuration(web, api)).items()}
        done = change(nft, configuration(api)).transaction.lines()
        for name in ("acct_new", "acct_in", "acct_out", "to4port"):
            assert f"delete element inet evenflow {name} {{ {marks['web']:#010x} }}" in done
            assert list(table_of_kernel(nft).sets[name].elements) == [marks["api"]]
        assert not any("endpoints4" in statement or f"{marks['api']:#010x}" in statement for statement in done)
        assert list(table_of_kernel(nft).sets["endpoints4"].elements) == [(ONE, "tcp", 80)]


def without_rule(held: FakeTable) -> None:
    held.chains["nat_in"].rules.pop()


def other_comment(held: FakeTable) -> None:
    held.chains["dispatch"].rules[0] = (held.chains["dispatch"].rules[0][0], "older 1/2")


def other_hook(held: FakeTable) -> None:
    held.chains["nat_in"].hook = held.chains["nat_in"].hook.replace("-100", "-99")


def other_policy(held: FakeTable) -> None:
    held.chains["late_in"].hook = held.chains["late_in"].hook.replace("accept", "drop")


def without_chain(held: FakeTable) -> None:
    del held.chains["nat_post"]


def without_set(held: FakeTable) -> None:
    del held.sets["vips6"]


def one_rule_more(held: FakeTable) -> None:
    held.chains["refuse"].rules.append(("accept", ""))


def empty(held: FakeTable) -> None:
    held.chains.clear()
    held.sets.clear()


class TestForeignChanges:
    """The table is repaired after a change by another program, with no more statements than necessary."""

    @pytest.mark.parametrize(
        "text",
        [
            'add rule inet evenflow l_web accept comment "mine"',
            "flush chain inet evenflow l_web",
            "add element inet evenflow vips4 { 198.18.0.99 }",
            "delete element inet evenflow endpoints4 { 198.19.0.1 . tcp . 80 }",
            "delete element inet evenflow slots_web { 0, 5 }",
            "delete element inet evenflow slots_web { 7 }\nadd element inet evenflow slots_web { 7 : 0x80000000 }",
            "add element inet evenflow slots_web { 2000 : 0x80000000 }",
            "delete element inet evenflow listeners4 { 198.18.0.10 . tcp . 80 }\ndelete chain inet evenflow l_web",
            "delete element inet evenflow listeners4 { 198.18.0.10 . tcp . 80 }\n"
            "delete chain inet evenflow l_web\ndelete map inet evenflow slots_web",
            "add set inet evenflow mine { type mark; }\nadd element inet evenflow mine { 1 }",
            'add chain inet evenflow mine\nadd rule inet evenflow mine drop comment "x"',
            'add chain inet evenflow a\nadd chain inet evenflow b\nadd rule inet evenflow a jump b comment ""',
            "add ct timeout inet evenflow mine { protocol udp; policy = { replied : 60 }; }",
            "add chain inet evenflow a\nadd map inet evenflow mine { type mark : verdict; }\n"
            "add element inet evenflow mine { 1 : goto a }",
        ],
    )
    def test_a_change_is_repaired_without_a_new_table(self, text: str) -> None:
        nft = kernel_with(WEB, API)
        nft.run(text)
        done = change(nft, configuration(WEB, API)).transaction.lines()
        assert_holds(nft, configuration(WEB, API))
        assert "delete table inet evenflow" not in done
        assert not any(statement.split()[4] in ("slots_api", "l_api") for statement in done)

    def test_a_rule_with_another_comment_is_replaced(self) -> None:
        nft = kernel_with(WEB)
        rules = table_of_kernel(nft).chains["l_web"].rules
        rules[1] = (rules[1][0], "000000000000 2/2")
        done = change(nft, configuration(WEB)).transaction.lines()
        assert [verb_and_object(statement) for statement in done] == [
            "flush chain inet evenflow l_web",
            "add rule inet evenflow l_web",
            "add rule inet evenflow l_web",
        ]
        assert_holds(nft, configuration(WEB))

    @pytest.mark.parametrize(
        "spoil",
        [
            without_rule,
            other_comment,
            other_hook,
            other_policy,
            without_chain,
            without_set,
            one_rule_more,
            empty,
        ],
    )
    def test_a_table_of_another_version_is_replaced(self, spoil: Callable[[FakeTable], None]) -> None:
        nft = kernel_with(WEB, API)
        spoil(table_of_kernel(nft))
        done = change(nft, configuration(WEB, API)).transaction.lines()
        assert done[0] == "delete table inet evenflow"
        assert_holds(nft, configuration(WEB, API))
        assert len(nft.runs) == 2

    def test_a_table_whose_sessions_have_another_size_is_replaced_and_keeps_them(self) -> None:
        web = configuration({**WEB, "tracking_mode": "per_session"})
        nft = FakeNft()
        change(nft, web)
        mark = next(iter(backend_ids(web).values()))
        table_of_kernel(nft).sets["sess_web"].elements[77] = session = Timed(mark, 600, 500)
        larger = Settings(conntrack_max=524288)
        assert change(nft, web, larger).transaction.lines()[0] == "delete table inet evenflow"
        sessions = table_of_kernel(nft).sets["sess_web"]
        assert (sessions.elements, "size 524288;" in sessions.declaration) == ({77: session}, True)
        assert not change(nft, web, larger)

    @pytest.mark.parametrize("name", sorted(STATIC_CHAINS))
    def test_a_change_of_any_static_rule_is_noticed(self, name: str) -> None:
        table = desired_table(configuration(WEB), SETTINGS).as_live()
        for number in range(len(table.chains[name].comments)):
            comments = list(table.chains[name].comments)
            comments[number] = ""
            spoiled = dataclasses.replace(table.chains[name], comments=tuple(comments))
            live = LiveTable({**table.chains, name: spoiled}, table.sets, table.timeouts)
            assert plan(configuration(WEB), SETTINGS, Live(live)).transaction.lines()[0].startswith("delete table")

    def test_only_a_first_load_has_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transaction, "BATCH", 1)
        desired = configuration(WEB, API)
        first = plan(desired, SETTINGS, Live()).transaction.batches()
        assert len(first) == 4
        # No flow reaches a listener before the last batch.
        dispatched = "add element inet evenflow listeners4"
        assert not any(statement.startswith(dispatched) for batch in first[:-1] for statement in batch.lines())
        assert any(statement.startswith(dispatched) for statement in first[-1].lines())
        spoiled = desired_table(desired, SETTINGS).as_live()
        spoiled.chains.pop("refuse")
        assert len(plan(desired, SETTINGS, Live(spoiled)).transaction.batches()) == 1

    def test_a_missing_table_is_not_deleted(self) -> None:
        assert plan(configuration(WEB), SETTINGS, Live()).transaction.lines()[0].startswith("add table")


class TestAddresses:
    HERE = Settings(vip_mode="address", vip_interface="lan", vip_dedicated=False)
    SIX = listener("six", address=VIP6)
    LIVE_TABLE = staticmethod(lambda *listeners: desired_table(configuration(*listeners), TestAddresses.HERE).as_live())

    @staticmethod
    def on_lan(*addresses: str) -> frozenset[Address]:
        """Return addresses on the VIP interface."""
        return frozenset(Address("lan", address) for address in addresses)

    def planned(self, settings: Settings, live: frozenset[Address], owned: frozenset[Address]) -> Plan:
        """Plan two listeners whose table is loaded already."""
        return plan(configuration(WEB, self.SIX), settings, Live(self.LIVE_TABLE(WEB, self.SIX), live, owned))

    def test_prefixes(self) -> None:
        assert [Address("lan", address).prefix for address in (VIP, VIP6)] == [f"{VIP}/32", f"{VIP6}/128"]

    def test_new_addresses_are_added_and_owned(self) -> None:
        result = self.planned(self.HERE, frozenset(), frozenset())
        assert (frozenset(result.add), result.remove, result.owned) == (
            self.on_lan(VIP, VIP6),
            (),
            self.on_lan(VIP, VIP6),
        )
        assert result
        assert not result.transaction

    def test_an_existing_address_is_never_owned(self) -> None:
        result = self.planned(self.HERE, self.on_lan(VIP, "198.18.0.77"), frozenset())
        assert (frozenset(result.add), result.remove, result.owned) == (self.on_lan(VIP6), (), self.on_lan(VIP6))

    def test_present_addresses_need_no_change(self) -> None:
        assert not self.planned(self.HERE, self.on_lan(VIP, VIP6), self.on_lan(VIP, VIP6))

    def test_a_lost_owned_address_is_added_again(self) -> None:
        result = self.planned(self.HERE, self.on_lan(VIP6), self.on_lan(VIP, VIP6))
        assert (frozenset(result.add), result.owned) == (self.on_lan(VIP), self.on_lan(VIP, VIP6))

    def test_only_owned_addresses_are_removed(self) -> None:
        old = self.on_lan("198.18.0.8")
        result = self.planned(self.HERE, self.on_lan(VIP, VIP6, "198.18.0.8", "198.18.0.9"), self.on_lan(VIP) | old)
        assert (result.add, frozenset(result.remove), result.owned) == ((), old, self.on_lan(VIP))

    def test_a_lost_address_is_not_removed_again(self) -> None:
        result = self.planned(self.HERE, self.on_lan(VIP, VIP6), self.on_lan(VIP, "198.18.0.8"))
        assert (result.add, result.remove, result.owned) == ((), (), self.on_lan(VIP))

    def test_another_mode_removes_owned_addresses(self) -> None:
        result = self.planned(SETTINGS, self.on_lan(VIP, VIP6), self.on_lan(VIP))
        assert (result.add, frozenset(result.remove), result.owned) == ((), self.on_lan(VIP), frozenset())

    def test_another_interface_moves_owned_addresses(self) -> None:
        wan = Settings(vip_mode="address", vip_interface="wan")
        result = self.planned(wan, self.on_lan(VIP, VIP6), self.on_lan(VIP, VIP6))
        assert {address.interface for address in result.add} == {"wan"}
        assert frozenset(result.remove) == self.on_lan(VIP, VIP6)
        assert result.owned == frozenset(result.add)

    def test_an_address_of_the_node_itself_is_not_dedicated(self) -> None:
        """Row 51."""
        settings = Settings(vip_mode="address", vip_interface="lan")
        for live, name in ((frozenset(), "dedicated4"), (self.on_lan(VIP), "routed4")):
            sets = plan(configuration(WEB), settings, Live(None, live)).boot.sets
            assert {each for each in ("dedicated4", "routed4") if content(sets[each].elements)} == {name}

    def test_two_listeners_with_the_same_address(self) -> None:
        result = plan(configuration(WEB, API), self.HERE, Live())
        assert result.add == (Address("lan", VIP),)
