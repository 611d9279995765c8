#!/usr/bin/python
# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_listener
short_description: Manage one listener of a load balancer node
version_added: 0.1.0
author:
  - The Evenflow authors (@evenflow)
description:
  - Adds, changes or removes one listener with its backends. An option that is not given keeps its value.
  - For several listeners use M(evenflow.l4lb.lb_config), which changes them in one run and one transaction.
extends_documentation_fragment:
  - evenflow.l4lb.attributes
  - evenflow.l4lb.attributes.actiongroup
  - evenflow.l4lb.common
  - evenflow.l4lb.listener
options:
  purge_backends:
    description:
      - Remove the backends of the listener that are not in O(backends), if O(backends) is given.
    type: bool
    default: false
  state:
    description:
      - With V(absent) the listener is removed. The other options except O(name) have no effect then. Existing flows are
        drained.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: evenflow.l4lb.lb_config
  - module: evenflow.l4lb.lb_backend
"""

EXAMPLES = r"""
- name: Balance a web service over two machines
  evenflow.l4lb.lb_listener:
    name: web
    address: 198.51.100.10
    protocol: tcp
    ports: [80]
    scheduler: wrr
    backends:
      - {name: web1, address: 192.0.2.11, port: 8080, weight: 3}
      - {name: web2, address: 192.0.2.12, port: 8080, weight: 1}

- name: Reject new flows for now
  evenflow.l4lb.lb_listener:
    name: web
    admin_state: disabled

- name: Remove the listener
  evenflow.l4lb.lb_listener:
    name: web
    state: absent
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

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.edit import (
    Edit,
    checked,
    with_listeners,
    without_listener,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.validation import Faults, parse_listener
from ansible_collections.evenflow.l4lb.plugins.module_utils._module import LbModule, listener_spec


def build(params: dict[str, Any]) -> tuple[Edit, Faults]:
    """Return the edit that the parameters ask for, and the errors in the parameters."""
    faults = Faults()
    item = parse_listener({name: params.get(name) for name in listener_spec()}, faults)
    if params.get("state") == "absent":
        return checked(partial(without_listener, name=item.get("name", "")), faults), faults
    purge = "backends" if params.get("purge_backends") else "none"
    return checked(partial(with_listeners, items=[item], purge=purge), faults), faults


def main() -> None:
    """Run the module."""
    LbModule(
        build,
        {
            **listener_spec(),
            "purge_backends": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
    ).change()


if __name__ == "__main__":
    main()
