# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role with lb_node_state: absent leaves a node as it was before the role was applied."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import FAMILIES, backend_address, listener, target, wait_for_connections, wait_for_states
from lab.topology import on_link_vip4, on_link_vip6
from lab.traffic import Load, failures, finish, run_load, shares, start_load
from lab.waiting import wait_until

SCRIPT = Path(__file__).parent / "scripts" / "check_port.sh"
STREAMS = 4
DRAINING_SECONDS = 12

FOLDERS = ("/etc", "/usr/local", "/var/lib", "/var/log", "/run")
# Files that stay according to the role's documentation, and files that Debian's programs write.
LEFTOVERS = {
    "the log": "/var/log/evenflow(/.*)?",
    "the folder of the script folder": "/usr/local/libexec",
    "backups by useradd and userdel": "/etc/(passwd|shadow|group|gshadow|subuid|subgid)-",
}
# Files that change without any action on the node.
RESTLESS = (
    "/run/(systemd|lock|log|sudo|user|utmp)(/.*)?|/var/log/(wtmp|btmp|lastlog|journal)(/.*)?|/var/lib/systemd/timers/.*"
)
STATE = {
    "ruleset": ["nft", "--stateless", "list", "ruleset"],
    "addresses": ["ip", "-oneline", "address"],
    "routes": ["ip", "route", "show", "table", "all"],
    "users": ["getent", "passwd"],
    "groups": ["getent", "group"],
    "unit files": ["systemctl", "list-unit-files", "--no-legend"],
    "units": ["systemctl", "list-units", "--all", "--plain", "--no-legend"],
}

Snapshot = Mapping[str, Any]


@pytest.fixture(scope="module")
def own_lab() -> Iterator[Lab]:
    """Yield a separate lab, on whose load balancers the role has never run."""
    separate = Lab(f"{os.environ.get('EVENFLOW_LAB', 'evenflow')[:20]}-absent", backends=1)
    try:
        separate.up()
        separate.route("lb1")
        yield separate
    finally:
        separate.down()


@pytest.fixture(scope="module")
def own_fleet(own_lab: Lab) -> Fleet:
    return Fleet(own_lab)


@pytest.fixture(scope="module")
def fresh(own_lab: Lab) -> Snapshot:
    """Return the state of the node before the role was applied."""
    node = own_lab.node("lb1")
    snapshot = _snapshot(node)
    assert "evenflow" not in str(snapshot)
    return snapshot


@pytest.fixture
def node(own_lab: Lab, own_fleet: Fleet, fresh: Snapshot) -> Node:
    """Return the node with listeners, deployed by the role on a node without traces of it."""
    node = own_lab.node("lb1")
    assert not _changes(node, fresh)
    own_fleet.deploy(
        _listeners(own_lab),
        ["lb1"],
        lb_node_vip_mode="address",
        lb_node_vip_interface="front",
        lb_node_health_scripts=[str(SCRIPT)],
    )
    for family in FAMILIES:
        wait_for_states(own_lab, f"held{family}", "healthy")
    # The agent writes the files for the next boot some seconds after a change of health.
    wait_until(lambda: _boots_with_backends(node), "the boot files are up to date")
    assert _changes(node, fresh).keys() == fresh.keys()
    return node


def _boots_with_backends(node: Node) -> bool:
    """Return whether the streams' listeners accept flows after the next boot."""
    ruleset = node.run(["grep", "-rh", "goto l_", "/var/lib/evenflow/restore/current/parts"], check=False).stdout
    return all(f"goto l_held{family}" in ruleset for family in FAMILIES)


def _listeners(lab: Lab, **options: Any) -> list[dict[str, Any]]:
    """Return listeners on on-link VIPs: streams with a check script and a log, and idle web with a longer drain."""
    listeners = []
    for family in FAMILIES:
        check = {
            "type": "script",
            "command": [f"/usr/local/libexec/evenflow/{SCRIPT.name}", backend_address(lab, "b1", family), "7000"],
            "check_interval_sec": 1,
            "timeout_sec": 1,
        }
        held: dict[str, Any] = {
            "address": _vip(family),
            "ports": [81],
            "connection_draining_timeout_sec": DRAINING_SECONDS,
            "health_check": check,
            "log_config": {"enable": True},
            **options,
        }
        listeners.append(listener(lab, f"held{family}", family, 0, port=7000, weights=(1,), **held))
        idle: dict[str, Any] = {"address": _vip(family), "connection_draining_timeout_sec": 3600}
        listeners.append(listener(lab, f"web{family}", family, 0, weights=(1,), **idle))
    return listeners


def _vip(family: int) -> str:
    return on_link_vip6(240) if family == 6 else on_link_vip4(240)


def _absent(fleet: Fleet, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    return fleet.play("site", *options, lb_hosts="lb1", lb_node_state="absent", **variables)


def _changed(output: str) -> int:
    match = re.search(r"^lb1 .* changed=(\d+) ", output, re.MULTILINE)
    assert match, output[-3000:]
    return int(match[1])


def _hold(client: Node) -> Load:
    """Start streams that outlast every test."""
    targets = [target(_vip(family), 81) for family in FAMILIES]
    load = start_load(client, "stream", targets, count=STREAMS, seconds=600)
    wait_for_connections(client, 81, STREAMS)
    return load


def _snapshot(node: Node) -> Snapshot:
    """Return the sorted state of the node, without what stays and what changes by itself."""
    snapshot: dict[str, Any] = {name: sorted(node.run(command).stdout.splitlines()) for name, command in STATE.items()}
    # A timer may just have started its service.
    snapshot["units"] = [" ".join(line.split()[:3]).replace(" activating", " inactive") for line in snapshot["units"]]
    # A router has more anycast routes, and forwarding stays on.
    snapshot["routes"] = [line for line in snapshot["routes"] if not line.startswith("anycast ")]
    snapshot["addresses"] = [re.sub(r"(valid|preferred)_lft \w+", "", line) for line in snapshot["addresses"]]
    ignored = re.compile("|".join([RESTLESS, *LEFTOVERS.values()]))
    listed = node.run(["find", *FOLDERS, "-printf", r"%p\t%y %m %u %g %l\n"]).stdout.splitlines()
    snapshot["files"] = sorted(line for line in listed if not ignored.fullmatch(line.partition("\t")[0]))
    sums = node.run(["find", "/etc", "/usr/local", "-type", "f", "-exec", "sha256sum", "{}", "+"]).stdout.splitlines()
    snapshot["texts"] = sorted(line for line in sums if not ignored.fullmatch(line.split(maxsplit=1)[1]))
    return snapshot


def _changes(node: Node, before: Snapshot) -> dict[str, set[str]]:
    """Return what was added to and removed from the state of the node since a snapshot."""
    now = _snapshot(node)
    return {name: difference for name in before if (difference := set(now[name]) ^ set(before[name]))}


def _check_ends(load: Load, began: float) -> None:
    """Check that every stream lasted to its draining timeout and was then reset."""
    records = [record for record in finish(load) if record.kind == "stream"]
    assert len(records) == STREAMS
    for record in records:
        assert record.error == "Connection reset by peer"
        assert record.t + record.seconds >= began + DRAINING_SECONDS


def test_nothing_is_left(own_lab: Lab, own_fleet: Fleet, fresh: Snapshot, node: Node) -> None:
    """Live flows last to their draining timeout; then the node is as before, and a second run changes nothing."""
    load = _hold(own_lab.node("c1"))
    deployed = _snapshot(node)
    check = _absent(own_fleet, "--check")
    assert check.returncode == 0 and _changed(check.stdout) > 0, check.stdout[-3000:]
    in_parts = _absent(own_fleet, "--tags", "configure")
    assert in_parts.returncode != 0 and "takes none of the tags" in in_parts.stdout
    assert not _changes(node, deployed)

    began = time.time()
    assert own_fleet.deploy([], ["lb1"], lb_node_state="absent").changed > 0
    _check_ends(load, began)
    assert not _changes(node, fresh)
    assert node.get("/proc/sys/net/ipv4/ip_forward").strip() == "1"
    assert "held4" in node.get("/var/log/evenflow/flows.log")

    assert own_fleet.deploy([], ["lb1"], lb_node_state="absent").changed == 0
    assert not _changes(node, fresh)


def test_a_node_that_never_had_it(own_lab: Lab, own_fleet: Fleet) -> None:
    """Nothing changes, and nothing fails, also where libraries are missing."""
    node = own_lab.node("lb2")
    library = node.run(["python3", "-c", "import pyroute2; print(pyroute2.__path__[0])"]).stdout.strip()
    hidden = ("/usr/sbin/nft", library)
    for path in hidden:
        node.run(["mv", path, f"{path}.away"])
    try:
        untouched = own_fleet.deploy([], ["lb2"], lb_node_state="absent")
    finally:
        for path in hidden:
            node.run(["mv", f"{path}.away", path])
    assert untouched.changed == 0
    assert "evenflow" not in str(_snapshot(node))


def test_a_damaged_configuration(own_lab: Lab, own_fleet: Fleet, fresh: Snapshot, node: Node) -> None:
    """Drains are impossible, so removal must be requested without them; until then nothing changes."""
    served = run_load(own_lab.node("c1"), "http", [target(_vip(family), 80) for family in FAMILIES], count=20)
    assert not failures(served) and shares(served) == {"b1": 20}
    for name in ("/etc/evenflow/listeners.json", "/var/lib/evenflow/vips.json"):
        node.put(name, node.get(name)[:60], "0640")
    damaged = _snapshot(node)
    refused = _absent(own_fleet)
    assert refused.returncode != 0
    assert "/etc/evenflow/listeners.json" in refused.stdout and "lb_node_absent_timeout: 0" in refused.stdout
    assert not _changes(node, damaged)
    done = _absent(own_fleet, lb_node_absent_timeout=0)
    assert done.returncode == 0, done.stdout[-3000:]
    assert not _changes(node, fresh)


def test_drains_that_do_not_end(own_lab: Lab, own_fleet: Fleet, fresh: Snapshot, node: Node) -> None:
    """The role gives up at its own timeout and leaves flows alone; with a deadline they end, also without an agent."""
    load = _hold(own_lab.node("c1"))
    own_fleet.module("lb1", "lb_config", listeners=_listeners(own_lab, drain_mode="natural"))
    given_up = _absent(own_fleet, lb_node_absent_timeout=3)
    assert given_up.returncode != 0
    assert f"held4 to {backend_address(own_lab, 'b1', 4)}" in given_up.stdout
    assert node.run(["systemctl", "is-active", "evenflow.service"]).stdout.strip() == "active"

    own_fleet.module("lb1", "lb_config", listeners=_listeners(own_lab))
    node.run(["rm", "-r", "/usr/local/lib/evenflow"])
    node.run(["systemctl", "stop", "evenflow.service"])
    began = time.time()
    done = _absent(own_fleet)
    assert done.returncode == 0, done.stdout[-3000:]
    _check_ends(load, began)
    assert not _changes(node, fresh)
