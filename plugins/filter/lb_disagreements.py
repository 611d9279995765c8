# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: lb_disagreements
short_description: List the differences between load balancer nodes
version_added: 0.1.0
author:
  - The Evenflow authors (@evenflow)
description:
  - Compares the results of M(evenflow.l4lb.lb_info) on several nodes.
options:
  _input:
    description: The results of M(evenflow.l4lb.lb_info) with C(gather=[config, status]), by the name of the node.
    type: dict
    required: true
seealso:
  - module: evenflow.l4lb.lb_info
"""

EXAMPLES = r"""
- name: Fail if the nodes differ
  ansible.builtin.assert:
    that: differences | length == 0
    fail_msg: "{{ differences | join('; ') }}"
  vars:
    differences: "{{ {'lb1': lb1_info, 'lb2': lb2_info} | evenflow.l4lb.lb_disagreements }}"
"""

RETURN = r"""
_value:
  description: One text for each difference. The list is empty if the nodes agree.
  type: list
  elements: str
  sample: ["listener web: backend web1 192.0.2.11 port 0: weight: 100 on lb1, 50 on lb2"]
"""

from typing import Any, Callable

from ansible_collections.evenflow.l4lb.plugins.module_utils._fleet import disagreements


class FilterModule:
    """The filter that compares nodes."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"lb_disagreements": disagreements}
