# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab leaves no trace on the machine, and every node has its services."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lab import Lab, LabError, Node
from lab.topology import BACK, FRONT, routed_vip4, routed_vip6, topology
from lab.traffic import Flow, failures, run_load, run_tuples, shares
from lab.waiting import PATIENCE, wait_until

HOST_STATE = {
    "network namespaces": ["ip", "netns", "list"],
    "links": ["ip", "-j", "link"],
    "addresses": ["ip", "-j", "address"],
    "routes": ["ip", "-j", "route", "show", "table", "all"],
    "ruleset": ["nft", "list", "ruleset"],
    "containers": ["podman", "ps", "--all", "--format", "{{.ID}} {{.Names}}"],
}
# Kernel settings that containers share with the machine, without counters and settings that change by themselves.
SHARED_SETTINGS = (
    "kernel/pid_max",
    "kernel/sysrq",
    "kernel/core_pattern",
    "kernel/printk",
    "kernel/hostname",
    "fs/file-max",
    "fs/nr_open",
    "fs/protected_fifos",
    "fs/protected_hardlinks",
    "vm/max_map_count",
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
)

VIP4, VIP6 = routed_vip4(250), routed_vip6(250)
FAMILIES = (4, 6)


@pytest.fixture
def other_lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Yield a second, smaller lab beside the lab of the session, and take it down at the end."""
    monkeypatch.delenv("EVENFLOW_LAB_BACKENDS", raising=False)
    other = Lab(f"test-{os.getpid()}", backends=1)
    yield other
    other.down()


@pytest.fixture
def forwarding(lab: Lab) -> Iterator[Lab]:
    """Yield the lab whose load balancers forward the test VIP, each to another backend, by a table of this test."""
    for number, node in enumerate(lab.nodes("lb")):
        target = lab.topology.of_kind("backend")[number].nic(BACK)
        node.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
        node.run(
            ["nft", "-f", "-"],
            input=f"""table inet labtest {{
            chain nat {{
                type nat hook prerouting priority dstnat;
                ip daddr {VIP4} dnat ip to {target.v4}
                ip6 daddr {VIP6} dnat ip6 to {target.v6}
            }}
        }}""",
        )
    yield lab
    lab.route("both")
    for node in lab.nodes("lb"):
        node.run(["nft", "delete", "table", "inet", "labtest"])
        node.run(["sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"])


@pytest.mark.quiet
def test_host_is_untouched(other_lab: Lab) -> None:
    """`ip netns`, `ip link`, `nft list ruleset` and `podman ps -a` are the same before and after."""
    before = _host_state()
    assert other_lab.up() is True
    during = _host_state()
    assert other_lab.up() is False
    other_lab.down()
    after = _host_state()
    assert after == before
    assert other_lab.namespace in str(during["network namespaces"])
    # while the lab is up, only its namespace shows
    assert {key: value for key, value in during.items() if key != "network namespaces"} == {
        key: value for key, value in before.items() if key != "network namespaces"
    }


@pytest.mark.quiet
def test_down_clears_a_crashed_up(other_lab: Lab) -> None:
    before = _host_state()
    script = (
        "import os, sys; from lab import Lab; from lab.nodes import Node; "
        "Node.wait_booted = lambda self: os._exit(9); Lab(sys.argv[1], backends=1).up()"
    )
    crashed = subprocess.run(
        [sys.executable, "-c", script, other_lab.name],
        check=False,
        timeout=300,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert crashed.returncode == 9
    assert other_lab.store.containers(other_lab.name)
    other_lab.down()
    assert _host_state() == before
    assert not other_lab.store.containers(other_lab.name)


def test_names_are_checked() -> None:
    for name in ("A", "-a", "a/b", "a b", "x" * 32):
        with pytest.raises(LabError):
            Lab(name)
    with pytest.raises(ValueError):
        topology(7)


def test_nodes_are_debian_with_systemd(lab: Lab) -> None:
    for node in lab.nodes():
        assert node.run(["systemctl", "is-system-running"]).stdout.strip() == "running"
        assert f"VERSION_CODENAME={lab.suite}" in node.get("/etc/os-release").splitlines()
        assert node.run(["hostname"]).stdout.strip() == node.name


def test_load_balancers_are_plain(lab: Lab) -> None:
    """The nodes do not have the settings that the role must make."""
    for node in lab.nodes("lb"):
        assert node.get("/proc/sys/net/ipv4/ip_forward").strip() == "0"
        assert node.get("/proc/sys/net/ipv6/conf/all/forwarding").strip() == "0"
        assert node.run(["nft", "list", "ruleset"]).stdout == ""
        assert node.run(["systemctl", "is-active", "nginx", "keepalived"], check=False).stdout.split() == [
            "inactive",
            "inactive",
        ]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_service_answers(lab: Lab, family: int) -> None:
    """A load balancer, which is a neighbour of the backends, gets answers from every service."""
    sender = lab.node("lb1")
    own = sender.spec.nic(BACK)
    for backend in lab.nodes("backend"):
        nic = backend.spec.nic(BACK)
        address = nic.v4 if family == 4 else f"[{nic.v6}]"
        records = [
            *run_load(sender, "http", [f"{address}:80", f"{address}:8080"], count=4),
            *run_load(sender, "http", [f"{address}:80"], count=1, path="/large"),
            *run_load(sender, "udp", [f"{address}:53", f"{address}:8053"], count=4),
            *run_load(sender, "udp", [f"{address}:53"], count=1, size=4000),
            *run_load(sender, "stream", [f"{address}:7000"], count=2, seconds=0.5),
            *run_load(sender, "stream", [f"{address}:7000"], count=2, seconds=0.5, push=True),
        ]
        assert not failures(records)
        # two records for each of four held connections: opened, ended
        assert shares(records) == {backend.name: 4 + 1 + 4 + 1 + 8}
        assert {(record.peer, record.peer_port) for record in records} == {
            (own.v4 if family == 4 else own.v6, record.sport) for record in records
        }


@pytest.mark.parametrize("target", [f"{VIP4}:80", f"[{VIP6}]:80"])
def test_answers_leave_by_the_node_that_forwarded(forwarding: Lab, target: str) -> None:
    """lb1 forwards to b1 and lb2 to b2, and each sees both directions of its flows only."""
    client = forwarding.node("c1")
    for via, backend in (("lb1", "b1"), ("lb2", "b2")):
        forwarding.route("lb1" if via == "lb1" else "lb2")
        records = [
            *run_load(client, "http", [target], count=50),
            *run_load(client, "udp", [target.replace(":80", ":53")], count=50),
        ]
        assert not failures(records)
        assert shares(records) == {backend: 100}
        nic = client.spec.nic(FRONT)
        assert {record.peer for record in records} == {nic.v6 if "[" in target else nic.v4}


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_client_spreads_flows_over_both_nodes(forwarding: Lab, vip: str) -> None:
    nic = forwarding.node("c1").spec.nic(FRONT)
    source = nic.v6 if ":" in vip else nic.v4
    forwarding.route("both")
    flows: list[Flow] = [("tcp", source, port, vip, 80) for port in range(20000, 20200)]
    first, second = (
        {record.sport: record.backend for record in run_tuples(forwarding.node("c1"), flows)} for _turn in range(2)
    )
    assert len(first) == 200
    assert first == second
    assert all(50 < list(first.values()).count(backend) < 150 for backend in ("b1", "b2"))


CLOSES_LATE = """
import asyncio

async def serve(reader, writer):
    await reader.read()
    await asyncio.sleep(0.3)
    writer.close()

async def main():
    async with await asyncio.start_server(serve, ["0.0.0.0", "::"], 9000) as server:
        await server.serve_forever()

asyncio.run(main())
"""
CLOSES_FIRST = """
import socket, sys
for number in range(100):
    socket.create_connection((sys.argv[1], 9000), timeout=5).close()
"""


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_the_end_of_a_flow_goes_the_way_of_its_beginning(forwarding: Lab, vip: str) -> None:
    """Every backend gets the last ACK of a flow whose client has closed it before."""
    forwarding.route("both")
    backends = forwarding.nodes("backend")[:2]
    servers = [node.start(["python3", "-c", CLOSES_LATE]) for node in backends]
    try:
        for node in backends:
            wait_until(partial(_sockets, node, "listening"), "the server listens")
        forwarding.node("c1").run(["python3", "-c", CLOSES_FIRST, vip])
        for node in backends:
            for state in ("syn-recv", "established", "close-wait"):
                _wait_for_no_sockets(node, state)
            # A socket whose last ACK is lost asks for it for most of a minute.
            _wait_for_no_sockets(node, "last-ack", seconds=10)
    finally:
        for server in servers:
            server.terminate()
            server.communicate()


def test_client_can_use_more_addresses(forwarding: Lab) -> None:
    nic = forwarding.node("c1").spec.nic(FRONT)
    flows: list[Flow] = [("udp", nic.network.v4(host), 30000, VIP4, 53) for host in nic.more_hosts]
    flows += [("udp", nic.network.v6(host), 30000, VIP6, 53) for host in nic.more_hosts]
    records = run_tuples(forwarding.node("c1"), flows)
    assert not failures(records)
    assert {record.peer for record in records} == {flow[1] for flow in flows}


def test_failed_flows_are_reported(lab: Lab) -> None:
    """No program listens on port 9, and the load program reports that for each flow."""
    nic = lab.node("b1").spec.nic(BACK)
    records = [
        *run_load(lab.node("lb1"), "http", [f"{nic.v4}:9"], count=3),
        *run_load(lab.node("lb1"), "udp", [f"[{nic.v6}]:9"], count=3, timeout=1),
    ]
    assert [record.error for record in records] == ["Connection refused"] * 6


@pytest.mark.parametrize("hard", [False, True])
def test_reboot_brings_everything_back(lab: Lab, hard: bool) -> None:
    node = lab.node("b1")
    node.put("/etc/lab-kept", "kept")
    node.put("/run/lab-gone", "gone")
    boot_before = node.pid
    node.reboot(hard=hard)
    assert node.pid != boot_before
    assert node.get("/etc/lab-kept") == "kept"
    assert node.run(["test", "-e", "/run/lab-gone"], check=False).returncode == 1
    nic = node.spec.nic(BACK)
    records = run_load(lab.node("lb2"), "http", [f"{nic.v4}:80", f"[{nic.v6}]:80"], count=4)
    assert shares(records) == {"b1": 4}


def test_commands_end_when_asked(lab: Lab) -> None:
    node = lab.node("c1")
    process = node.start(["sleep", "5432"])
    wait_until(partial(_sleeping, node), "the command runs")
    process.terminate()
    process.communicate()
    wait_until(lambda: not _sleeping(node), "the command has ended")
    with pytest.raises(subprocess.TimeoutExpired):
        node.run(["sleep", "5432"], timeout=0.5)
    wait_until(lambda: not _sleeping(node), "the command has ended")


def test_ansible_reaches_every_node(lab: Lab, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("ansible")
    assert program.exists() or shutil.which("ansible"), "ansible is part of the controller's environment"
    command = [
        str(program) if program.exists() else "ansible",
        "-i",
        str(lab.write_inventory(tmp_path / "hosts.json")),
        "all",
        "-m",
        "ansible.builtin.ping",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
        env={
            **os.environ,
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == len(lab.nodes())


def _host_state() -> dict[str, object]:
    state: dict[str, object] = {}
    for name, command in HOST_STATE.items():
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        state[name] = json.loads(output or "[]") if "-j" in command else output
    for setting in SHARED_SETTINGS:
        path = Path("/proc/sys", setting)
        state[setting] = path.read_text(encoding="utf-8") if path.exists() else None
    return state


def _sockets(node: Node, state: str) -> str:
    """Return the sockets on port 9000 that are in a state."""
    return node.run(["ss", "-Htn", "state", state, "sport", "=", ":9000"]).stdout


def _wait_for_no_sockets(node: Node, state: str, seconds: float = PATIENCE) -> None:
    wait_until(lambda: not _sockets(node, state), f"no socket is {state}", seconds=seconds)


def _sleeping(node: Node) -> bool:
    return node.run(["pgrep", "-fx", "sleep 5432"], check=False).returncode == 0
