#!/usr/bin/python
# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_info
short_description: Read the state of a load balancer node
version_added: 0.1.0
author:
  - The Evenflow authors (@evenflow)
description:
  - Tells what a node balances and what it has counted. Changes nothing.
extends_documentation_fragment:
  - evenflow.l4lb.attributes
  - evenflow.l4lb.attributes.actiongroup
attributes:
  diff_mode:
    support: N/A
    details:
      - This module does not modify the target.
options:
  listeners:
    description:
      - Names of the listeners to tell of. Default is all.
    type: list
    elements: str
  gather:
    description:
      - V(config) is what was asked for.
      - V(status) says of each listener and registration how it operates. A listener is V(online), V(degraded) (some
        of its backends are not healthy, or those for failover have the flows), V(offline) (no new flow is taken),
        V(disabled) or V(no_monitor). A registration is V(initial), V(healthy), V(unhealthy), V(draining), V(drained),
        V(disabled) or V(no_monitor), with since when, its last check in words, its active flows, and the seconds that
        a drain has left.
      - V(connections) are active flows, as the kernel tracks them now.
      - V(counters) are new flows, packets and bytes, in from clients and out to them.
      - V(tables) are sizes of slot tables, slots per registration, and how far the worst share is from its exact value.
    type: list
    elements: str
    choices: [config, status, connections, counters, tables]
    default: [config, status]
  query:
    description:
      - A JMESPath expression on the result. Its outcome is returned in RV(query_result).
    type: str
  config_dir:
    description:
      - Directory of the node's configuration.
    type: path
    default: /etc/evenflow
requirements:
  - The package C(nftables), 1.0.6 or newer, on the node.
  - The Python library C(jmespath) on the node for O(query).
seealso:
  - module: evenflow.l4lb.lb_config
"""

EXAMPLES = r"""
- name: Look at everything
  evenflow.l4lb.lb_info:
    gather: [config, status, counters, tables]
  register: lb

- name: Which backends have not had a flow?
  evenflow.l4lb.lb_info:
    gather: [config, counters]
    query: "listeners[].backends[?counters.flows == `0`].name | []"
  register: idle
"""

RETURN = r"""
listeners:
  description: The listeners, sorted by name, with what was gathered.
  returned: success
  type: list
  elements: dict
  sample:
    - name: web
      status: online
      pool: primary
      backends:
        - name: web1
          address: 192.0.2.11
          port: 0
          id: "0x9d3cf81a"
          status: healthy
          since: "2026-11-21T11:53:37Z"
          active_flows: 12
          health: {state: healthy, since: "2026-11-21T11:53:37Z", last_check: status 200, detection_sec: 15}
fingerprint:
  description: Names the configuration by its content.
  returned: success
  type: str
  sample: 8ac2c2a3a1ee8e8bd5b03ac9c0f5d4a9a7e0a0e4b1bf4d3b3cd1b7a0a2a6f0f1
table_digest:
  description: Names the slot tables by their content. Equal on nodes that would send every flow to the same backend.
  returned: success
  type: str
  sample: 0f3bdc8c1d4cbfb3b66c7cd9bd80b3df32dbe2a6a34d2d5c4e9a7f2bb5c36f7e
node:
  description:
    - The node and its settings; whether its C(agent) runs, what it complains of and what it has put right;
      registrations that are removed and C(leaving), their flows still draining.
    - While the agent does not run, health is as it was when the agent ended.
  returned: success
  type: dict
  sample:
    name: lb1
    kernel: 6.1.0
    hash_seed: 24301
    vip_mode: none
    vip_interface: ""
    agent: {running: true, pid: 812, started: 1795262253, error: "", repairs: []}
    leaving: []
query_result:
  description: What O(query) gives.
  returned: if O(query) is given
  type: raw
"""

import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import EvenflowError
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.report import GATHER, report
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.view import NodeView
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.store import DEFAULT_CONFIG_DIR

try:
    import jmespath

    JMESPATH_ERROR = None
except ImportError:
    jmespath = None
    JMESPATH_ERROR = traceback.format_exc()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "listeners": {"type": "list", "elements": "str"},
            "gather": {"type": "list", "elements": "str", "choices": list(GATHER), "default": ["config", "status"]},
            "query": {"type": "str"},
            "config_dir": {"type": "path", "default": DEFAULT_CONFIG_DIR},
        },
        supports_check_mode=True,
    )
    query = module.params["query"]
    if query and jmespath is None:
        module.fail_json(msg=missing_required_lib("jmespath"), exception=JMESPATH_ERROR)
    view = NodeView(module.params["config_dir"])
    try:
        result = report(view, module.params["gather"], module.params["listeners"])
    except EvenflowError as error:
        module.fail_json(msg=str(error))
    for text in view.rejected:
        module.warn(text)
    if query:
        try:
            result["query_result"] = jmespath.search(query, result)
        except jmespath.exceptions.JMESPathError as error:
            module.fail_json(msg=f"query: {query!r} is not a JMESPath expression that can be applied: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
