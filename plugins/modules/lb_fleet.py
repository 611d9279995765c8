#!/usr/bin/python
# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_fleet
short_description: Run a module on several load balancers at the same time
version_added: 0.1.0
author:
  - The Evenflow authors (@evenflow)
description:
  - Runs a module of this collection on some hosts side by side, from a task of any other host. It takes as long as the
    slowest of them, where a loop with C(delegate_to) takes as long as all of them together.
  - Hosts are reached with their own connection variables from the inventory, and with the task's C(become). What the
    play says of connections in C(vars) does not reach them.
  - It is for plays over backends, such as the playbook C(evenflow.l4lb.rolling_maintenance). A play over the load
    balancers themselves runs side by side without it.
  - A node without C(ansible_python_interpreter) is searched for an interpreter every time.
  - Warnings of the module are not shown with ansible-core 2.21.
extends_documentation_fragment:
  - evenflow.l4lb.attributes
attributes:
  check_mode:
    details:
      - The module runs in check mode.
  diff_mode:
    details:
      - A difference is shown for each node.
options:
  nodes:
    description:
      - Hosts of the inventory, whether the play or C(--limit) has them or not. At most as many as C(--forks) are asked
        at a time.
    type: list
    elements: str
    required: true
  module:
    description:
      - A module of this collection, without the collection's name.
    type: str
    required: true
  arguments:
    description:
      - Its options.
    type: dict
    default: {}
seealso:
  - module: evenflow.l4lb.lb_drain
  - module: evenflow.l4lb.lb_info
"""

EXAMPLES = r"""
- name: Take these machines out of every load balancer, and wait until nobody is on them
  evenflow.l4lb.lb_fleet:
    nodes: "{{ groups['lb_nodes'] }}"
    module: lb_drain
    arguments:
      backends: "{{ ansible_play_batch }}"
  become: true
  run_once: true
"""

RETURN = r"""
results:
  description: What the module returned on each node, in the order of O(nodes), with the node's name as C(node).
  returned: always
  type: list
  elements: dict
"""
