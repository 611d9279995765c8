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
    type: str
    choices: [tcp, udp]
  ports:
    description:
      - The ports, each 1 to 65535. A new listener needs them.
      - Two listeners cannot share a port of one address and protocol.
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
      - Two first datagrams that a UDP client sends at once can go to different backends with V(rr) and V(wrr).
      - A new listener has V(mh).
    type: str
    choices: [mh, wrr, rr]
  minimum_ring_size:
    description:
      - Smallest number of slots in the table of V(mh), 0 to 65521.
      - The size is the smallest of 1009, 4093, 16381 and 65521 that is neither below this nor below 100 times the
        number of registered backends. Another size moves nearly every flow without a conntrack entry.
      - A new listener has V(0).
    type: int
  session_affinity:
    description:
      - What of a packet is hashed by V(mh). Flows that are equal in it meet on one backend.
      - V(none) and V(client_ip_port_proto) take both addresses, both ports and the protocol.
      - V(client_ip_proto) takes both addresses and the protocol, V(client_ip) both addresses,
        V(client_ip_no_destination) the client's address.
      - Schedulers that do not hash allow V(none) only.
      - A new listener has V(none).
    type: str
    choices: [none, client_ip_port_proto, client_ip_proto, client_ip, client_ip_no_destination]
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
        type: str
        choices: [tcp, udp]
      ports:
        description:
          - The ports, each 1 to 65535. A new listener needs them.
          - Two listeners cannot share a port of one address and protocol.
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
          - Two first datagrams that a UDP client sends at once can go to different backends with V(rr) and V(wrr).
          - A new listener has V(mh).
        type: str
        choices: [mh, wrr, rr]
      minimum_ring_size:
        description:
          - Smallest number of slots in the table of V(mh), 0 to 65521.
          - The size is the smallest of 1009, 4093, 16381 and 65521 that is neither below this nor below 100 times the
            number of registered backends. Another size moves nearly every flow without a conntrack entry.
          - A new listener has V(0).
        type: int
      session_affinity:
        description:
          - What of a packet is hashed by V(mh). Flows that are equal in it meet on one backend.
          - V(none) and V(client_ip_port_proto) take both addresses, both ports and the protocol.
          - V(client_ip_proto) takes both addresses and the protocol, V(client_ip) both addresses,
            V(client_ip_no_destination) the client's address.
          - Schedulers that do not hash allow V(none) only.
          - A new listener has V(none).
        type: str
        choices: [none, client_ip_port_proto, client_ip_proto, client_ip, client_ip_no_destination]
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
  admin_state:
    description:
      - V(drained) gives no new flows; existing flows go on.
      - A new registration is V(enabled).
    type: str
    choices: [enabled, drained]
"""
