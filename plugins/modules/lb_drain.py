#!/usr/bin/python
# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_drain
short_description: Take machines out of a load balancer node and put them back
version_added: 0.1.0
author:
  - The Evenflow authors (@evenflow)
description:
  - Sets O(ignore:admin_state=drained) on the backends of some machines, in one transaction. New flows go to other
    machines at once. Existing flows continue until they end by themselves or reach their deadline.
  - The agent of the node keeps the deadlines, also across its own restart and a reboot of the node. The module only
    waits and can be interrupted. A second run continues to wait and does not move the deadline.
  - A backend that is disabled has no flows and stays disabled, whatever the O(state).
extends_documentation_fragment:
  - evenflow.l4lb.attributes
  - evenflow.l4lb.attributes.actiongroup
  - evenflow.l4lb.common
attributes:
  check_mode:
    details:
      - In check mode the module does not wait.
  async:
    support: full
    description: Supports the C(async) keyword. The controller does not show the progress then.
options:
  backends:
    description:
      - Names or addresses of the machines.
    type: list
    elements: str
    required: true
  listener:
    description:
      - Names of listeners.
      - V(all) alone means every listener.
    type: list
    elements: str
    default: [all]
  state:
    description:
      - With V(drained) the machines get no new flows.
      - With V(active) machines that were drained get new flows again at once. Their remaining flows continue.
    type: str
    choices: [drained, active]
    default: drained
  wait:
    description:
      - Wait until no backend of the machines has more flows than O(max_connections), or until O(timeout) is over. The
        module does not wait for a backend that is unhealthy and has sent no packet for 2 seconds.
    type: bool
    default: true
  timeout:
    description:
      - Seconds in which flows may end by themselves, counted from the start of the drain.
      - The default is the largest C(connection_draining_timeout_sec) of the listeners that are drained. It applies to
        all backends that are drained.
      - In a listener with C(drain_mode=natural) flows are ended only if O(timeout) is given.
    type: int
  on_timeout:
    description:
      - What happens to flows that remain when O(timeout) is over.
      - With V(terminate) the node ends them, TCP flows with a reset to both sides, and the module succeeds.
      - With V(fail) and V(continue) they continue without a limit. The module fails with V(fail) and succeeds with
        V(continue). The time is then counted from the start of the wait.
    type: str
    choices: [terminate, fail, continue]
    default: terminate
  max_connections:
    description:
      - Maximum number of flows that may remain on each backend when the wait ends.
    type: int
    default: 0
  poll_interval:
    description:
      - Seconds between two counts of the remaining flows. If a count takes long, the module counts less often.
    type: int
    default: 1
  progress_interval:
    description:
      - Seconds between two messages about the remaining flows while the module waits. With V(0) there are no messages.
    type: int
    default: 10
  min_eligible:
    description:
      - Minimum number of healthy backends that get new flows in each listener. If the drain would leave a listener
        fewer, the module fails and changes nothing. A listener that has fewer already can lose no more.
    type: int
    default: 1
  out_elsewhere:
    description:
      - Names or addresses of machines that do not count for O(min_eligible), because they are drained on other nodes of
        the fleet.
    type: list
    elements: str
    default: []
  not_found:
    description:
      - What to do if a machine has no backend in the listeners.
    type: str
    choices: [fail, ignore]
    default: fail
seealso:
  - module: evenflow.l4lb.lb_backend
  - module: evenflow.l4lb.lb_info
"""

EXAMPLES = r"""
- name: Drain two machines in every listener and wait until they have no flows
  evenflow.l4lb.lb_drain:
    backends: [web1, web2]
    timeout: 120

- name: Put them back
  evenflow.l4lb.lb_drain:
    backends: [web1, web2]
    state: active

- name: Wait for long connections without ending them
  evenflow.l4lb.lb_drain:
    backends: 192.0.2.31
    listener: postgres
    timeout: 1800
    on_timeout: fail
"""

RETURN = r"""
drained:
  description: Whether every backend is drained, and is dead or has no more flows than O(max_connections).
  returned: success, or failure because O(timeout) is over
  type: bool
  sample: true
connections_remaining:
  description: The remaining flows of each backend.
  returned: success, or failure because O(timeout) is over
  type: list
  elements: dict
  contains:
    listener:
      description: Name of the listener.
      returned: always
      type: str
      sample: web
    name:
      description: Name of the machine.
      returned: always
      type: str
      sample: web1
    address:
      description: Address of the backend.
      returned: always
      type: str
      sample: 192.0.2.11
    port:
      description: Port of the backend; 0 means the port of the listener.
      returned: always
      type: int
      sample: 0
    connections:
      description: Number of active flows.
      returned: always
      type: int
      sample: 0
    drain_remaining_sec:
      description: Seconds until the node ends the flows; C(null) if there is no deadline.
      returned: always
      type: int
      sample: 87
connections_ended:
  description: Number of flows that the node ended at their deadline.
  returned: success, or failure because O(timeout) is over
  type: int
  sample: 0
elapsed:
  description: Seconds for which the module has waited.
  returned: success, or failure because O(timeout) is over
  type: float
  sample: 12.4
timeout:
  description: Seconds in which flows may end by themselves.
  returned: success, or failure because O(timeout) is over
  type: int
  sample: 120
timed_out:
  description: Whether O(timeout) was over before all flows had ended by themselves.
  returned: success, or failure because O(timeout) is over
  type: bool
  sample: false
waiting:
  description: Whether there are flows to wait for. The action plugin runs the module again then.
  returned: if O(progress_interval) is over and flows remain
  type: bool
  sample: true
before:
  description: The listeners that the change affects, before the change.
  returned: success
  type: list
  elements: dict
  sample: []
after:
  description: The same listeners after the change.
  returned: success
  type: list
  elements: dict
  sample: []
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
      description: Always empty for this module.
      returned: success
      type: list
      elements: dict
      sample: []
    removed:
      description: Always empty for this module.
      returned: success
      type: list
      elements: dict
      sample: []
    modified:
      description: Options of backends that have another value after the change.
      returned: success
      type: list
      elements: dict
      sample:
        - {listener: web, address: 192.0.2.11, port: 0, option: admin_state, before: enabled, after: drained}
commands:
  description:
    - The statements of the nft transaction. The list is empty if the kernel state is already as it should be.
  returned: success
  type: list
  elements: str
  sample:
    - "delete element inet evenflow slots_web { 1 }"
    - "add element inet evenflow slots_web { 1 : 0x9d3cf81a }"
"""

from functools import partial
from typing import Any

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.edit import Edit, checked
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.option import argument_spec
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.options import DRAIN
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.validation import Faults, parse_drain
from ansible_collections.evenflow.l4lb.plugins.module_utils._drain_module import run_module
from ansible_collections.evenflow.l4lb.plugins.module_utils._module import LbModule
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.drain import DrainRequest


def build(params: dict[str, Any]) -> tuple[Edit, Faults]:
    """Return the edit that the parameters ask for, and the errors in the parameters."""
    faults = Faults()
    request = DrainRequest.from_options(parse_drain(params, faults))
    return checked(partial(request.edit, faults=faults), faults), faults


def main() -> None:
    """Run the module."""
    spec = argument_spec(DRAIN)
    for name, option in DRAIN.items():
        if option.default is not None:
            spec[name]["default"] = option.default
    run_module(LbModule(build, spec))


if __name__ == "__main__":
    main()
