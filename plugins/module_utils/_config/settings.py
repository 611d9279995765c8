# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of a node."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What is this node's own, not the fleet's; except the seed, which all nodes of a fleet share.

    :ivar hash_seed: seed of every hash, in the kernel and in slot tables.
    :ivar vip_mode: ``none``: somebody else brings the VIPs here. ``address``: they are put on an interface.
    :ivar vip_interface: that interface.
    :ivar vip_dedicated: reject every port of a VIP that no listener serves. ``None``: unless the VIP is an address of
        the node's own, that is, one that was not put there for us.
    :ivar log_group: NFLOG group that gets the logged flows.
    """

    hash_seed: int = 24301
    vip_mode: str = "none"
    vip_interface: str = ""
    vip_dedicated: bool | None = None
    log_group: int = 5
