# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options of listeners and registrations, at the top level or as items of a list.

    The texts stand here once for each depth, because documentation has to be literal text.
    """

    DOCUMENTATION = r"""
options:
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
      - Seconds after which an idle session, established TCP flow or UDP flow is forgotten, 60 to 57600.
      - If it was never given, sessions live 600 seconds after the client's last packet, and flows have the kernel's own
        time-outs.
    type: int
  max_connections:
    description:
      - How many flows the listener may have, 0 to 2147483647. The next one is rejected. V(0) is no limit. An edited
        limit counts as that of a backend does.
      - A new listener has V(0).
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
          - How many flows it may have, 0 to 2147483647. More go to other backends; one SYN may need its retry. If all
            are full, new flows are rejected. V(0) is no limit.
          - Flows that live when a limit is edited count for it too. Those of them that have ended since are given back
            by the next run of a module.
          - A new registration has V(0).
        type: int
      admin_state:
        description:
          - V(drained) gives no new flows; existing flows go on.
          - A new registration is V(enabled).
        type: str
        choices: [enabled, drained]
"""

    LIST = r"""
options:
  listeners:
    suboptions:
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
          - V(any) is every IP protocol, ICMP to the VIP included, and needs C(ports=all). A listener for one protocol
            on the same address goes before it.
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
          - V(mh) is weighted Maglev hashing. Every node with the same seed chooses alike, and a backend that goes moves
            few flows of others.
          - V(wrr) is smooth weighted round robin, exact to the flow.
          - V(rr) is round robin whatever the weights, as long as they are above 0.
          - V(wlc) sends new flows where there are the fewest active ones for the weight, V(lc) whatever the weights.
            The shares are dealt anew by load while the node's agent runs; without it they are those of V(wrr) and
            V(rr).
          - V(sh) and V(dh) hash the client's address and the VIP alone, in a table like that of V(mh).
          - Two first datagrams that a UDP client sends at once can go to different backends with V(rr), V(wrr), V(lc)
            and V(wlc); a module warns of it.
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
          - V(per_connection) schedules every flow. V(per_session) sends a client's next flows where its first one went,
            as long as that backend may have new flows, whatever happens to the others.
          - A new listener has V(per_connection).
        type: str
        choices: [per_connection, per_session]
      idle_timeout_sec:
        description:
          - Seconds after which an idle session, established TCP flow or UDP flow is forgotten, 60 to 57600.
          - If it was never given, sessions live 600 seconds after the client's last packet, and flows have the kernel's
            own time-outs.
        type: int
      max_connections:
        description:
          - How many flows the listener may have, 0 to 2147483647. The next one is rejected. V(0) is no limit. An edited
            limit counts as that of a backend does.
          - A new listener has V(0).
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
              - How many flows it may have, 0 to 2147483647. More go to other backends; one SYN may need its retry. If
                all are full, new flows are rejected. V(0) is no limit.
              - Flows that live when a limit is edited count for it too. Those of them that have ended since are given
                back by the next run of a module.
              - A new registration has V(0).
            type: int
          admin_state:
            description:
              - V(drained) gives no new flows; existing flows go on.
              - A new registration is V(enabled).
            type: str
            choices: [enabled, drained]

      ignore:
        description:
          - Leave this listener alone, also when O(purge) would remove it.
        type: bool
        default: false
"""

    BACKEND = r"""
options:
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
  admin_state:
    description:
      - V(drained) gives no new flows; existing flows go on.
      - A new registration is V(enabled).
    type: str
    choices: [enabled, drained]
"""
