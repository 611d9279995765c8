#!/usr/bin/python
# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_fleet
short_description: Run a module on several load balancer nodes at the same time
version_added: 0.1.0
author:
  - The Evenflow authors (@evenflow)
description:
  - Runs a module of this collection on several nodes at the same time, in a task for any other host. The task takes as
    long as the slowest node. A loop with C(delegate_to) takes as long as all nodes together.
  - The nodes are reached with their own connection variables from the inventory and with C(become) of the task.
    Connection variables in C(vars) of the play do not apply.
  - The module is meant for plays over backends, such as the playbook C(evenflow.l4lb.rolling_maintenance). A play over
    the nodes themselves does not need it.
  - On a node without C(ansible_python_interpreter), the interpreter is discovered in every task.
  - The module uses private parts of ansible-core and is tested with ansible-core 2.19, 2.20 and 2.21. With another
    version it warns and runs on one node after the other, without the passwords of the command line (C(-k), C(-K)).
  - Warnings of the module that runs on the nodes are not shown with ansible-core 2.21.
extends_documentation_fragment:
  - evenflow.l4lb.attributes
attributes:
  check_mode:
    details:
      - The module that runs on the nodes runs in check mode.
  diff_mode:
    details:
      - The difference is shown for each node.
options:
  nodes:
    description:
      - Hosts of the inventory. They need not be in the play or in C(--limit).
      - The module runs on at most as many nodes at the same time as C(--forks) says.
    type: list
    elements: str
    required: true
  module:
    description:
      - The name of a module of this collection, without the name of the collection.
    type: str
    required: true
  arguments:
    description:
      - The options of that module.
    type: dict
    default: {}
seealso:
  - module: evenflow.l4lb.lb_drain
  - module: evenflow.l4lb.lb_info
"""

EXAMPLES = r"""
- name: Drain the batch on every load balancer and wait until it has no flows
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
  description: The result of the module on each node, in the order of O(nodes), with the name of the node as C(node).
  returned: always
  type: list
  elements: dict
"""
