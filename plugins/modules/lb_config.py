#!/usr/bin/python
# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_config
short_description: Manage all listeners of a load balancer node in one transaction
version_added: 0.1.0
author:
  - The Evenflow authors (@evenflow)
description:
  - Brings listeners and their backends on a node to what is asked for, in one kernel transaction that no live flow
    notices.
  - The node's configuration file and the live kernel state are both brought up to date, so RV(ignore:changed) speaks of
    both.
extends_documentation_fragment:
  - evenflow.l4lb.attributes
  - evenflow.l4lb.attributes.actiongroup
  - evenflow.l4lb.common
  - evenflow.l4lb.listener.list
options:
  listeners:
    description:
      - The listeners. Each is known by its name.
      - All faults of a call are told at once, each with its path, before anything is changed.
    type: list
    elements: dict
    required: true
  purge:
    description:
      - V(none) removes nothing.
      - V(backends) removes registrations that are not listed, of the listeners that are listed with
        O(listeners[].backends).
      - V(listeners) removes listeners that are not listed.
      - V(all) does both.
    type: str
    choices: [none, backends, listeners, all]
    default: none
  state:
    description:
      - V(merged) keeps the value of every option that is not given.
      - V(replaced) gives such an option its default, in the listeners and registrations that are listed. What is not
        listed is O(purge)'s business.
      - V(rendered) returns in RV(commands) what an empty node would be given, and touches nothing.
    type: str
    choices: [merged, replaced, rendered]
    default: merged
seealso:
  - module: evenflow.l4lb.lb_listener
  - module: evenflow.l4lb.lb_backend
  - module: evenflow.l4lb.lb_info
"""

EXAMPLES = r"""
- name: Everything this node balances, and nothing else
  evenflow.l4lb.lb_config:
    purge: all
    listeners:
      - name: web
        address: 198.51.100.10
        protocol: tcp
        ports: [80, 443]
        backends:
          - {name: web1, address: 192.0.2.11, weight: 200}
          - {name: web2, address: 192.0.2.12}
      - name: dns6
        address: 2001:db8::53
        protocol: udp
        ports: [53]
        session_affinity: client_ip
        backends:
          - {address: "2001:db8:1::11", port: 5353}

- name: Change one weight, keep everything else
  evenflow.l4lb.lb_config:
    listeners:
      - name: web
        backends:
          - {address: 192.0.2.11, weight: 50}

- name: Look at the nft script without touching anything
  evenflow.l4lb.lb_config:
    state: rendered
    listeners: "{{ lb_node_listeners }}"
  register: rendered
"""

RETURN = r"""
before:
  description:
    - The listeners that the change concerns, with all their options, as they were. M(evenflow.l4lb.lb_info) tells the
      whole configuration.
  returned: success
  type: list
  elements: dict
  sample: []
after:
  description: The same listeners after the change.
  returned: success
  type: list
  elements: dict
  sample:
    - name: web
      description: ""
      address: 198.51.100.10
      protocol: tcp
      ports: ["80"]
      admin_state: enabled
      scheduler: mh
      minimum_ring_size: 0
      session_affinity: none
      backends:
        - {name: web1, address: 192.0.2.11, port: 0, weight: 100, admin_state: enabled}
fingerprint:
  description: Names the configuration after by its content. Nodes with equal configurations have equal fingerprints.
  returned: success
  type: str
  sample: 8ac2c2a3a1ee8e8bd5b03ac9c0f5d4a9a7e0a0e4b1bf4d3b3cd1b7a0a2a6f0f1
changes:
  description: What differs between the two configurations.
  returned: success
  type: dict
  contains:
    added:
      description: Listeners, and registrations of listeners that were there before.
      returned: success
      type: list
      elements: dict
      sample: [{listener: web, address: 192.0.2.13, port: 0}]
    removed:
      description: The same for what goes.
      returned: success
      type: list
      elements: dict
      sample: []
    modified:
      description: Options of listeners and registrations that get another value.
      returned: success
      type: list
      elements: dict
      sample: [{listener: web, address: 192.0.2.11, port: 0, option: weight, before: 100, after: 50}]
commands:
  description:
    - The nft script of the one transaction, a statement an item; empty if the kernel holds what it should.
    - If it is longer than a mebibyte, long statements are cut.
  returned: success
  type: list
  elements: str
  sample:
    - "delete element inet evenflow slots_web { 1 }"
    - "add element inet evenflow slots_web { 1 : 0x9d3cf81a }"
"""

from functools import partial
from typing import Any

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.edit import Edit, checked, with_listeners
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.options import PURGES
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.validation import Faults, parse_listeners
from ansible_collections.evenflow.l4lb.plugins.module_utils._module import LbModule, listener_spec


def build(params: dict[str, Any]) -> tuple[Edit, Faults]:
    """Turn the parameters into the change they ask for."""
    faults = Faults()
    items = parse_listeners(params.get("listeners"), faults)
    is_replaced = params.get("state") == "replaced"
    edit = partial(with_listeners, items=items, purge=params.get("purge", "none"), replaced=is_replaced)
    return checked(edit, faults), faults


def main() -> None:
    """Run the module."""
    listener = dict(listener_spec(), ignore={"type": "bool", "default": False})
    module = LbModule(
        build,
        {
            "listeners": {"type": "list", "elements": "dict", "required": True, "options": listener},
            "purge": {"type": "str", "choices": list(PURGES), "default": "none"},
            "state": {"type": "str", "choices": ["merged", "replaced", "rendered"], "default": "merged"},
        },
    )
    module.change(render=module.params["state"] == "rendered")


if __name__ == "__main__":
    main()
