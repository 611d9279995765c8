# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of each option by itself: the limits of the range pass, and values outside are refused."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.option import InvalidValue, Option, argument_spec
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.options import (
    AFFINITIES,
    BACKEND,
    CONNECTION_RATE_PER_CLIENT,
    CONNECTIONS_PER_CLIENT,
    FAILOVER_POLICY,
    HEALTH_CHECK,
    LISTENER,
    LOG_CONFIG,
    SCHEDULERS,
)
from hypothesis import given
from hypothesis import strategies as st

OPTIONS = {
    "listener": LISTENER,
    "backend": BACKEND,
    "failover": FAILOVER_POLICY,
    "check": HEALTH_CHECK,
    "rate": CONNECTION_RATE_PER_CLIENT,
    "clients": CONNECTIONS_PER_CLIENT,
}

EDGES: list[tuple[str, str, list[Any], list[Any]]] = [
    # Row 5: for each option, the values that pass unchanged and the values that are refused.
    (
        "listener",
        "name",
        ["a", "a" * 63, "a1", "a-1", "x--y", "all-of-us"],
        ["all", "", "a" * 64, "A", "1a", "a-", "-a", "a\n", "a_b", "a.b", "a b", "é", 'a"', "a}", "a;drop", None, []],
    ),
    ("listener", "description", ["", "x" * 1024, 'quotes " and {braces}; é'], ["x" * 1025, "a\nb", "\t", "\x00", []]),
    ("listener", "protocol", ["tcp", "udp", "sctp", "any"], ["", "TCP", "icmp", "tcp\n", 6, True]),
    ("listener", "admin_state", ["enabled", "disabled"], ["", "drained", "Enabled", True]),
    ("listener", "scheduler", list(SCHEDULERS), ["", "MH", "wIc", "sed", "lblc"]),
    ("listener", "minimum_ring_size", [0, 1, 1009, 65521], [-1, 65522, 1.0, True, "", "x", None]),
    ("listener", "session_affinity", list(AFFINITIES), ["", "client_IP", "client_ip ", "source"]),
    (
        "listener",
        "ports",
        [["1"], ["65535"], ["1", "2", "65535"], ["all"], ["1-65535"], ["20-21", "80", "8000-8999"], ["80-81", "82"]],
        [
            [],
            ["0"],
            ["65536"],
            ["-1"],
            ["80", "80"],
            ["80", 80],
            ["80", "080"],
            ["0-1"],
            ["65535-65536"],
            ["90-80"],
            ["80-90", "90"],
            ["80-90", "90-100"],
            ["80-90", "81-82"],
            ["80-"],
            ["-80"],
            ["80 - 90"],
            ["80-90-100"],
            ["all", "80"],
            ["ALL"],
            ["80\n"],
            ["http"],
            ["1.5"],
            [1.5],
            [True],
            [None],
            [["80"]],
            "80",
            80,
            {"80": 1},
            None,
        ],
    ),
    ("listener", "tracking_mode", ["per_connection", "per_session"], ["", "PER_SESSION", "none"]),
    ("listener", "idle_timeout_sec", [60, 57600], [0, 59, 57601, 60.5, True, None]),
    ("listener", "max_connections", [0, 1, 2147483647], [-1, 2147483648, True, "many", None]),
    (
        "listener",
        "source_ranges",
        [[], ["198.18.0.0/15"], ["0.0.0.0/0"], ["198.18.0.0/24", "198.18.0.0/25", "2001:db8::/32"]],
        [
            "198.18.0.0/24",
            [""],
            ["all"],
            ["198.18.0.1/24"],
            ["198.18.0.0/33"],
            ["198.18.0.0/-1"],
            ["198.18.0.0/255.255.255.0"],
            ["198.18.0.0/024 "],
            ["198.18.0.0/24\n"],
            ["198.18.0/24"],
            ["2001:db8::1/64"],
            ["2001:db8::/129"],
            ["fe80::%eth0/64"],
            ["198.18.0.0-198.18.0.9"],
            [1.5],
            [None],
            [["198.18.0.0/24"]],
            None,
        ],
    ),
    ("listener", "max_connection_rate", [{}, {"rate": 1}], ["", 1, True, [], None]),
    ("listener", "max_connection_rate_per_client", [{}, {"rate": 1}], ["", 1, True, [], None]),
    ("listener", "max_connections_per_client", [{}, {"limit": 1}], ["", 1, True, [], None]),
    ("rate", "rate", [1, 1000000], [0, -1, 1000001, 1.5, True, "fast", None]),
    ("rate", "burst", [1, 1000000], [0, -1, 1000001, 1.5, True]),
    ("rate", "prefix", [1, 32, 128], [0, 129, "/24", True]),
    ("clients", "limit", [1, 4096], [0, 4097, True, None]),
    ("clients", "prefix", [1, 32, 128], [0, 129, "/24", True]),
    ("listener", "snat", ["none", "masquerade", "hairpin"], ["", "auto", "full"]),
    ("listener", "log_config", [{}, {"enable": True}], ["", True, [], None]),
    (
        "backend",
        "name",
        ["a", "x" * 253, "web-1.example", "198.19.0.1", "2001:db8::1", "_x", "9"],
        ["", "x" * 254, "-a", ".a", "a b", "a\n", 'a"', "a;", "a{", "é", None],
    ),
    ("backend", "port", [0, 1, 65535], [-1, 65536, "http", 1.5, False, None]),
    ("backend", "weight", [0, 1, 100, 65535], [-1, 65536, 70000, 10**12, "", "1e3", 1.0, True]),
    ("backend", "capacity_scaler", [0, 0.1, 0.5, 1], [-0.1, 0.05, 0.099, 1.01, True, "half", None, float("nan")]),
    ("backend", "max_connections", [0, 1, 2147483647], [-1, 2147483648, True, "many", None]),
    ("backend", "admin_state", ["enabled", "drained", "disabled"], ["", "down", "DRAINED"]),
    ("backend", "failover", [False, True], ["maybe", 2, None, []]),
    (
        "listener",
        "connection_persistence_on_unhealthy_backends",
        ["default_for_protocol", "never_persist", "always_persist"],
        ["", "DEFAULT_FOR_PROTOCOL", "persist", None],
    ),
    ("listener", "connection_draining_timeout_sec", [0, 3600], [-1, 3601, True, 1.5, None]),
    ("listener", "drain_mode", ["timed", "natural"], ["", "never", None]),
    ("listener", "slow_start_sec", [0, 3600], [-1, 3601, None]),
    ("failover", "failover_ratio", [0, 0.5, 1], [-0.01, 1.01, True, "half"]),
    (
        "check",
        "type",
        ["tcp", "tls", "http", "https", "http2", "grpc", "dns", "udp", "ping", "script"],
        ["", "TCP", "ssl", None],
    ),
    ("check", "port", [0, 65535], [-1, 65536]),
    ("check", "address", ["198.19.0.1", "2001:db8::1"], ["", "127.0.0.1", "name"]),
    ("check", "check_interval_sec", [1, 300], [0, 301]),
    ("check", "timeout_sec", [1, 300], [0, 301]),
    ("check", "healthy_threshold", [1, 10], [0, 11]),
    ("check", "unhealthy_threshold", [1, 10], [0, 11]),
    ("check", "request", ["", "PING\r\n", "x" * 1024], ["x" * 1025, "a\udc80", None]),
    ("check", "response", ["", "+PONG"], ["é" * 513, "\ud800"]),
    ("check", "request_path", ["/", "/a?b=c#d"], ["", "a", "/a b", "/a\r\nHost: b", "/é", "/" + "x" * 2048]),
    (
        "check",
        "host",
        ["", "www.example.com", "a:8080", "[2001:db8::1]:80", "x" * 63, "2001:db8::1", "198.19.0.1", "a.example."],
        ["a b", "a\r\nb", "-a", "é", "a..b", "x" * 64, ".a", "[:]", "a:b:c", ".".join(["x" * 63] * 4)],
    ),
    ("check", "status", [["200"], ["200", "300-399"], ["100-599"]], [[], ["99"], ["600"], ["300-200"], ["ok"], [True]]),
    (
        "check",
        "json_query",
        ["", "status == 'ok'", "sort_by(x, &a)[0].b == `1`", "a[1:9:2] == `[]`"],
        ["a\nb", "x" * 1025, "&a", "[&a]", "a[::0]", "[?a[::0]]", "[[[", "(" * 900, "no_function(@)"],
    ),
    ("check", "ca_file", ["/etc/ssl/ca.pem"], ["ca.pem", "", "/a\nb", "/\udc80"]),
    ("check", "tls", [False, True], ["maybe", 2, None]),
    ("check", "proxy_header", ["none", "proxy_v1"], ["PROXY_V1", ""]),
    ("check", "grpc_service_name", ["", "a.b.C"], ["a b", "x" * 256]),
    ("check", "query", ["", "example.com", "example.com.", "_sip._tcp.example.com", "."], ["a b", "a..b", "x" * 64]),
    ("check", "query", ["a." * 126 + "a", "a." * 127], ["a." * 126 + "aa", "a." * 126 + "aa."]),
    ("check", "query_type", ["A", "SRV"], ["a", "ANY", ""]),
    (
        "check",
        "command",
        [[], ["/bin/true"], ["/usr/bin/nc", "-z", "a b"]],
        [["true"], ["./x"], ["/a"] * 65, "/x", ["/a", "\udc80"]],
    ),
]

ADDRESSES = ["198.18.0.1", "1.0.0.0", "223.255.255.255", "255.255.255.254", "2001:db8::1", "fd00::1", "0:0:1::"]

NO_ADDRESSES = [
    "",
    "198.18.0.1/32",
    "198.18.0.256",
    "198.18.0",
    "198.18.0.01",
    "198.18.0.1\n",
    " 198.18.0.1",
    "0.0.0.0",
    "0.0.0.1",
    "127.0.0.1",
    "127.255.255.255",
    "224.0.0.1",
    "239.255.255.255",
    "255.255.255.255",
    "::",
    "::1",
    "::198.18.0.1",
    "::ffff:198.18.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "2001:db8::1%1",
    "2001:db8::1/128",
    "ff02::1",
    "2001:db8::g",
    "1",
    1,
    None,
    "example.org",
    "198.18.0.1 . tcp . 80 : drop",
]


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [(kind, option, value) for kind, option, passes, _refused in EDGES for value in passes],
)
def test_a_value_at_the_limit_passes(kind: str, option: str, value: Any) -> None:
    """Rows 1 and 5."""
    assert OPTIONS[kind][option].canonical(value) == value


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [(kind, option, value) for kind, option, _passes, refused in EDGES for value in refused],
)
def test_a_value_outside_the_range_is_refused(kind: str, option: str, value: Any) -> None:
    """Rows 1 and 5."""
    with pytest.raises(InvalidValue):
        OPTIONS[kind][option].canonical(value)


@pytest.mark.parametrize("kind", ["listener", "backend"])
@pytest.mark.parametrize("value", ADDRESSES)
def test_a_unicast_address_passes(kind: str, value: str) -> None:
    assert OPTIONS[kind]["address"].canonical(value) == value


@pytest.mark.parametrize("kind", ["listener", "backend"])
@pytest.mark.parametrize("value", NO_ADDRESSES)
def test_other_values_than_unicast_addresses_are_refused(kind: str, value: Any) -> None:
    with pytest.raises(InvalidValue):
        OPTIONS[kind]["address"].canonical(value)


@pytest.mark.parametrize(
    ("option", "value", "canonical"),
    [
        (LISTENER["address"], "2001:0DB8:0:0:0:0:0:1", "2001:db8::1"),
        (LISTENER["address"], "2001:db8::0.0.0.1", "2001:db8::1"),
        (LISTENER["ports"], ["443", 80, "08080"], ["80", "443", "8080"]),
        (LISTENER["minimum_ring_size"], "1009", 1009),
        (LISTENER["ports"], ["8080-8090", 80, "0443-443"], ["80", "443", "8080-8090"]),
        (LISTENER["ports"], ["all"], ["all"]),
        (BACKEND["weight"], "007", 7),
        (BACKEND["capacity_scaler"], "0.33333", 0.333),
        (LOG_CONFIG["sample_rate"], "0.1", 0.1),
        (LOG_CONFIG["enable"], "yes", True),
        (BACKEND["name"], 5, "5"),
    ],
)
def test_equal_values_have_the_same_canonical_form(option: Option, value: Any, canonical: Any) -> None:
    assert option.canonical(value) == canonical
    assert option.canonical(canonical) == canonical


@given(
    st.sampled_from([(kind, name) for kind, options in OPTIONS.items() for name in options]),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.ip_addresses().map(str)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
        max_leaves=5,
    ),
)
def test_any_value_is_refused_or_has_a_canonical_form(place: tuple[str, str], value: Any) -> None:
    option = OPTIONS[place[0]][place[1]]
    try:
        canonical = option.canonical(value)
    except InvalidValue as refused:
        assert "\n" not in str(refused)
    else:
        assert option.canonical(canonical) == canonical


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        (BACKEND["weight"], 70000, "70000 is not in 0–65535"),
        (LISTENER["scheduler"], "sed", f"'sed' is not one of {', '.join(SCHEDULERS)}"),
        (LISTENER["scheduler"], "wIc", f"'wIc' is not one of {', '.join(SCHEDULERS)}; its second letter is an l: wlc"),
        (LISTENER["ports"], ["0"], "'0' is not a port of 1–65535 or a range a-b of them, or all alone"),
        (LISTENER["ports"], ["80-90", "85"], "80-90 and 85 overlap"),
        (BACKEND["capacity_scaler"], 0.05, "0.05 is not 0 or in 0.1–1.0"),
        (LOG_CONFIG["sample_rate"], 1.01, "1.01 is not in 0–1"),
        (LISTENER["ports"], [80, "80"], "80 is listed twice"),
        (BACKEND["weight"], "x" * 5000, "'" + "x" * 76 + "... is not a whole number"),
    ],
)
def test_the_error_names_the_allowed_values(option: Option, value: Any, text: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        option.canonical(value)
    assert str(refused.value) == text


def test_the_argument_spec_has_no_defaults() -> None:
    """An option that a task leaves out keeps its live value."""
    spec = argument_spec(LISTENER)
    assert spec["ports"] == {"type": "list", "elements": "str", "required": True}
    assert spec["scheduler"] == {"type": "str", "choices": list(SCHEDULERS)}
    assert spec["log_config"]["options"] == {"enable": {"type": "bool"}, "sample_rate": {"type": "float"}}
    assert argument_spec(BACKEND)["weight"] == {"type": "int"}
    assert not any("default" in entry for entry in spec.values())
