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
  - Returns the configuration, the status and the counters of a node. Changes nothing.
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
      - Names of the listeners to return. The default is all listeners.
    type: list
    elements: str
  gather:
    description:
      - V(config) returns the options of listeners and backends.
      - V(status) returns the operating status of listeners and backends. A listener is C(online), C(degraded) (some of
        its backends are not healthy, or the failover pool is in use), C(offline) (it gets no new flows), C(disabled) or
        C(no_monitor). A backend is C(initial), C(healthy), C(unhealthy), C(draining), C(drained), C(disabled) or
        C(no_monitor). Each backend has the time of its last change of status, the result of its last check, the number
        of its active flows, and the seconds until the end of a drain.
      - V(connections) returns the numbers of active flows that the kernel tracks.
      - V(counters) returns the numbers of new flows, and of packets and bytes from clients and to clients. C(refused)
        has the number of packets of new flows that a listener has refused, by the option that refused them
        (C(source_ranges), C(max_connection_rate) and others). The counters start at zero when the table of the node is
        built anew.
      - V(tables) returns the sizes of slot tables, the number of slots of each backend, and the largest deviation of a
        share from its exact value.
    type: list
    elements: str
    choices: [config, status, connections, counters, tables]
    default: [config, status]
  query:
    description:
      - A JMESPath expression, which is applied to the result. Its value is returned in RV(query_result).
    type: str
  config_dir:
    description:
      - The directory of the node's configuration.
    type: path
    default: /etc/evenflow
requirements:
  - The package C(nftables), 1.0.6 or newer, on the node.
  - The Python library C(jmespath) on the node for O(query).
seealso:
  - module: evenflow.l4lb.lb_config
"""

EXAMPLES = r"""
- name: Read the configuration, the status, the counters and the slot tables
  evenflow.l4lb.lb_info:
    gather: [config, status, counters, tables]
  register: lb

- name: Find backends that have had no flows
  evenflow.l4lb.lb_info:
    gather: [config, counters]
    query: "listeners[].backends[?counters.flows == `0`].name | []"
  register: idle
"""

RETURN = r"""
listeners:
  description: The listeners, sorted by name, with the information that O(gather) selects.
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
  description: A hash of the configuration. Nodes with equal configurations have equal fingerprints.
  returned: success
  type: str
  sample: 8ac2c2a3a1ee8e8bd5b03ac9c0f5d4a9a7e0a0e4b1bf4d3b3cd1b7a0a2a6f0f1
table_digest:
  description: A hash of the slot tables. It is equal on nodes that would send every flow to the same backend.
  returned: success
  type: str
  sample: 0f3bdc8c1d4cbfb3b66c7cd9bd80b3df32dbe2a6a34d2d5c4e9a7f2bb5c36f7e
node:
  description:
    - The name and the settings of the node.
    - C(agent) says whether the agent runs, which error it reports and which differences it has repaired.
    - C(leaving) lists backends that are removed and still have flows that are drained.
    - While the agent does not run, the health of backends is as it was when the agent ended.
  returned: success
  type: dict
  sample:
    name: lb1
    kernel: 6.1.0
    hash_seed: 24301
    vip_mode: none
    vip_interface: ""
    conntrack_max: 262144
    agent: {running: true, pid: 812, started: 1795262253, error: "", repairs: []}
    leaving: []
query_result:
  description: The value of O(query).
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
