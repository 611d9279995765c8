# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options of all modules that change a node."""

    DOCUMENTATION = r"""
options:
  fingerprint:
    description:
      - The fingerprint that the configuration of the node must have, as an earlier run or M(evenflow.l4lb.lb_info)
        returned it. If it has another, the module fails with C(conditionNotMet) and changes nothing.
    type: str
  config_dir:
    description:
      - The directory of the node's configuration.
    type: path
    default: /etc/evenflow
requirements:
  - The package C(nftables), 1.0.6 or newer, on the node.
  - The Python library C(pyroute2) on the node if its setting C(vip_mode) is C(address).
notes:
  - The module needs root privileges on the node.
"""
