# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._errors import InvalidInput
from .option import InvalidValue, shown
from .options import NODE


@dataclass(frozen=True)
class Settings:
    """The settings of one node. Only the seed must be the same on all nodes of a fleet.

    :ivar hash_seed: the seed of every hash, in the kernel and in slot tables.
    :ivar vip_mode: ``none`` leaves addresses alone; ``address`` puts the VIPs on an interface.
    :ivar vip_interface: the interface that gets the VIPs.
    :ivar vip_dedicated: whether every port of a VIP that no listener serves is rejected. ``None`` means: unless the
        VIP is an address that the node had before.
    :ivar forward_policy: ``none`` leaves alone what crosses the node; ``vips`` drops what is neither of a listener nor
        started by a backend.
    :ivar log_group: the NFLOG group to which flows are logged.
    :ivar conntrack_max: maximum number of flows of the node, and of sessions of a listener.
    """

    hash_seed: int = NODE["hash_seed"].default
    vip_mode: str = NODE["vip_mode"].default
    vip_interface: str = NODE["vip_interface"].default
    vip_dedicated: bool | None = NODE["vip_dedicated"].default
    forward_policy: str = NODE["forward_policy"].default
    log_group: int = NODE["log_group"].default
    conntrack_max: int = NODE["conntrack_max"].default


def parse_settings(data: Any) -> Settings:
    """Return the settings that a node's file holds; a setting that is missing has its default.

    :raises InvalidInput: with each setting that is not allowed, its value and what is allowed.
    """
    if not isinstance(data, dict):
        raise InvalidInput([f"{shown(data)} is not a dictionary of settings"])
    values: dict[str, Any] = {}
    errors = []
    for name, value in data.items():
        if name not in NODE:
            errors.append(f"{name}: unknown setting; allowed: {', '.join(NODE)}")
        elif value is not None or NODE[name].default is not None:
            try:
                values[name] = NODE[name].from_json(value)
            except InvalidValue as error:
                errors.append(f"{name}: {error}")
    if values.get("vip_mode") == "address" and not data.get("vip_interface"):
        errors.append("vip_interface: required with vip_mode: address")
    if errors:
        raise InvalidInput(errors)
    return Settings(**values)
