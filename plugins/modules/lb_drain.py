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
  - Sets O(ignore:admin_state=drained) on the registrations of some machines, in one transaction. New flows go elsewhere
    at once; those that are there go on until they end by themselves or their time is over.
  - The node's agent keeps the time, over its own restart and over a reboot too. The module only waits, and may be
    interrupted; a second run goes on where the first one was and does not move the deadline.
  - A registration that is disabled has no flows and stays disabled, in both directions.
extends_documentation_fragment:
  - evenflow.l4lb.attributes
  - evenflow.l4lb.attributes.actiongroup
  - evenflow.l4lb.common
attributes:
  check_mode:
    details:
      - In check mode it never waits.
  async:
    support: full
    description: Supports the C(async) keyword. There is no progress to see then.
options:
  backends:
    description:
      - Machines, by the names or the addresses of their registrations.
    type: list
    elements: str
    required: true
  listener:
    description:
      - Names of listeners.
      - V(all) alone stands for every listener.
    type: list
    elements: str
    default: [all]
  state:
    description:
      - With V(drained) no new flow goes to the machines.
      - With V(active) those that were drained get new flows again, at once. Flows that are still there live on.
    type: str
    choices: [drained, active]
    default: drained
  wait:
    description:
      - Wait until the machines have no more flows than O(max_connections), or the time is over. A machine that is
        unhealthy and has sent nothing for 2 seconds is not waited for.
    type: bool
    default: true
  timeout:
    description:
      - Seconds that flows have to end by themselves, counted from the beginning of the drain.
      - If it is not given, the largest C(connection_draining_timeout_sec) of the listeners concerned. It holds for
        every one of the registrations.
      - In a listener with C(drain_mode=natural) flows are ended only if this is given.
    type: int
  on_timeout:
    description:
      - What happens to flows that are left when the time is over.
      - With V(terminate) the node ends them, TCP with a reset to both sides, and the module succeeds.
      - With V(fail) and V(continue) they go on for as long as they like; the module fails, or succeeds. The time is
        then counted from the beginning of the wait.
    type: str
    choices: [terminate, fail, continue]
    default: terminate
  max_connections:
    description:
      - So many flows may be left on each registration when the wait ends.
    type: int
    default: 0
  poll_interval:
    description:
      - Seconds between two looks at what is left. If counting takes long, looks are rarer.
    type: int
    default: 1
  progress_interval:
    description:
      - Seconds after which the controller shows what is left while it waits. V(0) shows nothing.
    type: int
    default: 10
  min_eligible:
    description:
      - Refuse to leave a listener fewer healthy backends that take new flows, if the drain makes it fewer. Nothing is
        changed then.
    type: int
    default: 1
  out_elsewhere:
    description:
      - Machines, by name or address, that do not count for O(min_eligible), because other nodes of the fleet have them
        out.
    type: list
    elements: str
    default: []
  not_found:
    description:
      - What to do about a machine that has no registration there.
    type: str
    choices: [fail, ignore]
    default: fail
seealso:
  - module: evenflow.l4lb.lb_backend
  - module: evenflow.l4lb.lb_info
"""

EXAMPLES = r"""
- name: Take two machines out of every listener and wait until nobody is on them
  evenflow.l4lb.lb_drain:
    backends: [web1, web2]
    timeout: 120

- name: Put them back
  evenflow.l4lb.lb_drain:
    backends: [web1, web2]
    state: active

- name: Long connections decide themselves when they end
  evenflow.l4lb.lb_drain:
    backends: 192.0.2.31
    listener: postgres
    timeout: 1800
    on_timeout: fail
"""

RETURN = r"""
drained:
  description: Whether no registration has more flows than O(max_connections).
  returned: success, or time over
  type: bool
  sample: true
connections_remaining:
  description: What is left on each registration.
  returned: success, or time over
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
      description: Its address.
      returned: always
      type: str
      sample: 192.0.2.11
    port:
      description: Its port; 0 is the listener's.
      returned: always
      type: int
      sample: 0
    connections:
      description: Active flows.
      returned: always
      type: int
      sample: 0
    drain_remaining_sec:
      description: Seconds until the node ends them; none without a deadline.
      returned: always
      type: int
      sample: 87
connections_ended:
  description: How many flows the deadline has ended.
  returned: success, or time over
  type: int
  sample: 0
elapsed:
  description: Seconds that the module has waited.
  returned: success, or time over
  type: float
  sample: 12.4
timeout:
  description: Seconds that flows have.
  returned: success, or time over
  type: int
  sample: 120
timed_out:
  description: Whether the time was over before all flows had ended by themselves.
  returned: success, or time over
  type: bool
  sample: false
waiting:
  description: Whether there is more to wait for. For the action plugin, which goes on waiting.
  returned: if O(progress_interval) is over
  type: bool
  sample: true
before:
  description: The listeners that the change concerns, as they were.
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
      description: Always empty here.
      returned: success
      type: list
      elements: dict
      sample: []
    removed:
      description: Always empty here.
      returned: success
      type: list
      elements: dict
      sample: []
    modified:
      description: Options of registrations that get another value.
      returned: success
      type: list
      elements: dict
      sample:
        - {listener: web, address: 192.0.2.11, port: 0, option: admin_state, before: enabled, after: drained}
commands:
  description: The nft script of the one transaction, a statement an item; empty if the kernel holds what it should.
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
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.drain import Request


def build(params: dict[str, Any]) -> tuple[Edit, Faults]:
    """Turn the parameters into the change they ask for."""
    faults = Faults()
    request = Request.from_options(parse_drain(params, faults))
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
