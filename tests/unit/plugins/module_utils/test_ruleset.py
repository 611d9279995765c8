# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table that the kernel should hold for a configuration."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given

from ansible_collections.evenflow.l4lb.plugins.module_utils._eligibility import accepts, eligible
from ansible_collections.evenflow.l4lb.plugins.module_utils._identity import backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._model import Configuration, Document, Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import Table
from ansible_collections.evenflow.l4lb.plugins.module_utils._plan import content
from ansible_collections.evenflow.l4lb.plugins.module_utils._ruleset import SHARED_SETS, STATIC_CHAINS, table
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP, VIP6, backend, configuration, listener
from ansible_collections.evenflow.l4lb.tests.unit.strategies import documents


def table_of(*listeners: dict[str, Any], seed: int = 24301) -> Table:
    """Return the table of listeners."""
    return table(configuration(*listeners), Settings(hash_seed=seed))


def elements(of: Table) -> dict[str, dict[Any, Any]]:
    """Return what is in the shared sets and maps, without the empty ones."""
    return {name: dict(content(of.sets[name].elements)) for name in SHARED_SETS if content(of.sets[name].elements)}


def rules(of: Table, name: str) -> tuple[str, ...]:
    """Return the rules of a listener's chain."""
    return of.chains[f"l_{name}"].rules


def test_two_listeners() -> None:
    web = listener("web", backend("198.19.0.1"), backend("198.19.0.2", 8080, weight=0), ports=["80", "443"])
    dns = listener("dns", backend("2001:db8:1::1"), address=VIP6, protocol="udp", ports=["53"], scheduler="rr")
    ids = backend_ids(configuration(web, dns))
    one, two, six = ids["web", "198.19.0.1", 0], ids["web", "198.19.0.2", 8080], ids["dns", "2001:db8:1::1", 0]
    found = table_of(web, dns)
    assert elements(found) == {
        "listeners4": {(VIP, "tcp", 80): "goto l_web", (VIP, "tcp", 443): "goto l_web"},
        "listeners6": {(VIP6, "udp", 53): "goto l_dns"},
        "vips4": {VIP: None},
        "vips6": {VIP6: None},
        "to4": {one: "198.19.0.1"},
        "to6": {six: "2001:db8:1::1"},
        "to4port": {two: ("198.19.0.2", 8080)},
        "endpoints4": {
            ("198.19.0.1", "tcp", 80): None,
            ("198.19.0.1", "tcp", 443): None,
            ("198.19.0.2", "tcp", 8080): None,
        },
        "endpoints6": {("2001:db8:1::1", "udp", 53): None},
        "acct_new": {one: None, two: None, six: None},
        "acct_in": {one: None, two: None, six: None},
        "acct_out": {one: None, two: None, six: None},
    }
    assert content(found.sets["slots_web"].elements) == {slot: one for slot in range(1009)}
    assert content(found.sets["slots_dns"].elements) == {0: six}
    assert rules(found, "dns") == ("ct mark set numgen inc mod 1 map @slots_dns", "goto to_backend")
    assert set(found.chains) == {*STATIC_CHAINS, "l_web", "l_dns"}


@pytest.mark.parametrize(
    ("affinity", "fields"),
    [
        ("none", "{0} saddr . {0} daddr . meta l4proto . th sport . th dport"),
        ("client_ip_port_proto", "{0} saddr . {0} daddr . meta l4proto . th sport . th dport"),
        ("client_ip_proto", "{0} saddr . {0} daddr . meta l4proto"),
        ("client_ip", "{0} saddr . {0} daddr"),
        ("client_ip_no_destination", "{0} saddr"),
    ],
)
@pytest.mark.parametrize(
    ("vip", "address", "header"), [(VIP, "198.19.0.1", "ip"), (VIP6, "2001:db8:1::1", "ip6")], ids=["v4", "v6"]
)
def test_what_is_hashed(affinity: str, fields: str, vip: str, address: str, header: str) -> None:
    web = listener("web", backend(address), address=vip, session_affinity=affinity)
    assert rules(table_of(web, seed=0x5EED), "web") == (
        f"ct mark set jhash {fields.format(header)} mod 1009 seed 0x5eed map @slots_web",
        "goto to_backend",
    )


@pytest.mark.parametrize("seed", [0, 1, 24301, 0xFFFFFFFF])
def test_a_hash_always_has_the_fleets_seed(seed: int) -> None:
    found = table_of(listener("web", backend("198.19.0.1")), seed=seed)
    assert f" seed {seed:#x} " in rules(found, "web")[0]


@pytest.mark.parametrize(
    ("options", "backends", "refused", "is_drop"),
    [
        ({}, [backend("198.19.0.1")], False, False),
        ({"admin_state": "disabled"}, [backend("198.19.0.1")], True, False),
        ({}, [backend("198.19.0.1", weight=0)], True, True),
        ({}, [backend("198.19.0.1", admin_state="drained")], True, True),
        ({}, [], True, True),
    ],
)
def test_a_listener_without_anybody_to_serve_refuses(
    options: dict[str, Any], backends: list[dict[str, Any]], refused: bool, is_drop: bool
) -> None:
    """New flows never reach the node's own stack; existing ones keep their way to the backend."""
    found = table_of(listener("web", *backends, **options))
    assert elements(found).get("refused4", {}) == ({(VIP, "tcp", 80): "goto refuse"} if refused else {})
    assert elements(found)["listeners4"] == {(VIP, "tcp", 80): "goto l_web"}
    assert (rules(found, "web") == ("drop",)) is is_drop
    assert bool(content(found.sets["slots_web"].elements)) is not is_drop
    assert len(elements(found).get("to4", {})) == len(backends)


def test_two_listeners_over_one_endpoint_share_its_guard() -> None:
    """Row 52."""
    shared = backend("198.19.0.1", 80)
    both = elements(table_of(listener("web", shared), listener("api", shared, ports=["81"])))
    assert both["endpoints4"] == {("198.19.0.1", "tcp", 80): None}
    assert len(both["to4port"]) == len(both["acct_new"]) == 2


@given(documents())
def test_what_rules_and_elements_name_is_there(document: Document) -> None:
    found = table(Configuration.from_document(document), Settings())
    for chain in found.chains.values():
        for rule in chain.rules:
            assert set(re.findall(r"@(\S+)", rule)) <= set(found.sets)
            assert set(re.findall(r"(?:goto|jump) (\S+)", rule)) <= set(found.chains)
    for name in SHARED_SETS:
        for value in content(found.sets[name].elements).values():
            assert value is None or not str(value).startswith("goto") or str(value).split()[1] in found.chains


@given(documents())
def test_slots_hold_only_who_is_eligible_and_every_slot_that_a_rule_draws_is_there(document: Document) -> None:
    settings = Settings()
    wanted = Configuration.from_document(document)
    ids, found = backend_ids(wanted), table(wanted, settings)
    for one in wanted.listeners:
        slots = content(found.sets[f"slots_{one.name}"].elements)
        modulus = re.search(r" mod (\d+) ", found.chains[f"l_{one.name}"].rules[0])
        assert list(slots) == list(range(int(modulus[1]) if modulus else 0))
        assert set(slots.values()) == {ids[(one.name, *chosen.key)] for chosen in eligible(one)}
        assert set(slots.values()) <= {
            *content(found.sets[f"to{one.family}"].elements),
            *content(found.sets[f"to{one.family}port"].elements),
        }
        for port in one.ports:
            key = one.address, one.protocol, port
            assert (key in content(found.sets[f"refused{one.family}"].elements)) is not accepts(one)
