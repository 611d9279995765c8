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
  - For more than one listener use M(evenflow.l4lb.lb_config), which needs one run and one transaction.
extends_documentation_fragment:
  - evenflow.l4lb.attributes
  - evenflow.l4lb.attributes.actiongroup
  - evenflow.l4lb.common
  - evenflow.l4lb.listener
options:
  purge_backends:
    description:
      - Remove the listener's registrations that are not in O(backends), if that is given.
    type: bool
    default: false
  state:
    description:
      - With V(absent) only O(name) matters. Existing flows go on.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: evenflow.l4lb.lb_config
  - module: evenflow.l4lb.lb_backend
"""

EXAMPLES = r"""
- name: A web service on two machines
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

- name: Take it away
  evenflow.l4lb.lb_listener:
    name: web
    state: absent
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

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.edit import (
    Edit,
    checked,
    with_listeners,
    without_listener,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.validation import Faults, parse_listener
from ansible_collections.evenflow.l4lb.plugins.module_utils._module import LbModule, listener_spec


def build(params: dict[str, Any]) -> tuple[Edit, Faults]:
    """Turn the parameters into the change they ask for."""
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
