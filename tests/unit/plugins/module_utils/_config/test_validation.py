# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of invalid input: one message has all errors, each with the path of the option."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.options import (
    AFFINITIES,
    MAX_RING_SIZE,
    PROTOCOLS,
    SCHEDULERS,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.rules import check_document, warnings
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.validation import (
    Faults,
    parse_backend,
    parse_listener,
    parse_listeners,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import InvalidInput
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP, VIP6, backend, check, document, listener


def parse_errors(items: Any) -> list[str]:
    """Return the errors that parsing a list of listeners reports."""
    faults = Faults()
    parse_listeners(items, faults)
    return faults.errors


def document_errors(after: Document, before: Document | None = None) -> list[str]:
    """Return the errors that the check of the whole configuration reports."""
    faults = Faults()
    check_document(after, before or {}, faults)
    return faults.errors


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_schedulers_without_hashing_warn_about_datagrams(scheduler: str, protocol: str) -> None:
    texts = warnings(listener("web", scheduler=scheduler, protocol=protocol))
    assert len(texts) == (scheduler not in ("mh", "sh", "dh") and protocol in ("udp", "any"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seconds", [None, 60])
def test_an_idle_timeout_for_sctp_is_a_warning(protocol: str, seconds: int | None) -> None:
    texts = warnings(listener("web", protocol=protocol, idle_timeout_sec=seconds))
    assert len(texts) == (protocol == "sctp" and seconds is not None)


class TestParsing:
    def test_all_errors_are_in_one_message_with_their_paths(self) -> None:
        """Row 5."""
        faults = Faults()
        backends = [{"address": "198.19.0.1", "weight": 70000}, {"address": "nowhere", "port": -1}, {}, 7]
        parse_listeners(
            [
                {"name": "ok"},
                {"name": "Web", "protocol": "icmp", "backends": backends},
                {"name": "ok", "colour": "red", "ports": ["0"]},
                "text",
            ],
            faults,
        )
        with pytest.raises(InvalidInput) as refused:
            faults.raise_if_any()
        assert refused.value.errors == [
            "listeners[1].name: 'Web' is not a name: 1 to 63 of a-z, 0-9 and -, a letter first, no hyphen last "
            "(RFC 1035)",
            "listeners[1].protocol: 'icmp' is not one of tcp, udp, sctp, any",
            "listeners[1].backends[0].weight: 70000 is not in 0–65535",
            "listeners[1].backends[1].address: 'nowhere' is not a unicast IPv4 or IPv6 address without prefix or zone",
            "listeners[1].backends[1].port: -1 is not in 0–65535",
            "listeners[1].backends[2].address: required",
            "listeners[1].backends[3]: 7 is not a dictionary",
            "listeners[2].colour: unknown option; allowed: name, description, address, protocol, ports, admin_state, "
            "scheduler, minimum_ring_size, session_affinity, tracking_mode, idle_timeout_sec, "
            "connection_persistence_on_unhealthy_backends, connection_draining_timeout_sec, drain_mode, health_check, "
            "failover_policy, max_connections, source_ranges, max_connection_rate, max_connection_rate_per_client, "
            "max_connections_per_client, slow_start_sec, snat, log_config, backends, ignore",
            "listeners[2].ports: '0' is not a port of 1–65535 or a range a-b of them, or all alone",
            "listeners[2].name: 'ok' is listed twice",
            "listeners[3]: 'text' is not a dictionary",
        ]
        assert str(refused.value) == "; ".join(refused.value.errors)

    @pytest.mark.parametrize(
        ("items", "error"),
        [
            (None, "listeners: required"),
            ({}, "listeners: {} is not a list"),
            ("web", "listeners: 'web' is not a list"),
            ([None], "listeners[0]: None is not a dictionary"),
            ([{}], "listeners[0].name: required"),
            ([{"name": None}], "listeners[0].name: required"),
            ([{"name": "web", "backends": "b1"}], "listeners[0].backends: 'b1' is not a list"),
            ([{"name": "web", "backends": [{"address": None}]}], "listeners[0].backends[0].address: required"),
            (
                [{"name": "web", "backends": [{"address": "198.19.0.1", "ignore": True}]}],
                "listeners[0].backends[0].ignore: unknown option; allowed: name, address, port, weight, "
                "capacity_scaler, failover, admin_state, max_connections",
            ),
        ],
    )
    def test_values_of_the_wrong_type_are_errors(self, items: Any, error: str) -> None:
        assert error in parse_errors(items)

    @pytest.mark.parametrize("port", [{}, {"port": 0}, {"port": None}, {"port": "0"}])
    def test_a_backend_that_is_listed_twice_is_an_error(self, port: dict[str, Any]) -> None:
        backends = [{"address": "2001:db8::1"}, {"address": "2001:DB8:0::1", **port}]
        assert parse_errors([{"name": "web", "backends": backends}]) == [
            "listeners[0].backends[1]: 2001:db8::1 port 0 is listed twice"
        ]

    def test_a_machine_may_have_two_ports(self) -> None:
        backends = [{"address": "198.19.0.1", "port": 80}, {"address": "198.19.0.1", "port": 81}]
        assert parse_errors([{"name": "web", "backends": backends}]) == []

    def test_only_given_options_are_returned_in_canonical_form(self) -> None:
        faults = Faults()
        parsed = parse_listener(
            {
                "name": "web",
                "address": "2001:DB8::0:1",
                "ports": [443, "80"],
                "description": None,
                "backends": [{"address": "2001:DB8::2", "weight": "5", "name": None}],
            },
            faults,
        )
        assert parsed == {
            "name": "web",
            "address": "2001:db8::1",
            "ports": ["80", "443"],
            "backends": [{"address": "2001:db8::2", "weight": 5, "port": 0}],
        }
        assert not faults.errors

    def test_a_dictionary_option_gets_the_defaults_of_its_keys(self) -> None:
        faults = Faults()
        parsed = parse_listener({"name": "web", "log_config": {"enable": "yes", "sample_rate": None}}, faults)
        assert parsed["log_config"] == {"enable": True, "sample_rate": 1.0}
        parse_listeners([{"name": "web", "log_config": {"sample_rate": 1.01, "colour": 1}}], faults)
        assert faults.errors == [
            "listeners[0].log_config.sample_rate: 1.01 is not in 0–1",
            "listeners[0].log_config.colour: unknown option; allowed: enable, sample_rate",
        ]

    def test_a_backend_without_a_listener(self) -> None:
        faults = Faults()
        assert parse_backend({"address": "198.19.0.1", "port": None}, faults) == {"address": "198.19.0.1", "port": 0}
        parse_backend({"weight": -1}, faults)
        assert faults.errors == ["weight: -1 is not in 0–65535", "address: required"]

    def test_no_faults_raise_no_error(self) -> None:
        Faults().raise_if_any()


class TestWholeConfiguration:
    def test_a_valid_configuration(self) -> None:
        web = listener("web", backend("198.19.0.1"), backend("198.19.0.1", 81))
        assert document_errors(document(web, listener("six", backend("2001:db8::1"), address=VIP6))) == []

    @pytest.mark.parametrize(
        ("options", "errors"),
        [
            ({"ports": ["443"]}, []),
            ({"protocol": "udp"}, []),
            ({"address": "198.18.0.11"}, []),
            ({"address": VIP6}, []),
            ({}, [f"listener web.ports: 80/tcp on {VIP} is served by listener api (80) already"]),
            (
                {"ports": ["79", "80", "81", "90"]},
                [
                    f"listener web.ports: {port}/tcp on {VIP} is served by listener api ({port}) already"
                    for port in ("80", "90")
                ],
            ),
            ({"ports": ["75-79"]}, []),
            ({"ports": ["75-80"]}, [f"listener web.ports: 75-80/tcp on {VIP} is served by listener api (80) already"]),
            ({"protocol": "udp", "ports": ["all"]}, []),
            ({"protocol": "any", "ports": ["all"]}, []),
        ],
    )
    def test_overlapping_ports_are_an_error(self, options: dict[str, Any], errors: list[str]) -> None:
        """Row 6, for lists and ranges."""
        after = document(listener("api", ports=["70", "80", "90"]), listener("web", **options))
        assert document_errors(after) == errors

    def test_all_ports_overlap_with_every_port(self) -> None:
        """Row 6."""
        after = document(listener("api", ports=["80-90"]), listener("web", ports=["all"]))
        assert document_errors(after) == [
            f"listener web.ports: all/tcp on {VIP} is served by listener api (80-90) already"
        ]

    def test_an_overlap_names_the_path_of_the_users_listener(self) -> None:
        faults = Faults()
        parse_listeners([{"name": "api"}], faults)
        check_document(document(listener("api"), listener("web")), {}, faults)
        assert faults.errors == [f"listeners[0].ports: 80/tcp on {VIP} is served by listener web (80) already"]

    @pytest.mark.parametrize(
        ("kind", "options", "errors"),
        [
            ("grpc", {"tls": True, "tls_verify": False, "ca_file": "/ca.pem"}, []),
            ("grpc", {"tls_verify": False}, ["tls_verify: false needs tls: true with type grpc"]),
            ("grpc", {"ca_file": "/ca.pem"}, ['ca_file: "/ca.pem" needs tls: true with type grpc']),
            ("tls", {"tls_verify": False, "ca_file": "/ca.pem"}, []),
            ("tls", {"tls": True}, ["tls: is not an option of type tls, only of http2, grpc"]),
            (
                "tls",
                {"response": "a"},
                ["response: is not an option of type tls, only of tcp, http, https, http2, udp"],
            ),
            (
                "http",
                {"ca_file": "/ca.pem"},
                ["ca_file: is not an option of type http, only of tls, https, http2, grpc"],
            ),
            ("http2", {"tls": True, "ca_file": "/ca.pem", "response": "a", "dynamic_weight": True}, []),
            ("http2", {"ca_file": "/ca.pem"}, ['ca_file: "/ca.pem" needs tls: true with type http2']),
        ],
    )
    def test_options_of_checks_with_tls(self, kind: str, options: dict[str, Any], errors: list[str]) -> None:
        """Row 5."""
        after = document(listener("web", health_check=check(kind, **options)))
        assert document_errors(after) == [f"listener web.health_check.{error}" for error in errors]

    @pytest.mark.parametrize("ports", [["all"], ["80-90"], ["80", "81-82"]])
    def test_a_range_forbids_backend_ports(self, ports: list[str]) -> None:
        """Row 5."""
        after = document(listener("web", backend("198.19.0.1", 80), backend("198.19.0.2"), ports=ports))
        assert document_errors(after) == [
            "listener web.backend 198.19.0.1 port 80.port: "
            f"80: with ports {', '.join(ports)} the only allowed value is 0"
        ]

    def test_any_protocol_needs_all_ports(self) -> None:
        """Row 5."""
        assert document_errors(document(listener("web", protocol="any", ports=["80", "81-82"]))) == [
            "listener web.ports: 80, 81-82: with protocol any the only allowed value is all"
        ]

    def test_the_capacity_scaler_of_a_single_backend(self) -> None:
        """Row 5."""
        only = backend("198.19.0.1", capacity_scaler=0.0)
        assert document_errors(document(listener("web", only))) == [
            "listener web.backend 198.19.0.1 port 0.capacity_scaler: 0 is not allowed for a listener's only backend; "
            "allowed: 0.1–1.0"
        ]
        assert document_errors(document(listener("web", only, backend("198.19.0.2")))) == []

    def test_required_options_of_a_new_listener(self) -> None:
        after = document(listener("web", address=None, protocol=None, ports=None))
        assert document_errors(after) == [
            f"listener web.{option}: required for a new listener" for option in ("address", "protocol", "ports")
        ]

    def test_an_invalid_value_is_not_reported_as_missing(self) -> None:
        faults = Faults()
        parse_listeners([{"name": "web", "address": "nowhere", "protocol": "tcp", "ports": ["90-80"]}], faults)
        check_document(document(listener("web", address=None, ports=None)), {}, faults)
        assert [error.split(":")[0] for error in faults.errors] == ["listeners[0].address", "listeners[0].ports"]

    def test_the_protocol_cannot_change_in_place(self) -> None:
        before = document(listener("web", protocol="udp"))
        assert document_errors(document(listener("web")), before) == [
            "listener web.protocol: cannot become 'tcp' in place, it is 'udp'; remove the listener first"
        ]
        assert document_errors(before, before) == []

    @pytest.mark.parametrize("scheduler", SCHEDULERS)
    @pytest.mark.parametrize("affinity", AFFINITIES)
    def test_an_affinity_needs_a_hash_or_a_session(self, scheduler: str, affinity: str) -> None:
        """Row 5: every pair of scheduler and affinity."""
        options = listener("web", scheduler=scheduler, session_affinity=affinity)
        errors = []
        if affinity != "none" and scheduler not in ("mh", "sh", "dh"):
            errors = [
                f"listener web.session_affinity: {affinity!r} with scheduler {scheduler}, which does not hash "
                "(mh, sh, dh do), needs tracking_mode per_session; with per_connection the only allowed value is none"
            ]
        assert document_errors(document(options)) == errors
        assert document_errors(document({**options, "tracking_mode": "per_session"})) == []

    @pytest.mark.parametrize(
        ("vip", "address", "text"),
        [
            (VIP, "2001:db8::1", f"2001:db8::1 is not IPv4, as the listener's {VIP} is"),
            (VIP6, "198.19.0.1", f"198.19.0.1 is not IPv6, as the listener's {VIP6} is"),
            (VIP, VIP, f"{VIP} is the listener's own address"),
        ],
    )
    def test_a_backend_address_that_does_not_fit_the_listener(self, vip: str, address: str, text: str) -> None:
        after = document(listener("web", backend(address), address=vip))
        assert document_errors(after) == [f"listener web.backend {address} port 0.address: {text}"]

    def test_an_error_in_a_backend_names_the_path_of_the_users_backend(self) -> None:
        faults = Faults()
        parse_listeners([{"name": "web", "backends": [{"address": "198.19.0.1"}, {"address": VIP}]}], faults)
        check_document(document(listener("web", backend("198.19.0.1"), backend(VIP))), {}, faults)
        assert faults.errors == [f"listeners[0].backends[1].address: {VIP} is the listener's own address"]

    @pytest.mark.parametrize(
        ("vip", "options", "error"),
        [
            (
                VIP,
                {"source_ranges": ["198.18.0.0/24", "2001:db8::/64"]},
                f"source_ranges: 2001:db8::/64 is not IPv4, as the listener's {VIP} is",
            ),
            (
                VIP6,
                {"source_ranges": ["0.0.0.0/0"]},
                f"source_ranges: 0.0.0.0/0 is not IPv6, as the listener's {VIP6} is",
            ),
            (
                VIP,
                {"max_connection_rate_per_client": {"rate": 1, "burst": None, "prefix": 33}},
                "max_connection_rate_per_client.prefix: 33 is not in 1–32, the bits of an IPv4 address",
            ),
            (
                VIP,
                {"max_connections_per_client": {"limit": 1, "prefix": 128}},
                "max_connections_per_client.prefix: 128 is not in 1–32, the bits of an IPv4 address",
            ),
            (VIP6, {"max_connections_per_client": {"limit": 1, "prefix": 128}}, None),
        ],
    )
    def test_clients_are_of_the_family_of_the_listener(
        self, vip: str, options: dict[str, Any], error: str | None
    ) -> None:
        """Row 5."""
        errors = document_errors(document(listener("web", address=vip, **options)))
        assert errors == ([f"listener web.{error}"] if error else [])

    def test_at_most_as_many_backends_as_a_table_has_slots(self) -> None:
        backends = [backend("198.19.0.1", port) for port in range(MAX_RING_SIZE)]
        assert document_errors({"web": {**listener("web"), "backends": backends}}) == []
        backends.append(backend("198.19.0.2"))
        assert document_errors({"web": {**listener("web"), "backends": backends}}) == [
            "listener web.backends: 65522 are more than 65521"
        ]
