# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the plan does to a kernel: it always ends with the table of the configuration, by the smallest way."""

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
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import LiveTable, content
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


def change(nft: FakeNft, wanted: Configuration, settings: Settings = SETTINGS) -> Plan:
    """Plan from what the kernel holds, and run it."""
    found = plan(wanted, settings, Live(nft.found()))
    if found.transaction:
        nft.run(found.transaction)
    return found


def loaded(*listeners: dict[str, Any]) -> FakeNft:
    """Return a kernel that holds listeners."""
    nft = FakeNft()
    change(nft, configuration(*listeners))
    return nft


def state(nft: FakeNft) -> FakeTable:
    """Return the table of a kernel that has one."""
    assert nft.table is not None
    return nft.table


def verb_and_name(statement: str) -> str:
    """Return what a statement does to what, without the content."""
    return " ".join(statement.split()[:5])


def assert_holds(nft: FakeNft, wanted: Configuration, settings: Settings = SETTINGS) -> None:
    """Fail if the kernel does not hold exactly the table of a configuration."""
    expected = desired_table(wanted, settings)
    held = state(nft)
    assert held.comment == TABLE_COMMENT
    assert {name: (one.kind, one.declaration, one.elements) for name, one in held.sets.items()} == {
        name: (one.kind, one.declaration, dict(content(one.elements))) for name, one in expected.sets.items()
    }
    assert held.timeouts == expected.timeouts
    assert {name: (chain.hook, chain.rules) for name, chain in held.chains.items()} == {
        name: (chain.hook, list(zip(chain.rules, chain.comments))) for name, chain in expected.chains.items()
    }


class TestAnyChange:
    @given(documents(), documents(), st.sampled_from([SETTINGS, Settings(hash_seed=1)]))
    @example({}, {}, SETTINGS)
    def test_the_kernel_ends_with_the_table_of_the_configuration(
        self, before: Document, after: Document, settings: Settings
    ) -> None:
        nft, wanted = FakeNft(), Configuration.from_document(after)
        change(nft, Configuration.from_document(before))
        assert_holds(nft, Configuration.from_document(before))
        change(nft, wanted, settings)
        assert_holds(nft, wanted, settings)
        assert not plan(wanted, settings, Live(nft.found()))
        assert len(nft.runs) <= 2

    @given(documents(), documents())
    def test_what_is_remembered_serves_as_well_as_what_is_read(self, before: Document, after: Document) -> None:
        old, new = Configuration.from_document(before), Configuration.from_document(after)
        nft = FakeNft()
        change(nft, old)
        remembered = plan(new, SETTINGS, Live(desired_table(old, SETTINGS).as_live()))
        assert remembered.transaction.lines() == plan(new, SETTINGS, Live(nft.found())).transaction.lines()

    @given(documents())
    def test_the_same_again_is_nothing(self, document: Document) -> None:
        wanted = Configuration.from_document(document)
        again = plan(wanted, SETTINGS, Live(desired_table(wanted, SETTINGS).as_live()))
        assert not again
        assert again.transaction.lines() == []

    @given(documents())
    def test_parts_in_the_order_of_their_names_are_the_load(self, document: Document) -> None:
        wanted = Configuration.from_document(document)
        found = parts(desired_table(wanted, SETTINGS))
        assert [part.name for part in found] == sorted(part.name for part in found)
        nft = FakeNft()
        nft.run("".join(part.write().text() for part in found))
        assert_holds(nft, wanted)
        load = plan(wanted, SETTINGS, Live()).transaction
        assert load.text() == "".join(part.write().text() for part in found)

    @given(documents(), documents())
    def test_a_parts_digest_tells_its_text(self, one: Document, other: Document) -> None:
        written: dict[tuple[str, str], str] = {}
        for document in (one, other):
            for part in parts(desired_table(Configuration.from_document(document), SETTINGS)):
                assert written.setdefault((part.name, part.digest), part.write().text()) == part.write().text()

    def test_a_part_whose_slots_alone_change_is_another_one(self) -> None:
        lighter = {**WEB, "backends": [backend(ONE, weight=50), backend(TWO), backend(THREE)]}
        digests = [
            {part.name: part.digest for part in parts(desired_table(configuration(web, API), SETTINGS))}
            for web in (WEB, lighter)
        ]
        assert {name for name in digests[0] if digests[0][name] != digests[1][name]} == {"1_web"}


class TestSmallChange:
    def slots(self, nft: FakeNft, name: str) -> dict[int, int]:
        """Return a listener's slots."""
        return dict(state(nft).sets[f"slots_{name}"].elements)

    def test_a_weight_under_mh_touches_only_the_slots_that_change(self) -> None:
        nft = loaded(WEB, API)
        before = self.slots(nft, "web")
        lighter = listener("web", backend(ONE, weight=50), backend(TWO), backend(THREE))
        done = change(nft, configuration(lighter, API)).transaction.lines()
        differing = [slot for slot, mark in self.slots(nft, "web").items() if before[slot] != mark]
        assert [verb_and_name(statement) for statement in done] == [
            "delete element inet evenflow slots_web",
            "add element inet evenflow slots_web",
        ]
        assert done[0].split(" { ")[1] == ", ".join(map(str, differing)) + " }"
        assert [int(element.split(" : ")[0]) for element in done[1][:-2].split(" { ")[1].split(", ")] == differing
        assert 0 < len(differing) < len(before) / 3

    def test_a_weight_under_wrr_touches_only_its_listener(self) -> None:
        nft = loaded(WEB, API)
        heavier = {**API, "backends": [backend(ONE), backend(TWO, weight=200), backend(THREE)]}
        done = change(nft, configuration(WEB, heavier)).transaction.lines()
        assert {verb_and_name(statement) for statement in done} == {
            "delete element inet evenflow slots_api",
            "add element inet evenflow slots_api",
            "flush chain inet evenflow l_api",
            "add rule inet evenflow l_api",
        }
        assert len(self.slots(nft, "api")) == 4

    def test_the_rule_and_its_counter_stay_if_the_modulus_does(self) -> None:
        nft = loaded(API)
        other = {**API, "backends": [backend(ONE), backend(TWO), backend(THREE, weight=0), backend("198.19.0.4")]}
        done = change(nft, configuration(other)).transaction.lines()
        assert not any(" l_api" in statement for statement in done)

    def test_a_description_is_nothing_to_the_kernel(self) -> None:
        nft = loaded(WEB)
        assert not change(nft, configuration({**WEB, "description": "other"}))

    def test_a_drain_changes_slots_alone(self) -> None:
        nft = loaded(WEB, API)
        drained = listener("web", backend(ONE, admin_state="drained"), backend(TWO), backend(THREE))
        done = change(nft, configuration(drained, API)).transaction.lines()
        assert {statement.split()[4] for statement in done} == {"slots_web"}

    def test_a_pool_is_never_empty_while_it_changes(self) -> None:
        nft = loaded(WEB)
        changed = listener("web", backend("198.19.0.8"), backend("198.19.0.9"))
        done = change(nft, configuration(changed)).transaction.lines()
        assert len(nft.runs) == 2
        assert not any(statement.startswith(("delete table", "delete map", "flush chain")) for statement in done)

    def test_a_removed_listener_leaves_nothing(self) -> None:
        nft = loaded(WEB, API)
        change(nft, configuration(API))
        assert_holds(nft, configuration(API))
        assert "web" not in repr(nft.table)

    def test_a_port_moves_to_another_listener(self) -> None:
        nft = loaded(WEB, API)
        wanted = configuration({**WEB, "ports": ["8080"]}, {**API, "ports": ["80", "443"]})
        change(nft, wanted)
        assert_holds(nft, wanted)
        assert state(nft).sets["listeners4"].elements[VIP, "tcp", 80] == "goto l_api"

    def test_one_of_two_listeners_over_one_endpoint_goes(self) -> None:
        """Row 52: the other keeps its guard, its ids and so its counters."""
        shared = backend(ONE, 80)
        web, api = listener("web", shared), listener("api", shared, ports=["443"])
        nft = loaded(web, api)
        marks = {key[0]: mark for key, mark in backend_ids(configuration(web, api)).items()}
        done = change(nft, configuration(api)).transaction.lines()
        for name in ("acct_new", "acct_in", "acct_out", "to4port"):
            assert f"delete element inet evenflow {name} {{ {marks['web']:#010x} }}" in done
            assert list(state(nft).sets[name].elements) == [marks["api"]]
        assert not any("endpoints4" in statement or f"{marks['api']:#010x}" in statement for statement in done)
        assert list(state(nft).sets["endpoints4"].elements) == [(ONE, "tcp", 80)]


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


class TestForeignHands:
    """The table is put right whoever changed it, and no more than needed."""

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
    def test_put_right_without_a_new_table(self, text: str) -> None:
        nft = loaded(WEB, API)
        nft.run(text)
        done = change(nft, configuration(WEB, API)).transaction.lines()
        assert_holds(nft, configuration(WEB, API))
        assert "delete table inet evenflow" not in done
        assert not any(statement.split()[4] in ("slots_api", "l_api") for statement in done)

    def test_a_rule_with_another_comment_shows(self) -> None:
        nft = loaded(WEB)
        rules = state(nft).chains["l_web"].rules
        rules[1] = (rules[1][0], "000000000000 2/2")
        done = change(nft, configuration(WEB)).transaction.lines()
        assert [verb_and_name(statement) for statement in done] == [
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
    def test_another_version_is_built_anew(self, spoil: Callable[[FakeTable], None]) -> None:
        nft = loaded(WEB, API)
        spoil(state(nft))
        done = change(nft, configuration(WEB, API)).transaction.lines()
        assert done[0] == "delete table inet evenflow"
        assert_holds(nft, configuration(WEB, API))
        assert len(nft.runs) == 2

    @pytest.mark.parametrize("name", sorted(STATIC_CHAINS))
    def test_every_static_rule_is_watched(self, name: str) -> None:
        found = desired_table(configuration(WEB), SETTINGS).as_live()
        for number in range(len(found.chains[name].comments)):
            comments = list(found.chains[name].comments)
            comments[number] = ""
            spoiled = dataclasses.replace(found.chains[name], comments=tuple(comments))
            live = LiveTable({**found.chains, name: spoiled}, found.sets, found.timeouts)
            assert plan(configuration(WEB), SETTINGS, Live(live)).transaction.lines()[0].startswith("delete table")

    def test_only_a_first_load_comes_in_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transaction, "BATCH", 1)
        wanted = configuration(WEB, API)
        first = plan(wanted, SETTINGS, Live()).transaction.batches()
        assert len(first) == 4
        # Until the last batch nothing leads to a listener.
        dispatched = "add element inet evenflow listeners4"
        assert not any(statement.startswith(dispatched) for batch in first[:-1] for statement in batch.lines())
        assert any(statement.startswith(dispatched) for statement in first[-1].lines())
        spoiled = desired_table(wanted, SETTINGS).as_live()
        spoiled.chains.pop("refuse")
        assert len(plan(wanted, SETTINGS, Live(spoiled)).transaction.batches()) == 1

    def test_no_table_is_not_deleted(self) -> None:
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
        """Plan two listeners whose table is there already."""
        return plan(configuration(WEB, self.SIX), settings, Live(self.LIVE_TABLE(WEB, self.SIX), live, owned))

    def test_prefixes(self) -> None:
        assert [Address("lan", address).prefix for address in (VIP, VIP6)] == [f"{VIP}/32", f"{VIP6}/128"]

    def test_new_ones_are_put_there_and_are_ours(self) -> None:
        found = self.planned(self.HERE, frozenset(), frozenset())
        assert (frozenset(found.add), found.remove, found.owned) == (self.on_lan(VIP, VIP6), (), self.on_lan(VIP, VIP6))
        assert found
        assert not found.transaction

    def test_what_was_there_before_us_is_never_ours(self) -> None:
        found = self.planned(self.HERE, self.on_lan(VIP, "198.18.0.77"), frozenset())
        assert (frozenset(found.add), found.remove, found.owned) == (self.on_lan(VIP6), (), self.on_lan(VIP6))

    def test_all_in_place(self) -> None:
        assert not self.planned(self.HERE, self.on_lan(VIP, VIP6), self.on_lan(VIP, VIP6))

    def test_ours_that_vanished_comes_back(self) -> None:
        found = self.planned(self.HERE, self.on_lan(VIP6), self.on_lan(VIP, VIP6))
        assert (frozenset(found.add), found.owned) == (self.on_lan(VIP), self.on_lan(VIP, VIP6))

    def test_only_ours_is_taken_off(self) -> None:
        old = self.on_lan("198.18.0.8")
        found = self.planned(self.HERE, self.on_lan(VIP, VIP6, "198.18.0.8", "198.18.0.9"), self.on_lan(VIP) | old)
        assert (found.add, frozenset(found.remove), found.owned) == ((), old, self.on_lan(VIP))

    def test_ours_that_is_gone_already_is_not_taken_off_again(self) -> None:
        found = self.planned(self.HERE, self.on_lan(VIP, VIP6), self.on_lan(VIP, "198.18.0.8"))
        assert (found.add, found.remove, found.owned) == ((), (), self.on_lan(VIP))

    def test_another_mode_takes_ours_off(self) -> None:
        found = self.planned(SETTINGS, self.on_lan(VIP, VIP6), self.on_lan(VIP))
        assert (found.add, frozenset(found.remove), found.owned) == ((), self.on_lan(VIP), frozenset())

    def test_another_interface(self) -> None:
        wan = Settings(vip_mode="address", vip_interface="wan")
        found = self.planned(wan, self.on_lan(VIP, VIP6), self.on_lan(VIP, VIP6))
        assert {address.interface for address in found.add} == {"wan"}
        assert frozenset(found.remove) == self.on_lan(VIP, VIP6)
        assert found.owned == frozenset(found.add)

    def test_an_address_of_the_nodes_own_is_not_dedicated(self) -> None:
        """Row 51."""
        settings = Settings(vip_mode="address", vip_interface="lan")
        for live, name in ((frozenset(), "dedicated4"), (self.on_lan(VIP), "routed4")):
            found = plan(configuration(WEB), settings, Live(None, live)).boot.sets
            assert {one for one in ("dedicated4", "routed4") if content(found[one].elements)} == {name}

    def test_two_listeners_on_one_address(self) -> None:
        found = plan(configuration(WEB, API), self.HERE, Live())
        assert found.add == (Address("lan", VIP),)
