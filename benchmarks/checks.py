# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the cost of checks: processor time of a probe beside HAProxy's on the same targets, late probes, memory.

Agent and HAProxy run one after the other, several times, in one network namespace; a small server in another namespace,
which has the addresses of all targets, answers both. Probes are counted by their SYNs: HAProxy's tcp checks reset a
connection before the server accepts it. The agent's figures are those of all its processes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import runner
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.node import Node
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.view import NodeView
from ansible_collections.evenflow.l4lb.plugins.modules.lb_config import build

from .machine import Namespace, namespaces
from .ratio import ratio

_AGENT = "ansible_collections.evenflow.l4lb.plugins.module_utils._agent"
_PORT = 9000
_SERVER, _CHECKER, _TARGETS = "198.18.0.2", "198.18.0.1", "198.19.0.0/16"
_SETTLE, _TICKS = 3.0, os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Case:
    """One measurement: the number of targets, the type of their check and its interval in seconds."""

    name: str
    kind: str
    targets: int
    interval: int


CASES = (
    Case("tcp, 2,000 a second", "tcp", 2000, 1),
    Case("http, 500 a second", "http", 500, 1),
)


@dataclass(frozen=True)
class Measurement:
    """Figures of one checker: probes per second, the part of a processor it used, microseconds per probe."""

    rate: float
    share: float
    cost: float


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each round and checker")
    parser.add_argument("--soak", type=int, default=0, help="only make so many checks, and show the memory meanwhile")


def run(options: argparse.Namespace) -> None:
    """Run the benchmark and print it."""
    with namespaces(2) as (checker, server):
        _connect(checker, server)
        if options.soak:
            with _answering(server):
                _soak(checker, server, options.soak)
            return
        with _answering(server):
            for case in CASES:
                _compare(case, checker, server, options)
            _memory(checker)
        with _answering(server) as process:
            _storm(checker, process)


def _compare(case: Case, checker: Namespace, server: Namespace, options: argparse.Namespace) -> None:
    ours: list[Measurement] = []
    theirs: list[Measurement] = []
    late = 0
    for _round in range(options.rounds):
        with _agent(checker, case) as (processes, folder):
            _wait_for(NodeView(folder), "healthy", case.targets)
            time.sleep(_SETTLE)
            before = _late(folder)
            ours.append(_measure(processes, server, options.seconds))
            late += _late(folder) - before
        with _haproxy(checker, case) as pid:
            time.sleep(_SETTLE)
            theirs.append(_measure([pid], server, options.seconds))
    print(f"{case.name}: {options.rounds} rounds of {options.seconds:g} s")
    for name, measurements in (("agent", ours), ("HAProxy", theirs)):
        costs = [measurement.cost for measurement in measurements]
        rate = statistics.median(measurement.rate for measurement in measurements)
        share = statistics.median(measurement.share for measurement in measurements)
        print(
            f"  {name:<8} {rate:6.0f} probes/s, {share:5.1%} of a processor, "
            f"us a probe: {min(costs):.0f} {statistics.median(costs):.0f} {max(costs):.0f} (min, median, max)"
        )
    agent_costs, haproxy_costs = ([measurement.cost for measurement in measured] for measured in (ours, theirs))
    print(f"  agent / HAProxy: {ratio(agent_costs, haproxy_costs)}; late probes of the agent: {late}")


def _memory(checker: Namespace) -> None:
    """Print the memory that 10,000 backends take, and the processor time that checks of 100 backends take."""
    with _agent(checker, Case("", "tcp", 10000, 60)) as (processes, folder):
        _wait_for(NodeView(folder), "healthy", 10000)
        print(f"memory with 10,000 backends: {_resident(processes):.0f} MB (expected: at most 250)")
    with _agent(checker, Case("", "tcp", 100, 5)) as (processes, folder):
        _wait_for(NodeView(folder), "healthy", 100)
        time.sleep(2 * _SETTLE)
        began = _ticks(processes)
        time.sleep(20)
        print(
            f"processor with 100 backends checked every 5 s: {(_ticks(processes) - began) / _TICKS / 20:.2%} "
            "(expected: at most 1 %)"
        )


def _soak(checker: Namespace, server: Namespace, count: int) -> None:
    """Make a number of checks, half by tcp and half by http, and print the memory after each tenth of them."""
    for kind, targets in (("tcp", 2000), ("http", 1000)):
        with _agent(checker, Case("", kind, targets, 1)) as (processes, folder):
            _wait_for(NodeView(folder), "healthy", targets)
            first, sizes = _count(server), []
            for tenth in range(1, 11):
                while _count(server) - first < count / 2 * tenth / 10:
                    time.sleep(1)
                sizes.append(_resident(processes))
            print(
                f"{count // 2} checks by {kind}: {' '.join(f'{size:.1f}' for size in sizes)} MB after each tenth, "
                f"{sizes[-1] - sizes[0]:.1f} MB more after the last than after the first (expected: at most 2); "
                f"{_late(folder)} late"
            )


def _storm(checker: Namespace, server: subprocess.Popen[bytes]) -> None:
    """Print the time and the transactions that it takes to remove 500 failed backends from the slot tables."""
    with _agent(checker, Case("", "tcp", 500, 1)) as (_processes, folder):
        view = NodeView(folder)
        _wait_for(view, "healthy", 500)
        with checker.entered():
            before = runner.generation()
        began = time.monotonic()
        server.kill()
        _wait_for(view, "unhealthy", 500)
        took = time.monotonic() - began
        with checker.entered():
            transactions = runner.generation() - before
        print(
            f"500 backends gone at once: out after {took:.2f} s in {transactions} transactions, {_late(folder)} late "
            "probes (expected: within 2 x 1 + 1 + 0.1 s)"
        )


def _wait_for(view: NodeView, state: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while sum(health.state == state for health in view.runtime().health.values()) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"not {count} backends are {state} after 60 s")
        time.sleep(0.02)


def _measure(processes: Sequence[int], server: Namespace, seconds: float) -> Measurement:
    before, probes, began = _ticks(processes), _count(server), time.monotonic()
    time.sleep(seconds)
    took, done, passed = _ticks(processes) - before, _count(server) - probes, time.monotonic() - began
    if not done or not took:
        raise SystemExit(f"process {processes[0]} did not check anything in {passed:.1f} s")
    return Measurement(done / passed, took / _TICKS / passed, took / _TICKS / done * 1e6)


def _count(server: Namespace) -> int:
    listed = json.loads(server.run("nft", "-j", "list", "counter", "inet", "count", "syns"))["nftables"]
    return next(int(item["counter"]["packets"]) for item in listed if "counter" in item)


def _ticks(processes: Sequence[int]) -> int:
    """Return the processor time of processes and of their children, those that have ended included."""
    total = 0
    for pid in _with_children(processes):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15])
    return total


def _resident(processes: Sequence[int]) -> float:
    """Return the memory of processes and of their children, in MB."""
    statuses = [Path(f"/proc/{pid}/status").read_text(encoding="ascii") for pid in _with_children(processes)]
    lines = [line for status in statuses for line in status.splitlines() if line.startswith("VmRSS")]
    return sum(int(line.split()[1]) for line in lines) / 1024


def _with_children(processes: Sequence[int]) -> list[int]:
    children = [Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii") for pid in processes]
    return [*processes, *(int(child) for each in children for child in each.split())]


def _late(folder: str) -> int:
    # The agent writes its status once a second.
    time.sleep(1.2)
    status: dict[str, Any] = json.loads(Path(folder, "run", "agent.json").read_text(encoding="utf-8"))
    return int(status["late_checks"])


def _connect(checker: Namespace, server: Namespace) -> None:
    peer = ["peer", "name", "two", "netns", f"/proc/{server.pid}/ns/net"]
    checker.run("ip", "link", "add", "one", "type", "veth", *peer)
    for namespace, name, address in ((checker, "one", _CHECKER), (server, "two", _SERVER)):
        namespace.run("ip", "link", "set", "lo", "up")
        namespace.run("ip", "link", "set", name, "up")
        namespace.run("ip", "address", "add", f"{address}/24", "dev", name)
    server.run(
        "nft",
        "add table inet count; add counter inet count syns; "
        "add chain inet count in { type filter hook input priority 0; }; "
        f"add rule inet count in tcp dport {_PORT} tcp flags & (syn | ack) == syn counter name syns",
    )
    server.run("ip", "route", "add", "local", _TARGETS, "dev", "lo")
    checker.run("ip", "route", "add", _TARGETS, "via", _SERVER)
    checker.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65000")


@contextmanager
def _answering(server: Namespace) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server that answers tcp and http checks and yield its process."""
    with server.entered():
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.answering", "0.0.0.0", str(_PORT)])
    try:
        time.sleep(1)
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _agent(checker: Namespace, case: Case) -> Iterator[tuple[list[int], str]]:
    """Run the agent with 100 backends per listener, and the service that makes checks; yield both and the folder."""
    with tempfile.TemporaryDirectory() as folder, checker.entered():
        check = {
            "type": case.kind,
            "port": _PORT,
            "check_interval_sec": case.interval,
            "timeout_sec": case.interval,
        }
        listeners = [
            {
                "name": f"l{first}",
                "address": f"198.18.1.{first // 100 + 1}",
                "protocol": "tcp",
                "ports": [80],
                "scheduler": "wrr",
                "health_check": check,
                "backends": [{"address": _address(number)} for number in range(first, min(first + 100, case.targets))],
            }
            for first in range(0, case.targets, 100)
        ]
        Node(folder).change(build({"listeners": listeners, "purge": "all", "state": "merged"})[0])
        path = Path(folder, "checks.sock")
        options = {"worker": ["--socket", str(path)], "main": ["--config-dir", folder, "--checks-socket", str(path)]}
        with ExitStack() as running:
            processes = []
            for program, arguments in options.items():
                process = subprocess.Popen(
                    [sys.executable, "-m", f"{_AGENT}.{program}", *arguments], stderr=subprocess.DEVNULL
                )
                running.callback(process.wait)
                running.callback(process.terminate)
                processes.append(process.pid)
                _wait_for_socket(path)
            yield processes, folder
        subprocess.run(["nft", "delete", "table", "inet", "evenflow"], check=False)


def _address(number: int) -> str:
    return f"198.19.{number // 250}.{number % 250 + 1}"


def _wait_for_socket(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


@contextmanager
def _haproxy(checker: Namespace, case: Case) -> Iterator[int]:
    """Run HAProxy with as many checked servers and no traffic and yield its process id."""
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    if program is None:
        raise SystemExit("haproxy is not installed")
    options = ["option httpchk", "http-check send meth GET uri / ver HTTP/1.1 hdr Host server hdr Connection close"]
    lines = [
        "global",
        "  maxconn 1000",
        "  nbthread 1",
        "defaults",
        "  mode tcp",
        "  timeout connect 1s",
        "  timeout client 1s",
        "  timeout server 1s",
        "backend targets",
    ]
    lines += [f"  {option}" for option in (options if case.kind == "http" else [])]
    lines += [
        f"  server s{number} {_address(number)}:{_PORT} check inter {case.interval}s" for number in range(case.targets)
    ]
    lines += ["frontend none", f"  bind {_CHECKER}:8999", "  default_backend targets"]
    with tempfile.TemporaryDirectory() as folder, checker.entered():
        path = Path(folder, "haproxy.cfg")
        path.write_text("\n".join(lines) + "\n", encoding="ascii")
        process = subprocess.Popen(
            [program, "-db", "-f", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait()
