# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows 24 and 25: check scripts on a node, such as users of keepalived have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import backend_address, heal, listener, states, wait_for_states
from lab.waiting import wait_until

SCRIPTS = sorted(Path(__file__).parent.joinpath("scripts").iterdir())
WHERE = "/usr/local/libexec/evenflow"

# Arguments with which each script succeeds for b1, and with which it fails.
CASES: dict[str, tuple[list[str], list[str]]] = {
    "check_http.sh": (["{b1}", "/health/x"], ["{b1}:9", "/"]),
    "check_body.sh": (["{b1}", "/health/x", "ok"], ["{b1}", "/", "nothing like it"]),
    "check_port.sh": (["{b1}", "7000"], ["{b1}", "9"]),
    "check_nc.sh": (["{b1}", "80"], ["{b1}", "9"]),
    "check_process.sh": (["systemd-journald"], ["no-such-program"]),
    "check_killall.sh": (["systemd-journald"], ["no-such-program"]),
    "check_ping.sh": (["{b1}"], ["198.18.1.250"]),
    "check_banner.sh": (["{b1}", "7000", "echo", "b1 "], ["{b1}", "7000", "echo", "b2 "]),
    "check_file.sh": (["/etc/no-such-file"], ["/etc/hostname"]),
    "check_weight.sh": (["{b1}", "/health/x"], ["{b1}:9", "/"]),
}


@pytest.fixture(scope="module")
def scripted(fleet: Fleet, lab: Lab) -> Iterator[None]:
    """Install the scripts on lb1."""
    heal(lab)
    fleet.deploy([], ["lb1"], tags=["configure", "service"], lb_node_health_scripts=[str(path) for path in SCRIPTS])
    yield
    fleet.configure([])


def _listener(lab: Lab, name: str, host: int, command: list[str], **options: Any) -> dict[str, Any]:
    b1 = backend_address(lab, "b1", 4)
    check = {
        "type": "script",
        "command": [argument.replace("{b1}", b1) for argument in command],
        "check_interval_sec": 1,
        "timeout_sec": 1,
        "unhealthy_threshold": 1,
        **options,
    }
    return listener(lab, name, 4, host, weights=(1,), health_check=check)


def _last_checks(fleet: Fleet) -> dict[str, str]:
    report = fleet.module("lb1", "lb_info", gather=["status"])["listeners"]
    return {entry["name"]: entry["backends"][0]["health"]["last_check"] for entry in report}


@pytest.mark.usefixtures("scripted")
def test_row_25_scripts_as_they_are(fleet: Fleet, lab: Lab) -> None:
    """Row 25: ten scripts, each with arguments with which it succeeds and fails; one returns a weight."""
    assert len(SCRIPTS) == 10 and {path.name for path in SCRIPTS} == set(CASES)
    listeners = []
    for number, (name, pair) in enumerate(sorted(CASES.items())):
        for kind, arguments in zip(("good", "bad"), pair):
            label = name.partition(".")[0].replace("_", "-")
            listeners.append(
                _listener(
                    lab,
                    f"{kind}-{label}",
                    120 + number,
                    [f"{WHERE}/{name}", *arguments],
                    timeout_sec=10,
                    check_interval_sec=10,
                    dynamic_weight=name == "check_weight.sh",
                )
                | {"ports": [80 if kind == "good" else 81]}
            )
    fleet.module("lb1", "lb_config", listeners=listeners, state="replaced", purge="all")
    for entry in listeners:
        wait_for_states(lab, entry["name"], "healthy" if entry["name"].startswith("good") else "unhealthy")
    results = _last_checks(fleet)
    assert results["good-check-weight"] == "exit code 19, weight 17"
    assert results["bad-check-port"] == "exit code 1"


@pytest.mark.usefixtures("scripted")
def test_row_24_scripts_that_misbehave(fleet: Fleet, lab: Lab) -> None:
    """Row 24: a late script ends with all its processes, a flood is stopped, and an unsafe script is not run."""
    node = lab.node("lb1")
    node.put("/usr/local/libexec/unsafe", "#!/bin/sh\nexit 0\n", mode="0777")
    shell = ["/bin/sh", "-c"]
    patient = {"timeout_sec": 10, "check_interval_sec": 10}
    fleet.module(
        "lb1",
        "lb_config",
        state="replaced",
        purge="all",
        listeners=[
            _listener(lab, "slow", 121, [*shell, "sleep 4321 & sleep 4321"]),
            _listener(lab, "flood", 122, [*shell, "yes"], **patient),
            _listener(lab, "unsafe", 123, ["/usr/local/libexec/unsafe"], **patient),
            _listener(lab, "who", 124, [*shell, "id -un; cat /etc/shadow; exit 1"], **patient),
        ],
    )
    for name in ("slow", "flood", "unsafe", "who"):
        wait_for_states(lab, name, "unhealthy")
    assert _last_checks(fleet) == {
        "slow": "timed out after 1 s",
        "flood": "wrote more than 1048576 bytes",
        "unsafe": "/usr/local/libexec/unsafe is writable by users other than root",
        "who": "exit code 1: evenflow_script cat: /etc/shadow: Permission denied",
    }
    # A check that runs while its listener is removed is ended, with its processes.
    wait_until(lambda: _sleepers(node), "the slow check runs")
    fleet.module("lb1", "lb_config", state="replaced", purge="all", listeners=[])
    wait_until(lambda: not _sleepers(node), "the slow check is gone")
    assert states(lab, "slow") == ""


@pytest.mark.usefixtures("scripted")
def test_a_daemon_ends_with_its_script(fleet: Fleet, lab: Lab) -> None:
    """A process that has left its script's process group and session ends with the script."""
    node = lab.node("lb1")
    daemon = ["/bin/sh", "-c", "setsid sh -c 'setsid sleep 4321 & exec setsid sleep 4321' & exec sleep 4321"]
    fleet.module(
        "lb1",
        "lb_config",
        state="replaced",
        purge="all",
        listeners=[_listener(lab, "daemon", 121, daemon, timeout_sec=2, check_interval_sec=300)],
    )
    wait_until(lambda: _sleepers(node), "the script runs")
    wait_for_states(lab, "daemon", "unhealthy")
    wait_until(lambda: not _sleepers(node), "all its processes are gone", seconds=10)


def _sleepers(node: Node) -> str:
    return node.run(["pgrep", "-f", "sleep 4321"], check=False).stdout


@pytest.mark.usefixtures("scripted")
def test_the_runner_restarts_with_the_agent(lab: Lab) -> None:
    """What runs scripts has the agent's library, so it restarts when that is replaced."""
    node = lab.node("lb1")

    def running() -> str:
        return node.run(["systemctl", "show", "--value", "--property", "MainPID", "evenflow-scripts.service"]).stdout

    before = running()
    assert before.strip() != "0"
    node.run(["systemctl", "restart", "evenflow.service"])
    wait_until(running, "the runner is another process", accepts=lambda seen: seen.strip() != "0" and seen != before)
