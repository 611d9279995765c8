# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from textwrap import indent

_BACKEND = r"""
name:
  description:
    - The machine's name. Default of a new registration is the address.
  type: str
address:
  description:
    - The backend's address, of the listener's address family.
  type: str
  required: true
port:
  description:
    - The backend's port. With V(0), also if it is not given, a packet keeps its destination port.
    - Part of the registration's identity, so another port is another registration.
  type: int
weight:
  description:
    - Share of new flows, 0 to 65535. With V(0) there are none; existing flows go on.
    - A new registration has V(100).
  type: int
capacity_scaler:
  description:
    - Factor of the weight, 0 or 0.1 to 1.0. A listener's only backend cannot have 0.
    - A new registration has V(1.0).
  type: float
max_connections:
  description:
    - How many flows it may have, 0 to 2147483647. More go to other backends; one SYN may need its retry. If all are
      full, new flows are rejected. V(0) is no limit.
    - Flows that live when a limit is edited count for it too. Those of them that have ended since are given back by
      the next run of a module.
    - A new registration has V(0).
  type: int
failover:
  description:
    - Whether it is one of those that take over when the others fail; see the listener's C(failover_policy).
    - A new registration has V(false).
  type: bool
admin_state:
  description:
    - V(drained) gives no new flows; existing flows go on until the listener's draining timeout.
    - V(disabled) ends existing flows at once.
    - A new registration is V(enabled).
  type: str
  choices: [enabled, drained, disabled]
"""

_LISTENER = r"""
name:
  description:
    - The listener's name, an RFC 1035 label of 1 to 63 characters.
  type: str
  required: true
description:
  description:
    - Free text, one line.
  type: str
address:
  description:
    - The VIP, an IPv4 or IPv6 address. A new listener needs it.
  type: str
protocol:
  description:
    - The transport protocol. A new listener needs it, and it cannot be changed in place.
    - V(any) is every IP protocol, ICMP to the VIP included, and needs C(ports=all). A listener for one protocol on
      the same address goes before it.
  type: str
  choices: [tcp, udp, sctp, any]
ports:
  description:
    - Ports, each 1 to 65535, and ranges C(a-b) of them, or V(all) alone. A new listener needs them.
    - Two listeners cannot share a port of one address and protocol.
    - With a range or V(all) a packet keeps its port, so backends cannot have one.
  type: list
  elements: str
admin_state:
  description:
    - V(disabled) rejects new flows; existing ones stay.
    - A new listener is V(enabled).
  type: str
  choices: [enabled, disabled]
scheduler:
  description:
    - How a new flow gets its backend.
    - V(mh) is weighted Maglev hashing. Every node with the same seed chooses alike, and a backend that goes moves few
      flows of others.
    - V(wrr) is smooth weighted round robin, exact to the flow.
    - V(rr) is round robin whatever the weights, as long as they are above 0.
    - V(wlc) sends new flows where there are the fewest active ones for the weight, V(lc) whatever the weights. The
      shares are dealt anew by load while the node's agent runs; without it they are those of V(wrr) and V(rr).
    - V(sh) and V(dh) hash the client's address and the VIP alone, in a table like that of V(mh).
    - Two first datagrams that a UDP client sends at once can go to different backends with V(rr), V(wrr), V(lc) and
      V(wlc); a module warns of it.
    - A new listener has V(mh).
  type: str
  choices: [mh, wrr, rr, wlc, lc, sh, dh]
minimum_ring_size:
  description:
    - Smallest number of slots in the table of a scheduler that hashes, 0 to 65521.
    - The size is the smallest of 1009, 4093, 16381 and 65521 that is neither below this nor below 100 times the
      number of registered backends. Another size moves nearly every flow without a conntrack entry.
    - A new listener has V(0).
  type: int
session_affinity:
  description:
    - What of a packet is hashed by V(mh), and what a session is known by with C(tracking_mode=per_session). Flows
      that are equal in it meet on one backend.
    - V(none) and V(client_ip_port_proto) take both addresses, both ports and the protocol.
    - V(client_ip_proto) takes both addresses and the protocol, V(client_ip) both addresses,
      V(client_ip_no_destination) the client's address.
    - V(sh) and V(dh) hash their own tuple, which brings flows together that are equal in any of these.
    - A scheduler that does not hash allows only V(none) without C(tracking_mode=per_session).
    - A new listener has V(none).
  type: str
  choices: [none, client_ip_port_proto, client_ip_proto, client_ip, client_ip_no_destination]
tracking_mode:
  description:
    - V(per_connection) schedules every flow. V(per_session) sends a client's next flows where its first one went, as
      long as that backend may have new flows, whatever happens to the others.
    - A new listener has V(per_connection).
  type: str
  choices: [per_connection, per_session]
idle_timeout_sec:
  description:
    - Seconds after which an idle session, established TCP flow or UDP flow is flows_to_delete, 60 to 57600.
    - If it was never given, sessions live 600 seconds after the client's last packet, and flows have the kernel's own
      time-outs.
  type: int
connection_persistence_on_unhealthy_backends:
  description:
    - What becomes of the flows of a backend that turns unhealthy while others are healthy.
    - With V(default_for_protocol) TCP flows stay, except where sessions of more than a single flow are kept
      (C(tracking_mode=per_session) with another affinity than V(none) or V(client_ip_port_proto)). Flows of UDP and
      of other protocols go to another backend.
    - V(never_persist) sends all of them to another backend, V(always_persist) lets all stay, which a module warns of.
      V(always_persist) is refused with C(tracking_mode=per_session).
    - A new listener has V(default_for_protocol).
  type: str
  choices: [default_for_protocol, never_persist, always_persist]
connection_draining_timeout_sec:
  description:
    - How long the flows of a registration that is drained or removed go on, 0 to 3600 seconds. Then TCP flows are
      reset on both sides and others go to another backend. With V(0) that is at once.
    - Also how long flows stay with a pool that a failover or failback has left.
    - A new listener has V(300).
  type: int
drain_mode:
  description:
    - V(timed) ends what is left after C(connection_draining_timeout_sec). V(natural) lets it run until it closes or
      is idle.
    - A new listener has V(timed).
  type: str
  choices: [timed, natural]
health_check:
  description:
    - How the agent of a node checks each backend. Without it every backend is usable.
    - Given as a whole; what is left out has its default. C({}) takes the check away.
  type: dict
  suboptions:
    type:
      description:
        - V(tcp) connects, sends C(request) and compares what comes first with C(response), if they are given.
        - V(http) and V(https) get a page. V(grpc) asks the standard health service. V(dns) wants an answer with
          records. V(udp) sends C(request) and compares the first datagram that comes back with C(response). V(ping)
          wants an echo reply.
        - V(script) runs a program on the node as an unprivileged user, as keepalived's C(MISC_CHECK) does.
      type: str
      choices: [tcp, http, https, grpc, dns, udp, ping, script]
    port:
      description:
        - The port to check. With V(0), the default, that of the registration, or the listener's first one if that has
          none. Needed where the listener serves ranges or all ports, except by V(ping) and V(script).
      type: int
    address:
      description:
        - The address to check, if it is not the backend's.
      type: str
    check_interval_sec:
      description:
        - Seconds from the start of one check to the next, 1 to 300, 5 by default.
      type: int
    timeout_sec:
      description:
        - Seconds that a check may take, 1 to 300 and not above the interval, 5 by default.
      type: int
    healthy_threshold:
      description:
        - How many checks in a row must succeed before an unhealthy backend is healthy, 1 to 10, 2 by default. A new
          registration is healthy at its first success.
      type: int
    unhealthy_threshold:
      description:
        - How many checks in a row must fail before a backend is unhealthy, 1 to 10, 2 by default.
      type: int
    request:
      description:
        - What V(tcp) and V(udp) send, at most 1024 bytes. Double quotes in YAML allow C(\r\n).
      type: str
    response:
      description:
        - What the answer must begin with, for V(tcp), V(udp), and the body for V(http) and V(https).
      type: str
    request_path:
      description:
        - The path that V(http) and V(https) get, C(/) by default.
      type: str
    host:
      description:
        - The host that V(http), V(https) and V(grpc) name, and that V(https) asks for by SNI and verifies. Default is
          the address that is checked.
      type: str
    status:
      description:
        - The status codes, and ranges C(a-b) of them, that V(http) and V(https) take for healthy. Default is 200.
      type: list
      elements: str
    json_query:
      description:
        - A JMESPath expression on the JSON body that must be true, for V(http) and V(https).
      type: str
    tls_verify:
      description:
        - Whether V(https) verifies the server's certificate, which it does by default.
      type: bool
    ca_file:
      description:
        - The file on the node with the certificates that V(https) trusts. Default is the system's.
      type: str
    proxy_header:
      description:
        - Whether V(tcp), V(http) and V(https) begin with a header of the PROXY protocol. Default is V(none).
      type: str
      choices: [none, proxy_v1]
    grpc_service_name:
      description:
        - The service that V(grpc) asks about. By default it is the server as a whole.
      type: str
    query:
      description:
        - The name that V(dns) asks for.
      type: str
    query_type:
      description:
        - The type of record that V(dns) asks for, V(A) by default.
      type: str
      choices: [A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT]
    command:
      description:
        - The program that V(script) runs, by its absolute path, and its arguments. No shell is involved.
        - It finds C(EVENFLOW_LISTENER), C(EVENFLOW_BACKEND), C(EVENFLOW_ADDRESS) and C(EVENFLOW_PORT) in its
          environment. Exit code 0 is healthy, any other unhealthy.
        - A file that others than root can write to, or in a folder that they can, is not run.
      type: list
      elements: str
    dynamic_weight:
      description:
        - With V(script), exit codes 2 to 255 are healthy with the weight code - 2. With V(http) and V(https), a
          header C(X-Load-Balancing-Endpoint-Weight) of 0 to 65535 is the weight.
      type: bool
failover_policy:
  description:
    - When the backends with C(failover=true) take over. Given as a whole; what is left out has its default.
  type: dict
  suboptions:
    failover_ratio:
      description:
        - The failover backends take over when the part of healthy primaries is below this, 0 to 1. With V(0), the
          default, only when no primary is healthy.
      type: float
    drop_traffic_if_unhealthy:
      description:
        - Whether new flows are dropped when no backend is healthy. By default they go to all primaries.
      type: bool
    disable_connection_drain_on_failover:
      description:
        - Whether the flows of the pool that is left end at once. Only for V(tcp).
      type: bool
max_connections:
  description:
    - How many flows the listener may have, 0 to 2147483647. The next one is rejected. V(0) is no limit. An edited
      limit counts as that of a backend does.
    - A new listener has V(0).
  type: int
slow_start_sec:
  description:
    - Seconds in which a backend that joins rises to its share, 0 to 3600. A new listener has V(0), at once.
  type: int
snat:
  description:
    - V(none) keeps the client's address. Answers must come back through this node.
    - V(masquerade) makes every flow come from this node.
    - V(hairpin) does so for flows that leave by the interface on which they came.
    - A new listener has V(none).
  type: str
  choices: [none, masquerade, hairpin]
log_config:
  description:
    - Whether new flows are logged, with the listener's name and the backend's address, to the node's NFLOG group.
    - Given as a whole; what is left out has its default.
  type: dict
  suboptions:
    enable:
      description:
        - Log them. Not logged if it is not given.
      type: bool
    sample_rate:
      description:
        - The part of new flows that is logged, 0 to 1. All of them if it is not given.
      type: float
backends:
  description:
    - Registrations. Each is known by its address and port. One that is not listed stays, unless it is purged.
  type: list
  elements: dict
  suboptions:
"""

_IGNORE = r"""
ignore:
  description:
    - Leave this listener alone, also when O(purge) would remove it.
  type: bool
  default: false
"""


def _indented(text: str, depth: int) -> str:
    return indent(text.lstrip("\n"), "  " * depth)


def _listener(depth: int) -> str:
    """Return the options of a listener and its backends, indented by a number of levels."""
    return _indented(_LISTENER, depth) + _indented(_BACKEND, depth + 2)


class ModuleDocFragment:
    """The options of listeners and backends, at the top level of a module or as items of a list."""

    DOCUMENTATION = "options:\n" + _listener(1)

    LIST = "options:\n  listeners:\n    suboptions:\n" + _listener(3) + _indented(_IGNORE, 3)

    BACKEND = "options:\n" + _indented(_BACKEND, 1)
