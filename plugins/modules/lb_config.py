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
  - Adds, changes and removes listeners and their backends on a node, in one kernel transaction that does not interrupt
    any flow.
  - Both the configuration file of the node and the kernel state are brought up to date. RV(ignore:changed) is true if
    either of them differed.
extends_documentation_fragment:
  - evenflow.l4lb.attributes
  - evenflow.l4lb.attributes.actiongroup
  - evenflow.l4lb.common
  - evenflow.l4lb.listener.list
options:
  listeners:
    description:
      - The listeners. Each is identified by its name.
      - If there are errors in them, the module reports all errors with their paths and changes nothing.
    type: list
    elements: dict
    required: true
  purge:
    description:
      - V(none) removes nothing.
      - V(backends) removes backends that are not listed from the listeners that are listed with
        O(listeners[].backends).
      - V(listeners) removes listeners that are not listed.
      - V(all) does both.
    type: str
    choices: [none, backends, listeners, all]
    default: none
  state:
    description:
      - With V(merged) an option that is not given keeps its value.
      - With V(replaced) an option that is not given gets its default, in the listeners and backends that are listed.
        O(purge) says what happens to those that are not listed.
      - With V(rendered) the module returns in RV(commands) the nft statements for a node without listeners, and changes
        nothing.
    type: str
    choices: [merged, replaced, rendered]
    default: merged
seealso:
  - module: evenflow.l4lb.lb_listener
  - module: evenflow.l4lb.lb_backend
  - module: evenflow.l4lb.lb_info
"""

EXAMPLES = r"""
- name: Have these listeners and no others
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

- name: Change one weight and keep everything else
  evenflow.l4lb.lb_config:
    listeners:
      - name: web
        backends:
          - {address: 192.0.2.11, weight: 50}

- name: Show the nft statements without changing anything
  evenflow.l4lb.lb_config:
    state: rendered
    listeners: "{{ lb_node_listeners }}"
  register: rendered
"""

RETURN = r"""
before:
  description:
    - The listeners that the change affects, with all their options, before the change. M(evenflow.l4lb.lb_info) returns
      the whole configuration.
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
  description: A hash of the configuration after the change. Nodes with equal configurations have equal fingerprints.
  returned: success
  type: str
  sample: 8ac2c2a3a1ee8e8bd5b03ac9c0f5d4a9a7e0a0e4b1bf4d3b3cd1b7a0a2a6f0f1
changes:
  description: The differences between the configurations before and after the change.
  returned: success
  type: dict
  contains:
    added:
      description: New listeners, and new backends of listeners that existed before.
      returned: success
      type: list
      elements: dict
      sample: [{listener: web, address: 192.0.2.13, port: 0}]
    removed:
      description: Removed listeners, and removed backends of listeners that remain.
      returned: success
      type: list
      elements: dict
      sample: []
    modified:
      description: Options of listeners and backends that have another value after the change.
      returned: success
      type: list
      elements: dict
      sample: [{listener: web, address: 192.0.2.11, port: 0, option: weight, before: 100, after: 50}]
commands:
  description:
    - The statements of the nft transaction. The list is empty if the kernel state is already as it should be.
    - If the statements are longer than a mebibyte together, the long ones are shortened.
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
    """Return the edit that the parameters ask for, and the errors in the parameters."""
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
