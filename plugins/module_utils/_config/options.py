# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of listeners, backends, drains and nodes, for argument specs, validation and defaults."""

from __future__ import annotations

from .option import Option, defaults
from .values import (
    absolute_path,
    backend_name,
    capacity_scaler,
    command,
    description,
    domain_name,
    host_name,
    interface_name,
    json_query,
    listener_name,
    machines,
    payload,
    port_list,
    ratio,
    request_path,
    service_name,
    source_ranges,
    status_list,
    unicast_address,
)

SCHEDULERS = ("mh", "wrr", "rr", "wlc", "lc", "sh", "dh")
HASH_SCHEDULERS = ("mh", "sh", "dh")
"""Schedulers that select a backend by a hash of the packet, in a Maglev table."""
LEAST_CONN_SCHEDULERS = ("wlc", "lc")
"""Schedulers whose shares follow the number of active flows."""
EVEN_SCHEDULERS = ("rr", "lc")
"""Schedulers for which all weights above 0 are equal."""

PROTOCOLS = ("tcp", "udp", "sctp", "any")
AFFINITIES = ("none", "client_ip_port_proto", "client_ip_proto", "client_ip", "client_ip_no_destination")
LISTENER_ADMIN_STATES = ("enabled", "disabled")
TRACKING_MODES = ("per_connection", "per_session")
SNATS = ("none", "masquerade", "hairpin")
BACKEND_ADMIN_STATES = ("enabled", "drained", "disabled")
PERSISTENCES = ("default_for_protocol", "never_persist", "always_persist")
DRAIN_MODES = ("timed", "natural")
PROXY_HEADERS = ("none", "proxy_v1")
QUERY_TYPES = ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT")

CHECK_TYPES = ("tcp", "tls", "http", "https", "http2", "grpc", "dns", "udp", "ping", "script")
CHECK_OPTIONS = {
    "tcp": ("request", "response", "proxy_header"),
    "tls": ("host", "tls_verify", "ca_file", "proxy_header"),
    "http": ("request_path", "host", "status", "response", "json_query", "proxy_header", "dynamic_weight"),
    "https": (
        *("request_path", "host", "status", "response", "json_query", "proxy_header", "dynamic_weight"),
        *("tls_verify", "ca_file"),
    ),
    "http2": (
        *("request_path", "host", "status", "response", "json_query", "proxy_header", "dynamic_weight"),
        *("tls", "tls_verify", "ca_file"),
    ),
    "grpc": ("host", "grpc_service_name", "tls", "tls_verify", "ca_file"),
    "dns": ("query", "query_type"),
    "udp": ("request", "response"),
    "ping": (),
    "script": ("command", "dynamic_weight"),
}
"""The options of each type of health check, without those that all types have."""
CHECKS_WITHOUT_PORT = ("ping", "script")
FORWARD_POLICIES = ("none", "vips")
VIP_MODES = ("none", "address")
PURGES = ("none", "backends", "listeners", "all")

MAX_RING_SIZE = 65521
MAX_CONNECTIONS = 0x7FFFFFFF

MAX_RATE = 1000000
MAX_CONNECTIONS_PER_CLIENT = 4096
"""The kernel walks a list of the client's flows for each new one: 4,096 take 10 µs."""

CONNECTION_RATE = {
    "rate": Option("int", required=True, bounds=(1, MAX_RATE)),
    "burst": Option("int", bounds=(1, MAX_RATE)),
}
"""The default of ``burst`` is the rate."""

_CLIENT_PREFIX = {"prefix": Option("int", bounds=(1, 128))}
"""How many bits of the source address make a client. The default is all of them."""

CONNECTION_RATE_PER_CLIENT = {**CONNECTION_RATE, **_CLIENT_PREFIX}

CONNECTIONS_PER_CLIENT = {
    "limit": Option("int", required=True, bounds=(1, MAX_CONNECTIONS_PER_CLIENT)),
    **_CLIENT_PREFIX,
}

LOG_CONFIG = {
    "enable": Option("bool", default=False),
    "sample_rate": Option("float", default=1.0, check=ratio),
}

HEALTH_CHECK = {
    "type": Option("str", required=True, choices=CHECK_TYPES),
    "port": Option("int", default=0, bounds=(0, 65535)),
    "address": Option("str", check=unicast_address),
    "check_interval_sec": Option("int", default=5, bounds=(1, 300)),
    "timeout_sec": Option("int", default=5, bounds=(1, 300)),
    "healthy_threshold": Option("int", default=2, bounds=(1, 10)),
    "unhealthy_threshold": Option("int", default=2, bounds=(1, 10)),
    "request": Option("str", default="", check=payload),
    "response": Option("str", default="", check=payload),
    "request_path": Option("str", default="/", check=request_path),
    "host": Option("str", default="", check=host_name),
    "status": Option("list", default=["200"], elements="str", check=status_list),
    "json_query": Option("str", default="", check=json_query),
    "tls": Option("bool", default=False),
    "tls_verify": Option("bool", default=True),
    "ca_file": Option("str", check=absolute_path),
    "proxy_header": Option("str", default="none", choices=PROXY_HEADERS),
    "grpc_service_name": Option("str", default="", check=service_name),
    "query": Option("str", default="", check=domain_name),
    "query_type": Option("str", default="A", choices=QUERY_TYPES),
    "command": Option("list", default=[], elements="str", check=command),
    "dynamic_weight": Option("bool", default=False),
}

FAILOVER_POLICY = {
    "failover_ratio": Option("float", default=0.0, check=ratio),
    "drop_traffic_if_unhealthy": Option("bool", default=False),
    "disable_connection_drain_on_failover": Option("bool", default=False),
}

LISTENER = {
    "name": Option("str", required=True, check=listener_name),
    "description": Option("str", default="", check=description),
    "address": Option("str", required=True, check=unicast_address),
    "protocol": Option("str", required=True, choices=PROTOCOLS),
    "ports": Option("list", required=True, elements="str", check=port_list),
    "admin_state": Option("str", default="enabled", choices=LISTENER_ADMIN_STATES),
    "scheduler": Option("str", default="mh", choices=SCHEDULERS, hints={"wIc": "; its second letter is an l: wlc"}),
    "minimum_ring_size": Option("int", default=0, bounds=(0, MAX_RING_SIZE)),
    "session_affinity": Option("str", default="none", choices=AFFINITIES),
    "tracking_mode": Option("str", default="per_connection", choices=TRACKING_MODES),
    "idle_timeout_sec": Option("int", bounds=(60, 57600)),
    "connection_persistence_on_unhealthy_backends": Option("str", default="default_for_protocol", choices=PERSISTENCES),
    "connection_draining_timeout_sec": Option("int", default=300, bounds=(0, 3600)),
    "drain_mode": Option("str", default="timed", choices=DRAIN_MODES),
    "health_check": Option("dict", options=HEALTH_CHECK),
    "failover_policy": Option("dict", default=defaults(FAILOVER_POLICY), options=FAILOVER_POLICY),
    "max_connections": Option("int", default=0, bounds=(0, MAX_CONNECTIONS)),
    "source_ranges": Option("list", default=[], elements="str", check=source_ranges),
    "max_connection_rate": Option("dict", options=CONNECTION_RATE),
    "max_connection_rate_per_client": Option("dict", options=CONNECTION_RATE_PER_CLIENT),
    "max_connections_per_client": Option("dict", options=CONNECTIONS_PER_CLIENT),
    "slow_start_sec": Option("int", default=0, bounds=(0, 3600)),
    "snat": Option("str", default="none", choices=SNATS),
    "log_config": Option("dict", default=defaults(LOG_CONFIG), options=LOG_CONFIG),
}
"""The options of a listener, without ``backends``, a list of dictionaries with the options :data:`BACKEND`."""

BACKEND = {
    "name": Option("str", check=backend_name),
    "address": Option("str", required=True, check=unicast_address),
    "port": Option("int", default=0, bounds=(0, 65535)),
    "weight": Option("int", default=100, bounds=(0, 65535)),
    "capacity_scaler": Option("float", default=1.0, check=capacity_scaler),
    "failover": Option("bool", default=False),
    "admin_state": Option("str", default="enabled", choices=BACKEND_ADMIN_STATES),
    "max_connections": Option("int", default=0, bounds=(0, MAX_CONNECTIONS)),
}
"""The options of a backend. The default of ``name`` is the address."""

_MAX_TIMEOUT = 7 * 24 * 3600

DRAIN = {
    "backends": Option("list", elements="str", required=True, check=machines),
    "listener": Option("list", elements="str", default=["all"]),
    "state": Option("str", default="drained", choices=("drained", "active")),
    "wait": Option("bool", default=True),
    "timeout": Option("int", bounds=(0, _MAX_TIMEOUT)),
    "on_timeout": Option("str", default="terminate", choices=("terminate", "fail", "continue")),
    "max_connections": Option("int", default=0, bounds=(0, 2**31 - 1)),
    "poll_interval": Option("int", default=1, bounds=(1, 3600)),
    "progress_interval": Option("int", default=10, bounds=(0, 3600)),
    "min_eligible": Option("int", default=1, bounds=(0, 65535)),
    "out_elsewhere": Option("list", elements="str", default=[], check=machines),
    "not_found": Option("str", default="fail", choices=("fail", "ignore")),
}
"""The options of a drain."""

NODE = {
    "hash_seed": Option("int", default=24301, bounds=(0, 0xFFFFFFFF)),
    "vip_mode": Option("str", default="none", choices=VIP_MODES),
    "vip_interface": Option("str", default="", check=interface_name),
    "vip_dedicated": Option("bool"),
    "forward_policy": Option("str", default="none", choices=FORWARD_POLICIES),
    "log_group": Option("int", default=5, bounds=(0, 65535)),
    "conntrack_max": Option("int", default=262144, bounds=(1024, 0x7FFFFFFF)),
}
"""The settings of a node, as the role writes them to ``node.json``."""
