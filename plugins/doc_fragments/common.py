# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options that all modules which change a node have."""

    DOCUMENTATION = r"""
options:
  fingerprint:
    description:
      - Change nothing and fail with C(conditionNotMet) unless the node's configuration has this fingerprint, as an
        earlier run or M(evenflow.l4lb.lb_info) returned it.
    type: str
  config_dir:
    description:
      - Directory of the node's configuration.
    type: path
    default: /etc/evenflow
requirements:
  - The package C(nftables), 1.0.6 or newer, on the node.
  - The Python library C(pyroute2) on the node if C(vip_mode) in its settings is C(address).
notes:
  - Needs root on the node.
"""
