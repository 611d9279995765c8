# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table that the kernel should hold for a configuration."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.identity import backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.desired_table import desired_table
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import Chain, DesiredTable, content
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.static_rules import SHARED_SETS, STATIC_CHAINS
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.eligibility import accepts, select
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.runtime import Runtime
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP, VIP6, backend, configuration, listener
from ansible_collections.evenflow.l4lb.tests.unit.strategies import documents
from hypothesis import given


def table_of(*listeners: dict[str, Any], seed: int = 24301) -> DesiredTable:
    """Return the table of listeners."""
    return desired_table(configuration(*listeners), Settings(hash_seed=seed))


def elements(of: DesiredTable) -> dict[str, dict[Any, Any]]:
    """Return what is in the shared sets and maps, without the empty ones."""
    return {name: dict(content(of.sets[name].elements)) for name in SHARED_SETS if content(of.sets[name].elements)}


def rules(of: DesiredTable, name: str) -> tuple[str, ...]:
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
        "routed4": {VIP: None},
        "routed6": {VIP6: None},
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


def test_sctp() -> None:
    """Its ports are where TCP's are, and it is dispatched, hashed, translated and guarded as TCP is."""
    ss7 = listener("ss7", backend("198.19.0.1"), protocol="sctp", ports=["2905", "3000-3010"])
    one = backend_ids(configuration(ss7))["ss7", "198.19.0.1", 0]
    found = table_of(ss7)
    assert elements(found)["listeners4"] == {(VIP, "sctp", 2905): "goto l_ss7"}
    assert elements(found)["ranges4"] == {(VIP, "sctp", "3000-3010"): "goto l_ss7"}
    assert elements(found)["to4"] == {one: "198.19.0.1"}
    assert elements(found)["wide"] == {one: None}
    single = table_of({**ss7, "ports": ["2905"], "backends": [backend("198.19.0.1", 2906)], "idle_timeout_sec": 60})
    assert list(elements(single)["to4port"].values()) == [("198.19.0.1", 2906)]
    assert elements(single)["endpoints4"] == {("198.19.0.1", "sctp", 2906): None}
    # nft has time-out policies for TCP and UDP only.
    assert not any("ct timeout" in rule for rule in rules(single, "ss7"))
    assert "th sport . th dport" in rules(single, "ss7")[0]
    assert "meta l4proto { tcp, udp, sctp } dnat ip to ct mark map @to4port" in STATIC_CHAINS["to_backend"].rules


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
        ({}, [backend("198.19.0.1", capacity_scaler=0.0), backend("198.19.0.2", weight=0)], True, True),
        ({}, [backend("198.19.0.1", admin_state="drained")], True, True),
        ({}, [], True, True),
    ],
)
def test_a_listener_without_anybody_to_serve_refuses(
    options: dict[str, Any], backends: list[dict[str, Any]], refused: bool, is_drop: bool
) -> None:
    """New flows never reach the node's own stack; existing ones keep their way to the backend."""
    found = table_of(listener("web", *backends, **options))
    assert elements(found)["listeners4"] == {(VIP, "tcp", 80): "goto refuse" if refused else "goto l_web"}
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
    found = desired_table(Configuration.from_document(document), Settings())
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
    ids, found = backend_ids(wanted), desired_table(wanted, settings)
    for one in wanted.listeners:
        slots = content(found.sets[f"slots_{one.name}"].elements)
        drawn = [
            int(modulus)
            for rule in found.chains[f"l_{one.name}"].rules
            for modulus in re.findall(rf" mod (\d+) (?:seed \S+ )?map @slots_{one.name}$", rule)
        ]
        assert set(drawn) == ({len(slots)} if slots else set())
        assert list(slots) == list(range(len(slots)))
        assert set(slots.values()) == {ids[(one.name, *chosen.endpoint)] for chosen in select(one).backends}
        assert set(slots.values()) <= {
            *content(found.sets[f"to{one.family}"].elements),
            *content(found.sets[f"to{one.family}port"].elements),
        }
        verdicts = {
            verdict
            for kind in ("listeners", "ranges", "allports", "anyproto")
            for key, verdict in content(found.sets[f"{kind}{one.family}"].elements).items()
            if verdict == f"goto l_{one.name}"
        }
        assert bool(verdicts) is accepts(one, select(one))


def test_how_ports_are_dispatched() -> None:
    """Row 8: single ports and ranges by port, all ports by protocol, any protocol by address."""
    found = elements(
        table_of(
            listener("some", backend("198.19.0.1"), ports=["80", "8000-8999"]),
            listener("every", backend("198.19.0.1"), protocol="udp", ports=["all"]),
            listener("whole", backend("2001:db8:1::1"), protocol="any", ports=["all"], address=VIP6),
        )
    )
    assert found["listeners4"] == {(VIP, "tcp", 80): "goto l_some"}
    assert found["ranges4"] == {(VIP, "tcp", "8000-8999"): "goto l_some"}
    assert found["allports4"] == {(VIP, "udp"): "goto l_every"}
    assert found["anyproto6"] == {VIP6: "goto l_whole"}
    assert "endpoints4" not in found
    assert len(found["wide"]) == 3


@pytest.mark.parametrize(
    ("dedicated", "owned", "sets"),
    [
        (None, (), {"routed4"}),
        (None, (VIP,), {"dedicated4"}),
        (True, (), {"dedicated4"}),
        (False, (VIP,), set()),
    ],
)
def test_whose_unserved_ports_are_refused(dedicated: bool | None, owned: tuple[str, ...], sets: set[str]) -> None:
    """Row 51."""
    wanted = configuration(listener("web", backend("198.19.0.1")))
    found = elements(desired_table(wanted, Settings(vip_dedicated=dedicated), owned))
    assert found.keys() & {"routed4", "dedicated4"} == sets


def test_a_session_is_looked_up_kept_and_written_down() -> None:
    web = listener("web", backend("198.19.0.1"), tracking_mode="per_session", session_affinity="client_ip")
    found = table_of(web, seed=1)
    key = "jhash ip saddr . ip daddr mod 4294967295 seed 0x1"
    assert rules(found, "web") == (
        f"ct mark set {key} map @sess_web",
        f"ct mark @sticky update @sess_web {{ {key} timeout 600s : ct mark }} goto f_web",
        "ct mark set 0",
        "ct mark set jhash ip saddr . ip daddr mod 1009 seed 0x1 map @slots_web",
        f"delete @sess_web {{ {key} : ct mark }}",
        f"add @sess_web {{ {key} timeout 600s : ct mark }}",
        "goto f_web",
    )
    assert found.chains["r_web"].rules == (f"update @sess_web {{ {key} timeout 600s : ct mark }}",)
    (mark,) = elements(found)["sticky"]
    assert elements(found)["refreshed"] == {mark: "jump r_web"}


def test_a_drained_backend_keeps_no_session() -> None:
    web = listener("web", backend("198.19.0.1", admin_state="drained"), tracking_mode="per_session")
    assert "sticky" not in elements(table_of(web))


def test_limits_are_asked_in_the_order_that_leaves_counts_right() -> None:
    """Row 39: on to the next while full, then the listener's limit, then the backend's own."""
    backends = [backend(f"198.19.0.{number}", max_connections=number) for number in (1, 2, 3)]
    found = table_of(listener("web", *backends, scheduler="rr", max_connections=9))
    assert rules(found, "web") == (
        "ct mark set numgen inc mod 3 map @slots_web",
        "ct mark @full ct mark set ct mark map @next",
        "ct mark @full ct mark set ct mark map @next",
        "ct mark @full goto refuse",
        "meta nfproto @cap_web goto refuse",
        "ct mark @limit_backend add @full { ct mark timeout 60s } drop",
        "ct mark @limit_reached add @full { ct mark timeout 60s }",
        "goto to_backend",
    )
    one, two, three = content(found.sets["slots_web"].elements).values()
    assert elements(found)["next"] == {one: two, two: three, three: one}
    assert {limit.statement for limit in elements(found)["limit_backend"].values()} == {
        f"ct count over {number}" for number in (1, 2, 3)
    }
    assert {limit.statement for limit in elements(found)["limit_reached"].values()} == {
        f"ct count over {number}" for number in (0, 1, 2)
    }


def test_idle_timeouts() -> None:
    found = table_of(listener("web", backend("198.19.0.1"), protocol="any", ports=["all"], idle_timeout_sec=90))
    assert rules(found, "web")[-3:] == (
        'meta l4proto tcp ct timeout set "tcp_90"',
        'meta l4proto udp ct timeout set "udp_90"',
        "goto to_backend",
    )
    assert set(found.timeouts) == {"tcp_90", "udp_90"}


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({"enable": True, "sample_rate": 1.0}, 'log prefix "evenflow web " group 5 snaplen 128'),
        (
            {"enable": True, "sample_rate": 0.1},
            'numgen random mod 1000000 < 100000 log prefix "evenflow web " group 5 snaplen 128',
        ),
        ({"enable": True, "sample_rate": 0.0}, None),
        ({"enable": False, "sample_rate": 1.0}, None),
    ],
)
def test_what_is_logged(config: dict[str, Any], rule: str | None) -> None:
    """Row 40."""
    found = table_of(listener("web", backend("198.19.0.1"), log_config=config))
    assert found.chains.get("log_web", Chain(())).rules == ((rule,) if rule else ())
    assert bool(elements(found).get("logged")) is bool(rule)


@pytest.mark.parametrize(("scheduler", "field"), [("sh", "ip saddr"), ("dh", "ip daddr")])
def test_what_sh_and_dh_hash(scheduler: str, field: str) -> None:
    """Row 17."""
    found = table_of(listener("web", backend("198.19.0.1"), scheduler=scheduler, session_affinity="client_ip"), seed=1)
    assert rules(found, "web")[0] == f"ct mark set jhash {field} mod 1009 seed 0x1 map @slots_web"


def test_a_protocol_without_ports_is_hashed_without_them() -> None:
    found = table_of(listener("web", backend("198.19.0.1"), protocol="any", ports=["all"]), seed=1)
    three = "ip saddr . ip daddr . meta l4proto"
    assert rules(found, "web")[:2] == (
        f"meta l4proto {{ tcp, udp, sctp }} ct mark set jhash {three} . th sport . th dport mod 1009 seed 0x1 "
        "map @slots_web",
        f"meta l4proto != {{ tcp, udp, sctp }} ct mark set jhash {three} mod 1009 seed 0x1 map @slots_web",
    )


@pytest.mark.parametrize("scheduler", ["lc", "wlc"])
def test_shares_that_were_dealt(scheduler: str) -> None:
    """They replace slots and nothing else; those for other backends are of no account."""
    backends = backend("198.19.0.1"), backend("198.19.0.2", weight=300)
    wanted = configuration(listener("web", *backends, scheduler=scheduler))
    one, two = [backend_ids(wanted)[("web", *each.endpoint)] for each in wanted.listeners[0].backends]
    before, after, stale = (
        desired_table(wanted, Settings(), runtime=Runtime({"web": shares}))
        for shares in ({}, {one: 0, two: 256}, {one: 1, 7: 255})
    )
    assert before.chains == after.chains == stale.chains
    assert content(after.sets["slots_web"].elements) == {slot: two for slot in range(256)}
    assert before.sets["slots_web"] == stale.sets["slots_web"]
    share = Counter(content(before.sets["slots_web"].elements).values())[two]
    assert share == (128 if scheduler == "lc" else 192)
