# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from textwrap import indent


def _options(fragment: str, levels: int) -> str:
    """Return the options of a fragment, indented by a number of further levels."""
    return indent(fragment.partition("options:\n")[2], "  " * levels)


class ModuleDocFragment:
    """The options of listeners and backends, at the top level of a module or as items of a list.

    Attributes with a type are computed. Their type keeps ``ansible-test sanity --test yamllint`` from reading them; it
    reads the texts of which they are made.
    """

    BACKEND = r"""
options:
  name:
    description:
      - The name of the machine. A machine that has several backends is drained and reported by this name.
      - A new backend without it is named by its address.
    type: str
  address:
    description:
      - The address of the backend, of the same family as the listener's.
    type: str
    required: true
  port:
    description:
      - The port of the backend, 0 to 65535. With V(0), which is also the default, packets keep their destination port.
      - The address and the port identify a backend, so the same address with another port is another backend.
    type: int
  weight:
    description:
      - The share of new flows in proportion to the weights of the other backends, 0 to 65535. With V(0) the backend
        gets no new flows; its existing flows continue.
      - A new backend has V(100).
    type: int
  capacity_scaler:
    description:
      - Factor by which the weight is multiplied, 0 or 0.1 to 1.0. The only backend of a listener cannot have 0.
      - A new backend has V(1.0).
    type: float
  max_connections:
    description:
      - Maximum number of flows of the backend, 0 to 2147483647. V(0) means no limit.
      - When a backend has reached its limit, new flows go to the others; the first SYN of a flow may have to be sent
        again. When all have, new flows are rejected.
      - Flows that exist when the limit is changed count. Those that have ended since then stop counting when the agent
        next looks at the node, or at the next run of a module.
      - The agent counts for limits above 16. It lets other flows come about 0.25 s after flows have ended; at least
        half of the free places can be taken at once. While it does not run, only the places of flows that begin after
        its end become free.
      - A TCP flow whose handshake does not go on for 3 seconds, or that was picked up in mid-stream and gets no answer
        for 5 seconds, does not count any more.
      - A new backend has V(0).
    type: int
  failover:
    description:
      - Whether the backend belongs to the failover pool, which takes over when too few of the other backends are
        healthy. See C(failover_policy) of the listener.
      - A new backend has V(false).
    type: bool
  admin_state:
    description:
      - V(drained) sends no new flows to the backend. Its existing flows continue until the draining timeout of the
        listener.
      - V(disabled) ends the existing flows at once as well.
      - A new backend is V(enabled).
    type: str
    choices: [enabled, drained, disabled]
"""

    _LISTENER = r"""
options:
  name:
    description:
      - The name of the listener, an RFC 1035 label of 1 to 63 characters.
    type: str
    required: true
  description:
    description:
      - One line of free text.
    type: str
  address:
    description:
      - The VIP, an IPv4 or IPv6 address. Required for a new listener.
    type: str
  protocol:
    description:
      - The transport protocol. Required for a new listener. It cannot be changed in place.
      - V(any) means every IP protocol, including ICMP to the VIP, and requires C(ports=all). A listener for one
        protocol on the same address takes precedence.
    type: str
    choices: [tcp, udp, sctp, any]
  ports:
    description:
      - Ports from 1 to 65535 and ranges C(a-b) of them, or V(all) alone. Required for a new listener.
      - Two listeners on the same address and protocol cannot share a port.
      - With a range or V(all) packets keep their destination port, so the backends cannot have ports of their own.
    type: list
    elements: str
  admin_state:
    description:
      - V(disabled) rejects new flows. Existing flows continue.
      - A new listener is V(enabled).
    type: str
    choices: [enabled, disabled]
  scheduler:
    description:
      - How the backend of a new flow is selected.
      - V(mh) is weighted Maglev hashing. All nodes with the same seed select the same backend, and removing a backend
        moves few flows of the others.
      - V(wrr) is smooth weighted round robin, exact to one flow.
      - V(rr) is round robin. All weights above 0 count the same.
      - V(wlc) prefers the backends with the fewest active flows in proportion to their weights, V(lc) those with the
        fewest active flows. The agent of the node adjusts the shares to the load. While the agent does not run, V(wlc)
        selects like V(wrr), and V(lc) like V(rr).
      - V(sh) hashes only the address of the client, V(dh) only the VIP, with a table like that of V(mh).
      - With V(rr), V(wrr), V(lc) and V(wlc), the first two datagrams of a UDP flow can go to different backends if the
        client sends them at the same time. Modules warn about it.
      - A new listener has V(mh).
    type: str
    choices: [mh, wrr, rr, wlc, lc, sh, dh]
  minimum_ring_size:
    description:
      - Minimum number of slots in the table of a scheduler that hashes, 0 to 65521.
      - The table has 1009, 4093, 16381 or 65521 slots, the smallest of these numbers that is at least
        C(minimum_ring_size) and at least 100 times the number of backends. A table of another size sends nearly every
        flow that has no conntrack entry to another backend.
      - A new listener has V(0).
    type: int
  session_affinity:
    description:
      - The fields of a packet that C(scheduler=mh) hashes, and that identify a session with
        C(tracking_mode=per_session). Flows with equal fields go to the same backend.
      - V(none) and V(client_ip_port_proto) use both addresses, both ports and the protocol.
      - V(client_ip_proto) uses both addresses and the protocol, V(client_ip) both addresses, and
        V(client_ip_no_destination) the address of the client.
      - With C(scheduler=sh) and C(scheduler=dh) this option matters only for sessions.
      - A scheduler that does not hash requires C(tracking_mode=per_session) for every value but V(none).
      - A new listener has V(none).
    type: str
    choices: [none, client_ip_port_proto, client_ip_proto, client_ip, client_ip_no_destination]
  tracking_mode:
    description:
      - V(per_connection) schedules every flow.
      - V(per_session) schedules the first flow of a session. Later flows of the session go to the same backend for as
        long as that backend may get new flows, whatever happens to other backends.
      - A new listener has V(per_connection).
    type: str
    choices: [per_connection, per_session]
  idle_timeout_sec:
    description:
      - Seconds after which an idle session, established TCP flow or UDP flow ends, 60 to 57600.
      - If it has never been set, a session ends 600 seconds after the last packet of the client, and flows have the
        timeouts of the kernel.
    type: int
  connection_persistence_on_unhealthy_backends:
    description:
      - What happens to the flows of a backend that becomes unhealthy while others are healthy.
      - With V(default_for_protocol) TCP flows stay, unless the listener keeps sessions of more than one flow
        (C(tracking_mode=per_session) with an affinity other than C(none) and C(client_ip_port_proto)). Flows of UDP and
        other protocols move to another backend.
      - V(never_persist) moves all flows to another backend.
      - V(always_persist) lets all flows stay. Modules warn about it. It cannot be used with
        C(tracking_mode=per_session).
      - A new listener has V(default_for_protocol).
    type: str
    choices: [default_for_protocol, never_persist, always_persist]
  connection_draining_timeout_sec:
    description:
      - Seconds for which the flows of a backend continue after it is drained or removed, 0 to 3600. Then TCP flows are
        reset on both sides, and other flows move to another backend. With V(0) this happens at once.
      - The same time applies to the flows of a pool after a failover or failback.
      - A new listener has V(300).
    type: int
  drain_mode:
    description:
      - V(timed) ends the remaining flows after C(connection_draining_timeout_sec).
      - V(natural) lets flows continue until they close or have been idle for too long.
      - A new listener has V(timed).
    type: str
    choices: [timed, natural]
  health_check:
    description:
      - How the agent of the node checks each backend. Without a health check every backend is usable.
      - Backends of several listeners are checked once for all of them where the address, the port and all options but
        the thresholds are the same. Each of them keeps a health of its own.
      - The dictionary is replaced as a whole, so an option that is left out gets its default. An empty dictionary
        removes the health check.
    type: dict
    suboptions:
      type:
        description:
          - V(tcp) connects. If C(request) is given it is sent, and if C(response) is given the answer must begin with
            it.
          - V(tls) connects and makes a TLS handshake, which verifies the certificate.
          - V(http) and V(https) request a page by HTTP/1.1.
          - V(http2) requests a page by HTTP/2, without TLS from the first byte (prior knowledge), and with C(tls=true)
            over TLS.
          - V(grpc) calls the standard health service, with C(tls=true) over TLS.
          - V(dns) expects an answer that has records.
          - V(udp) sends C(request) and expects a datagram that begins with C(response).
          - V(ping) expects an echo reply.
          - V(script) runs a program on the node as an unprivileged user, like C(MISC_CHECK) of keepalived.
        type: str
        choices: [tcp, tls, http, https, http2, grpc, dns, udp, ping, script]
      port:
        description:
          - The port to check, 0 to 65535. With V(0), the default, it is the port of the backend or, if that is 0 too,
            the first port of the listener.
          - Required if the listener has ranges or all ports, except with C(type=ping) and C(type=script).
        type: int
      address:
        description:
          - The address to check. The default is the address of the backend.
        type: str
      check_interval_sec:
        description:
          - Seconds from the start of one check to the start of the next, 1 to 300. The default is 5.
        type: int
      timeout_sec:
        description:
          - Maximum number of seconds that a check may take, 1 to 300. It cannot be larger than C(check_interval_sec).
            The default is 5.
        type: int
      healthy_threshold:
        description:
          - Number of consecutive checks that must succeed before an unhealthy backend becomes healthy, 1 to 10. The
            default is 2. A new backend becomes healthy when its first check succeeds.
        type: int
      unhealthy_threshold:
        description:
          - Number of consecutive checks that must fail before a backend becomes unhealthy, 1 to 10. The default is 2.
        type: int
      request:
        description:
          - The text that C(type=tcp) and C(type=udp) send, at most 1024 bytes. Escape sequences such as C(\r\n) need
            double quotes in YAML.
        type: str
      response:
        description:
          - The text with which the answer must begin, for C(type=tcp) and C(type=udp), or the body of the page, for
            C(type=http), C(type=https) and C(type=http2).
        type: str
      request_path:
        description:
          - The path that C(type=http), C(type=https) and C(type=http2) request. The default is V(/).
        type: str
      host:
        description:
          - The name of the host in requests of C(type=http), C(type=https), C(type=http2) and C(type=grpc). Checks with
            TLS send it by SNI and verify the certificate for it. The default is the address that is checked.
          - At most 253 characters, in labels of at most 63, or an address; a port may follow.
        type: str
      status:
        description:
          - The status codes, and ranges C(a-b) of them, that mean healthy for C(type=http), C(type=https) and
            C(type=http2). The default is 200.
        type: list
        elements: str
      json_query:
        description:
          - A JMESPath expression that must be true for the JSON body of the page, for C(type=http), C(type=https) and
            C(type=http2). The body may have 1 MiB.
        type: str
      tls:
        description:
          - Whether C(type=http2) and C(type=grpc) use TLS. The server must then select HTTP/2 by ALPN. The default is
            V(false).
        type: bool
      tls_verify:
        description:
          - Whether checks with TLS, which are C(type=tls), C(type=https) and those with C(tls=true), verify the
            certificate of the server. The default is V(true).
        type: bool
      ca_file:
        description:
          - The path of a file on the node with the certificates that checks with TLS trust. The default is those of the
            system. It is read again when it changes. Every user must be able to read it.
        type: str
      proxy_header:
        description:
          - Whether C(type=tcp), C(type=tls), C(type=http), C(type=https) and C(type=http2) begin with a header of the
            PROXY protocol. The default is V(none).
        type: str
        choices: [none, proxy_v1]
      grpc_service_name:
        description:
          - The service whose health C(type=grpc) requests. The default is the server as a whole.
        type: str
      query:
        description:
          - The name that C(type=dns) queries, at most 253 characters.
        type: str
      query_type:
        description:
          - The type of record that C(type=dns) queries. The default is V(A).
        type: str
        choices: [A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT]
      command:
        description:
          - The absolute path of the program that C(type=script) runs, followed by its arguments. No shell is involved.
          - The environment of the program has C(EVENFLOW_LISTENER), C(EVENFLOW_BACKEND), C(EVENFLOW_ADDRESS) and
            C(EVENFLOW_PORT). Exit code 0 means healthy, any other unhealthy.
          - A file is not run if users other than root can write to it or to a directory above it.
        type: list
        elements: str
      dynamic_weight:
        description:
          - Whether the check sets the weight of the backend.
          - With C(type=script), an exit code from 2 to 255 means healthy and sets the weight to the exit code minus 2.
          - With C(type=http), C(type=https) and C(type=http2), the header C(X-Load-Balancing-Endpoint-Weight) sets the
            weight, 0 to 65535.
        type: bool
  failover_policy:
    description:
      - When the backends with C(failover=true) take over.
      - The dictionary is replaced as a whole, so an option that is left out gets its default.
    type: dict
    suboptions:
      failover_ratio:
        description:
          - The failover pool takes over when the proportion of healthy primary backends is below this number, 0 to 1.
            With V(0), the default, it takes over only when no primary backend is healthy.
        type: float
      drop_traffic_if_unhealthy:
        description:
          - Whether new flows are dropped when no backend is healthy. By default they go to all primary backends.
        type: bool
      disable_connection_drain_on_failover:
        description:
          - Whether the flows of the previous pool end at once. Only for C(protocol=tcp).
        type: bool
  max_connections:
    description:
      - Maximum number of flows of the listener, 0 to 2147483647. Further flows are rejected. V(0) means no limit.
      - Flows that exist when the limit is changed count, as with the limit of a backend.
      - A new listener has V(0).
    type: int
  source_ranges:
    description:
      - The networks whose clients may use the listener, in CIDR notation and of the family of its address, at most
        65536. New flows of other clients are rejected, whatever the scheduler, and make no conntrack entry. An empty
        list admits every client.
      - Networks may overlap. A network with bits set after its prefix is refused; an address without a prefix is a
        network of one address. Clients on the node itself need to be in a network too.
      - The list is replaced as a whole. When a network is taken out, its existing flows continue.
      - A new listener has an empty list.
    type: list
    elements: str
  max_connection_rate:
    description:
      - Maximum number of new flows per second, for the listener as a whole. Further flows are rejected if they are TCP
        or SCTP, and dropped otherwise. This protects the backends. A flood of forged packets uses the rate up, so
        that clients are refused; C(max_connection_rate_per_client) protects clients.
      - The dictionary is replaced as a whole. An empty dictionary removes the limit.
    type: dict
    suboptions:
      rate:
        description:
          - New flows per second, 1 to 1000000. Required.
        type: int
      burst:
        description:
          - Number of flows that may come at once, 1 to 1000000. The default is the rate.
        type: int
  max_connection_rate_per_client:
    description:
      - Maximum number of new flows per second of each client. Further flows are refused as with
        C(max_connection_rate), and do not count there.
      - The node counts 65536 clients of a listener at a time, and forgets a client that has had no new flow for as long
        as its burst takes to come back, at most a minute. While a flood of forged sources fills this table, clients
        that are not in it are not limited.
      - The dictionary is replaced as a whole. An empty dictionary removes the limit. Any change lets every client begin
        with a full burst.
    type: dict
    suboptions:
      rate:
        description:
          - New flows per second, 1 to 1000000. Required.
        type: int
      burst:
        description:
          - Number of flows that may come at once, 1 to 1000000. The default is the rate.
        type: int
      prefix:
        description:
          - The number of bits of the source address that make a client, 1 to 32 for IPv4 and 1 to 128 for IPv6. The
            default is all of them.
        type: int
  max_connections_per_client:
    description:
      - Maximum number of flows of each client. Further flows are refused as with C(max_connection_rate).
      - The node counts 65536 clients of a listener at a time. While a flood of forged sources fills this table, clients
        that are not in it are not limited.
      - The dictionary is replaced as a whole. An empty dictionary removes the limit. Flows that exist when the limit is
        changed, or when the table of the node is replaced, do not count.
    type: dict
    suboptions:
      limit:
        description:
          - Number of flows, 1 to 4096. Required.
        type: int
      prefix:
        description:
          - The number of bits of the source address that make a client, 1 to 32 for IPv4 and 1 to 128 for IPv6. The
            default is all of them.
        type: int
  slow_start_sec:
    description:
      - Seconds in which the share of a backend that joins grows to its full size, 0 to 3600. With V(0) the backend has
        its full share at once.
      - A new listener has V(0).
    type: int
  snat:
    description:
      - V(none) keeps the address of the client. Answers must be routed back through this node.
      - V(masquerade) replaces the source address of every flow by an address of this node.
      - V(hairpin) does the same only for flows that leave by the interface on which they arrived.
      - A new listener has V(none).
    type: str
    choices: [none, masquerade, hairpin]
  log_config:
    description:
      - Whether new flows are logged to the NFLOG group of the node, with the name of the listener and the address of
        the backend.
      - The dictionary is replaced as a whole, so an option that is left out gets its default.
    type: dict
    suboptions:
      enable:
        description:
          - Whether new flows are logged. The default is V(false).
        type: bool
      sample_rate:
        description:
          - The proportion of new flows that is logged, 0 to 1. The default is V(1.0), all of them. Above 1000 flows per
            second the listener logs no more.
        type: float
  backends:
    description:
      - The backends. Each is identified by its address and port. A backend that is not listed stays, unless it is
        purged.
    type: list
    elements: dict
"""

    _IGNORE = r"""
options:
  ignore:
    description:
      - Leave this listener unchanged, even if O(purge) would remove it.
    type: bool
    default: false
"""

    DOCUMENTATION: str = _LISTENER + "    suboptions:\n" + _options(BACKEND, 2)

    LIST: str = "options:\n  listeners:\n    suboptions:\n" + _options(DOCUMENTATION, 2) + _options(_IGNORE, 2)
