# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the desired table of a configuration."""

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
    """Return the desired table of some listeners."""
    return desired_table(configuration(*listeners), Settings(hash_seed=seed))


def shared_elements(of: DesiredTable) -> dict[str, dict[Any, Any]]:
    """Return the elements of the shared sets and maps that are not empty."""
    return {name: dict(content(of.sets[name].elements)) for name in SHARED_SETS if content(of.sets[name].elements)}


def rules_of(of: DesiredTable, name: str) -> tuple[str, ...]:
    """Return the rules of a listener's chain."""
    return of.chains[f"l_{name}"].rules


def test_the_table_of_two_listeners() -> None:
    web = listener("web", backend("198.19.0.1"), backend("198.19.0.2", 8080, weight=0), ports=["80", "443"])
    dns = listener("dns", backend("2001:db8:1::1"), address=VIP6, protocol="udp", ports=["53"], scheduler="rr")
    ids = backend_ids(configuration(web, dns))
    first, second, third = ids["web", "198.19.0.1", 0], ids["web", "198.19.0.2", 8080], ids["dns", "2001:db8:1::1", 0]
    table = table_of(web, dns)
    assert shared_elements(table) == {
        "listeners4": {(VIP, "tcp", 80): "goto l_web", (VIP, "tcp", 443): "goto l_web"},
        "listeners6": {(VIP6, "udp", 53): "goto l_dns"},
        "vips4": {VIP: None},
        "vips6": {VIP6: None},
        "routed4": {VIP: None},
        "routed6": {VIP6: None},
        "to4": {first: "198.19.0.1"},
        "to6": {third: "2001:db8:1::1"},
        "to4port": {second: ("198.19.0.2", 8080)},
        "endpoints4": {
            ("198.19.0.1", "tcp", 80): None,
            ("198.19.0.1", "tcp", 443): None,
            ("198.19.0.2", "tcp", 8080): None,
        },
        "endpoints6": {("2001:db8:1::1", "udp", 53): None},
        # DNS servers also ask from port 53.
        "learned": {third: None},
        "acct_new": {first: None, second: None, third: None},
        "acct_in": {first: None, second: None, third: None},
        "acct_out": {first: None, second: None, third: None},
    }
    assert content(table.sets["slots_web"].elements) == {slot: first for slot in range(1009)}
    assert content(table.sets["slots_dns"].elements) == {0: third}
    assert rules_of(table, "dns") == ("ct mark set numgen inc mod 1 map @slots_dns", "goto to_backend")
    assert set(table.chains) == {*STATIC_CHAINS, "l_web", "l_dns"}


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
def test_the_hashed_fields_of_each_affinity(affinity: str, fields: str, vip: str, address: str, header: str) -> None:
    web = listener("web", backend(address), address=vip, session_affinity=affinity)
    assert rules_of(table_of(web, seed=0x5EED), "web") == (
        f"ct mark set jhash {fields.format(header)} mod 1009 seed 0x5eed map @slots_web",
        "goto to_backend",
    )


def test_sctp() -> None:
    """SCTP has the ports at the same offset as TCP, and is dispatched, hashed, translated and guarded like TCP."""
    ss7 = listener("ss7", backend("198.19.0.1"), protocol="sctp", ports=["2905", "3000-3010"])
    mark = backend_ids(configuration(ss7))["ss7", "198.19.0.1", 0]
    table = table_of(ss7)
    assert shared_elements(table)["listeners4"] == {(VIP, "sctp", 2905): "goto l_ss7"}
    assert shared_elements(table)["ranges4"] == {(VIP, "sctp", "3000-3010"): "goto l_ss7"}
    assert shared_elements(table)["to4"] == {mark: "198.19.0.1"}
    assert shared_elements(table)["learned"] == {mark: None}
    single = table_of({**ss7, "ports": ["2905"], "backends": [backend("198.19.0.1", 2906)], "idle_timeout_sec": 60})
    assert list(shared_elements(single)["to4port"].values()) == [("198.19.0.1", 2906)]
    assert shared_elements(single)["endpoints4"] == {("198.19.0.1", "sctp", 2906): None}
    # nft supports time-out policies for TCP and UDP only.
    assert not any("ct timeout" in rule for rule in rules_of(single, "ss7"))
    assert "th sport . th dport" in rules_of(single, "ss7")[0]
    assert "meta l4proto { tcp, udp, sctp } dnat ip to ct mark map @to4port" in STATIC_CHAINS["to_backend"].rules


@pytest.mark.parametrize("seed", [0, 1, 24301, 0xFFFFFFFF])
def test_every_hash_uses_the_seed_of_the_fleet(seed: int) -> None:
    table = table_of(listener("web", backend("198.19.0.1")), seed=seed)
    assert f" seed {seed:#x} " in rules_of(table, "web")[0]


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
def test_a_listener_without_eligible_backends_refuses_new_flows(
    options: dict[str, Any], backends: list[dict[str, Any]], refused: bool, is_drop: bool
) -> None:
    """New flows never reach the node's own stack, and existing flows are still sent to the backend."""
    table = table_of(listener("web", *backends, **options))
    assert shared_elements(table)["listeners4"] == {(VIP, "tcp", 80): "goto refuse" if refused else "goto l_web"}
    assert (rules_of(table, "web") == ("drop",)) is is_drop
    assert bool(content(table.sets["slots_web"].elements)) is not is_drop
    assert len(shared_elements(table).get("to4", {})) == len(backends)


def test_two_listeners_with_the_same_endpoint_share_the_guard() -> None:
    """Row 52."""
    shared = backend("198.19.0.1", 80)
    both = shared_elements(table_of(listener("web", shared), listener("api", shared, ports=["81"])))
    assert both["endpoints4"] == {("198.19.0.1", "tcp", 80): None}
    assert len(both["to4port"]) == len(both["acct_new"]) == 2


def test_a_lookup_that_misses_drops_and_rejects_no_first_packet() -> None:
    """While a table is replaced its maps are empty for packets that pass, which the second nat chain translates."""
    for name in ("to_backend", "dispatch", "nat_in", "nat_out"):
        assert not [rule for rule in STATIC_CHAINS[name].rules if re.search(r"\b(drop|reject|refuse)\b", rule)]
    assert "-99" in STATIC_CHAINS["again_in"].hook and "-99" in STATIC_CHAINS["again_out"].hook
    for name in ("again_in", "again_out"):
        # What it drops has a mark. The maps of a table that goes are empty before its sets.
        assert not [rule for rule in STATIC_CHAINS[name].rules if "goto" in rule or "reject" in rule]


@given(documents())
def test_every_object_that_rules_and_elements_name_exists(document: Document) -> None:
    table = desired_table(Configuration.from_document(document), Settings())
    for chain in table.chains.values():
        for rule in chain.rules:
            assert set(re.findall(r"@(?!th,)(\S+)", rule)) <= set(table.sets)
            assert set(re.findall(r"(?:goto|jump) (\S+)", rule)) <= set(table.chains)
    for name in SHARED_SETS:
        for value in content(table.sets[name].elements).values():
            assert value is None or not str(value).startswith("goto") or str(value).split()[1] in table.chains


@given(documents())
def test_slots_have_only_eligible_backends_and_cover_the_modulus_of_every_rule(document: Document) -> None:
    settings = Settings()
    configured = Configuration.from_document(document)
    ids, table = backend_ids(configured), desired_table(configured, settings)
    for each in configured.listeners:
        slots = content(table.sets[f"slots_{each.name}"].elements)
        drawn = [
            int(modulus)
            for rule in table.chains[f"l_{each.name}"].rules
            for modulus in re.findall(rf" mod (\d+) (?:seed \S+ )?map @slots_{each.name}$", rule)
        ]
        assert set(drawn) == ({len(slots)} if slots else set())
        assert list(slots) == list(range(len(slots)))
        assert set(slots.values()) == {ids[(each.name, *chosen.endpoint)] for chosen in select(each).backends}
        assert set(slots.values()) <= {
            *content(table.sets[f"to{each.family}"].elements),
            *content(table.sets[f"to{each.family}port"].elements),
        }
        verdicts = {
            verdict
            for kind in ("listeners", "ranges", "allports", "anyproto")
            for key, verdict in content(table.sets[f"{kind}{each.family}"].elements).items()
            if verdict == f"goto l_{each.name}"
        }
        assert bool(verdicts) is accepts(each, select(each))


def test_listeners_are_dispatched_by_port_protocol_or_address() -> None:
    """Row 8: single ports and ranges by port, all ports by protocol, any protocol by address."""
    contents = shared_elements(
        table_of(
            listener("some", backend("198.19.0.1"), ports=["80", "8000-8999"]),
            listener("every", backend("198.19.0.1"), protocol="udp", ports=["all"]),
            listener("whole", backend("2001:db8:1::1"), protocol="any", ports=["all"], address=VIP6),
        )
    )
    assert contents["listeners4"] == {(VIP, "tcp", 80): "goto l_some"}
    assert contents["ranges4"] == {(VIP, "tcp", "8000-8999"): "goto l_some"}
    assert contents["allports4"] == {(VIP, "udp"): "goto l_every"}
    assert contents["anyproto6"] == {VIP6: "goto l_whole"}
    assert "endpoints4" not in contents
    assert len(contents["learned"]) == 3


@pytest.mark.parametrize(
    ("protocol", "ports", "port", "is_learned"),
    [
        ("udp", ["123"], 0, True),
        ("udp", ["1053"], 53, True),
        ("udp", ["53"], 8053, False),
        ("udp", ["80"], 0, False),
        ("tcp", ["53"], 0, False),
        ("tcp", ["80", "8000-8999"], 0, True),
    ],
)
def test_answers_are_noted_where_the_configuration_cannot_say_what_to_guard(
    protocol: str, ports: list[str], port: int, is_learned: bool
) -> None:
    """Answers cost time, so others than listeners with ranges and UDP services that are clients too do without."""
    contents = shared_elements(table_of(listener("web", backend("198.19.0.1", port), protocol=protocol, ports=ports)))
    assert ("learned" in contents) == is_learned


@pytest.mark.parametrize(
    ("dedicated", "owned", "sets"),
    [
        (None, (), {"routed4"}),
        (None, (VIP,), {"dedicated4"}),
        (True, (), {"dedicated4"}),
        (False, (VIP,), set()),
    ],
)
def test_ports_without_a_listener_are_refused_on_dedicated_vips(
    dedicated: bool | None, owned: tuple[str, ...], sets: set[str]
) -> None:
    """Row 51."""
    configured = configuration(listener("web", backend("198.19.0.1")))
    contents = shared_elements(desired_table(configured, Settings(vip_dedicated=dedicated), owned))
    assert contents.keys() & {"routed4", "dedicated4"} == sets


_SESSION = "jhash ip saddr . ip daddr mod 4294967295 seed 0x1"
_STREAMS = "meta l4proto { tcp, sctp }"


@pytest.mark.parametrize(
    ("protocol", "found", "stored", "refreshed"),
    [
        (
            "tcp",
            ("ct mark @sticky goto f_web",),
            (f"add @sess_web {{ {_SESSION} timeout 10s : ct mark }}",),
            (f"ct status assured update @sess_web {{ {_SESSION} timeout 600s : ct mark }}",),
        ),
        (
            "udp",
            (f"ct mark @sticky update @sess_web {{ {_SESSION} timeout 600s : ct mark }} goto f_web",),
            (f"add @sess_web {{ {_SESSION} timeout 600s : ct mark }}",),
            (f"update @sess_web {{ {_SESSION} timeout 600s : ct mark }}",),
        ),
        (
            "any",
            (
                f"{_STREAMS} ct mark @sticky goto f_web",
                f"ct mark @sticky update @sess_web {{ {_SESSION} timeout 600s : ct mark }} goto f_web",
            ),
            (
                f"{_STREAMS} add @sess_web {{ {_SESSION} timeout 10s : ct mark }}",
                f"add @sess_web {{ {_SESSION} timeout 600s : ct mark }}",
            ),
            (
                f"{_STREAMS} ct status & assured == 0 return",
                f"update @sess_web {{ {_SESSION} timeout 600s : ct mark }}",
            ),
        ),
    ],
)
def test_a_session_is_looked_up_refreshed_and_stored(
    protocol: str, found: tuple[str, ...], stored: tuple[str, ...], refreshed: tuple[str, ...]
) -> None:
    """Row 20: the session of a stream lives shortly until the stream is established."""
    web = listener("web", backend("198.19.0.1"), tracking_mode="per_session", session_affinity="client_ip")
    table = table_of({**web, "protocol": protocol, **({"ports": ["all"]} if protocol == "any" else {})}, seed=1)
    assert rules_of(table, "web") == (
        f"ct mark set {_SESSION} map @sess_web",
        *found,
        "ct mark set 0",
        "ct mark set jhash ip saddr . ip daddr mod 1009 seed 0x1 map @slots_web",
        f"delete @sess_web {{ {_SESSION} : ct mark }}",
        *stored,
        "goto f_web",
    )
    assert table.chains["r_web"].rules == refreshed
    assert "size 262144;" in table.sets["sess_web"].declaration
    (mark,) = shared_elements(table)["sticky"]
    assert shared_elements(table)["refreshed"] == {mark: "jump r_web"}


def test_sessions_of_a_drained_backend_are_not_sticky() -> None:
    web = listener("web", backend("198.19.0.1", admin_state="drained"), tracking_mode="per_session")
    assert "sticky" not in shared_elements(table_of(web))


def test_limits_are_evaluated_in_the_order_that_keeps_counts_correct() -> None:
    """Row 39: try the next backends while full, then check the listener's limit, then the backend's."""
    backends = [backend(f"198.19.0.{number}", max_connections=number) for number in (1, 2, 3)]
    table = table_of(listener("web", *backends, scheduler="rr", max_connections=9))
    assert rules_of(table, "web") == (
        "ct mark set numgen inc mod 3 map @slots_web",
        "ct mark @full jump spill_web",
        "meta nfproto @cap_web goto refuse",
        "jump count",
        'tcp flags & syn != 0 ct timeout set "tcp_limited"',
        'tcp flags & syn == 0 ct timeout set "tcp_picked_up"',
        "goto to_backend",
    )
    assert table.chains["spill_web"].rules == (
        "ct mark set ct mark map @next",
        "ct mark != @full return",
        "ct mark set ct mark map @next",
        "ct mark != @full return",
        "goto refuse",
    )
    assert table.chains["count"].rules == (
        "ct mark @limit_backend add @full { ct mark timeout 3s } drop",
        "ct mark @limit_reached add @full { ct mark timeout 3s }",
    )
    first, second, third = content(table.sets["slots_web"].elements).values()
    assert shared_elements(table)["next"] == {first: second, second: third, third: first}
    assert {limit.statement for limit in shared_elements(table)["limit_backend"].values()} == {
        f"ct count over {number}" for number in (1, 2, 3)
    }
    assert {limit.statement for limit in shared_elements(table)["limit_reached"].values()} == {
        f"ct count over {number}" for number in (0, 1, 2)
    }


def test_idle_timeouts() -> None:
    table = table_of(listener("web", backend("198.19.0.1"), protocol="any", ports=["all"], idle_timeout_sec=90))
    assert rules_of(table, "web")[-3:] == (
        'meta l4proto tcp ct timeout set "tcp_90"',
        'meta l4proto udp ct timeout set "udp_90"',
        "goto to_backend",
    )
    assert set(table.timeouts) == {"tcp_90", "udp_90"}


@pytest.mark.parametrize("limits", [{"max_connections": 9}, {"backends": [backend("198.19.0.1", max_connections=9)]}])
def test_half_open_flows_under_a_limit_have_short_timeouts(limits: dict[str, Any]) -> None:
    """Row 57."""
    web = {**listener("web", backend("198.19.0.1"), idle_timeout_sec=90), **limits}
    table = table_of(web)
    assert rules_of(table, "web")[-3:] == (
        'tcp flags & syn != 0 ct timeout set "tcp_90_limited"',
        'tcp flags & syn == 0 ct timeout set "tcp_90_picked_up"',
        "goto to_backend",
    )
    assert table.timeouts == {
        "tcp_90_limited": "protocol tcp; policy = { syn_sent : 3, syn_recv : 3, established : 90 };",
        "tcp_90_picked_up": "protocol tcp; policy = { syn_sent : 3, syn_recv : 3, established : 90, unack : 5 };",
    }
    assert not table_of({**web, "protocol": "udp", "idle_timeout_sec": None}).timeouts


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (
            {"enable": True, "sample_rate": 1.0},
            'limit rate 1000/second burst 1000 packets log prefix "evenflow web " group 5 snaplen 128',
        ),
        (
            {"enable": True, "sample_rate": 0.1},
            "numgen random mod 1000000 < 100000 limit rate 1000/second burst 1000 packets "
            'log prefix "evenflow web " group 5 snaplen 128',
        ),
        ({"enable": True, "sample_rate": 0.0}, None),
        ({"enable": False, "sample_rate": 1.0}, None),
    ],
)
def test_the_rule_for_logging(config: dict[str, Any], rule: str | None) -> None:
    """Row 40."""
    table = table_of(listener("web", backend("198.19.0.1"), log_config=config))
    assert table.chains.get("log_web", Chain(())).rules == ((rule,) if rule else ())
    assert bool(shared_elements(table).get("logged")) is bool(rule)


@pytest.mark.parametrize(("scheduler", "field"), [("sh", "ip saddr"), ("dh", "ip daddr")])
def test_the_hashed_fields_of_sh_and_dh(scheduler: str, field: str) -> None:
    """Row 17."""
    table = table_of(listener("web", backend("198.19.0.1"), scheduler=scheduler, session_affinity="client_ip"), seed=1)
    assert rules_of(table, "web")[0] == f"ct mark set jhash {field} mod 1009 seed 0x1 map @slots_web"


def test_a_protocol_without_ports_is_hashed_without_them() -> None:
    table = table_of(listener("web", backend("198.19.0.1"), protocol="any", ports=["all"]), seed=1)
    three = "ip saddr . ip daddr . meta l4proto"
    assert rules_of(table, "web")[:2] == (
        f"meta l4proto {{ tcp, udp, sctp }} ct mark set jhash {three} . th sport . th dport mod 1009 seed 0x1 "
        "map @slots_web",
        f"meta l4proto != {{ tcp, udp, sctp }} ct mark set jhash {three} mod 1009 seed 0x1 map @slots_web",
    )


@pytest.mark.parametrize("scheduler", ["lc", "wlc"])
def test_shares_of_the_runtime_state_replace_slots_only(scheduler: str) -> None:
    """Shares replace the slots and nothing else; shares of unknown backends are ignored."""
    backends = backend("198.19.0.1"), backend("198.19.0.2", weight=300)
    configured = configuration(listener("web", *backends, scheduler=scheduler))
    first, second = [backend_ids(configured)[("web", *each.endpoint)] for each in configured.listeners[0].backends]
    before, after, stale = (
        desired_table(configured, Settings(), runtime=Runtime({"web": shares}))
        for shares in ({}, {first: 0, second: 256}, {first: 1, 7: 255})
    )
    assert before.chains == after.chains == stale.chains
    assert content(after.sets["slots_web"].elements) == {slot: second for slot in range(256)}
    assert before.sets["slots_web"] == stale.sets["slots_web"]
    share = Counter(content(before.sets["slots_web"].elements).values())[second]
    assert share == (128 if scheduler == "lc" else 192)


def test_no_name_of_a_listener_makes_one_of_its_objects_a_shared_one() -> None:
    """Objects of listeners are named after them, so a listener may have the name of the end of a shared object."""
    shared = set(STATIC_CHAINS) | set(SHARED_SETS)
    ends = {name[at + 1 :].replace("_", "-") for name in shared for at, letter in enumerate(name) if letter == "_"}
    for end in sorted(ends):
        backends = [backend("198.19.0.1", max_connections=40), backend("198.19.0.2", max_connections=4)]
        own = table_of(
            listener(
                end,
                *backends,
                max_connections=100,
                scheduler="wrr",
                session_affinity="client_ip",
                source_ranges=["198.18.0.0/24"],
                max_connection_rate={"rate": 10, "burst": 10},
                max_connection_rate_per_client={"rate": 10, "burst": 35, "prefix": 24},
                max_connections_per_client={"limit": 20, "prefix": None},
                log_config={"enable": True, "sample_rate": 1.0},
            )
        ).listeners[end]
        assert not shared & (set(own.chains) | set(own.sets)), end
