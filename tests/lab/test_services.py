# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The services on a node are confined, and work under their confinement.

What they do is tested by the other files, on nodes with the same units.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from lab import Lab
from lab.fleet import Fleet
from lab.rows import forget_removed, heal, listener, target, wait_for_states
from lab.topology import on_link_vip4, routed_vip4
from lab.traffic import failures, run_load
from lab.waiting import wait_until

UNITS = (
    "evenflow",
    "evenflow-checks",
    "evenflow-restore",
    "evenflow-vips",
    "evenflow-scripts",
    "evenflow-log",
    "evenflow-log-rotate",
)
HIGHEST = 2.5
"""The exposure of a unit by systemd's own measure must be lower than this."""


@pytest.mark.parametrize("mode", ["none", "address"])
def test_every_unit_is_confined_and_works(fleet: Fleet, lab: Lab, mode: str) -> None:
    """With checks by scripts, VIPs and a log: all units run, traffic passes, and after a reboot too."""
    heal(lab)
    node, client = lab.node("lb1"), lab.node("c1")
    address = on_link_vip4(244) if mode == "address" else routed_vip4(44)
    check = {"type": "script", "command": ["/bin/true"], "check_interval_sec": 1, "timeout_sec": 1}
    web = {
        **listener(lab, "web", 4, 44, health_check=check, log_config={"enable": True, "sample_rate": 1}),
        "address": address,
    }
    role: dict[str, Any] = {"lb_node_vip_mode": mode, "lb_node_vip_interface": "front" if mode == "address" else ""}
    fleet.deploy([web], ["lb1"], lb_node_purge="all", **role)
    try:
        lab.route("lb1")
        for _boot in range(2):
            wait_for_states(lab, "web", "healthy healthy healthy")
            records = run_load(client, "http", [target(address, 80)], count=20)
            assert not failures(records), failures(records)[:3]
            wait_until(lambda: node.get("/var/log/evenflow/flows.log"), "flows are logged", accepts=_is_logged)
            failed = node.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout
            assert "evenflow" not in failed
            node.run(["rm", "/var/log/evenflow/flows.log"])
            node.reboot()
        shown = {unit: node.run(["systemd-analyze", "security", "--no-pager", f"{unit}.service"]) for unit in UNITS}
        levels = {
            unit: float(re.findall(r"exposure level for \S+: ([0-9.]+)", result.stdout)[0])
            for unit, result in shown.items()
        }
        assert all(level < HIGHEST for level in levels.values()), levels
    finally:
        fleet.deploy([], ["lb1"], lb_node_purge="all", lb_node_vip_mode="none")
        forget_removed(fleet, node)


def _is_logged(text: str) -> bool:
    return " evenflow web " in text
