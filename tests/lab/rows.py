# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Listeners, health checks and observations that the tests of the behaviour's rows share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from .fleet import Fleet
from .lab import Lab
from .nodes import Node
from .observers import Sniffer
from .topology import BACK, FRONT, routed_vip4, routed_vip6
from .traffic import start_load
from .waiting import PATIENCE, wait_until

FAMILIES = (4, 6)

_STATE_FILES = ("/var/lib/evenflow/runtime.json", "/var/lib/evenflow/health.json")

# Unanswered packets of five servers: each has sent several times.
_SPOKEN = 20

_LIBRARY = "ansible_collections.evenflow.l4lb.plugins.module_utils._errors"


def vip(family: int, host: int) -> str:
    """Return a VIP that the client reaches through the load balancers."""
    return routed_vip6(host) if family == 6 else routed_vip4(host)


def target(address: str, port: int) -> str:
    """Return an endpoint as URLs and the traffic programs write it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def backend_address(lab: Lab, name: str, family: int) -> str:
    nic = lab.node(name).spec.nic(BACK)
    return nic.v6 if family == 6 else nic.v4


def listener(
    lab: Lab,
    name: str,
    family: int,
    host: int,
    *,
    port: int = 0,
    weights: Sequence[int] = (100, 100, 100),
    **options: Any,
) -> dict[str, Any]:
    """Return a listener with a backend for each weight, b1, b2, …; tcp on port 80 unless `options` differ."""
    backends = [
        {"name": f"b{number}", "address": backend_address(lab, f"b{number}", family), "port": port, "weight": weight}
        for number, weight in enumerate(weights, 1)
    ]
    required = {"name": name, "address": vip(family, host), "protocol": "tcp", "ports": [80], "backends": backends}
    return {**required, **options}


@contextmanager
def agent_stopped(node: Node) -> Iterator[None]:
    """Stop the node's agent for the length of the block, because it would repair what the block damages."""
    node.run(["systemctl", "stop", "evenflow.service"])
    try:
        yield
    finally:
        node.run(["systemctl", "start", "evenflow.service"])


def agent_pid(node: Node) -> str:
    """Return the process id of the node's agent, or an empty text while it is not ready."""
    shown = node.run(["systemctl", "show", "--property", "ActiveState,MainPID", "evenflow.service"]).stdout.splitlines()
    properties = dict(line.split("=", 1) for line in shown)
    return properties["MainPID"] if properties["ActiveState"] == "active" else ""


def http_check(path: str, **options: Any) -> dict[str, Any]:
    """Return a health check of the lab's HTTP server, once a second; `sicken` with its path makes it fail.

    A single check that is late on a busy machine does not make a backend unhealthy.
    """
    return {
        "type": "http",
        "port": 80,
        "request_path": f"/health/{path}",
        "check_interval_sec": 1,
        "timeout_sec": 1,
        "healthy_threshold": 1,
        "unhealthy_threshold": 2,
        **options,
    }


def sicken(node: Node, *paths: str) -> None:
    """Make a backend's health checks of these paths fail."""
    node.run(["install", "-D", "/dev/null", "/run/lab-http/sick/health/.there"])
    node.run(["touch", *[f"/run/lab-http/sick/health/{path}" for path in paths]])


def heal(lab: Lab) -> None:
    """Make all health checks succeed again."""
    for node in lab.nodes("backend"):
        node.run(["rm", "-rf", "/run/lab-http/sick"])


def cure(node: Node, *paths: str) -> None:
    """Make a backend's health checks of these paths succeed again."""
    node.run(["rm", "-f", *[f"/run/lab-http/sick/health/{path}" for path in paths]])


def runtime_state(node: Node) -> dict[str, Any]:
    """Return the runtime state in a node's files: drains, ramps and health. A node writes no file for what is empty."""
    state: dict[str, Any] = {"drains": {}, "ramps": {}, "health": {}}
    for path in _STATE_FILES:
        content = node.run(["cat", path], check=False).stdout
        state.update(json.loads(content) if content else {})
    return state


def states(lab: Lab, name: str, node: str = "lb1") -> str:
    """Return the health states of a listener's backends on a node, in the order of their addresses.

    They are read from the node's file, because a run of the module takes seconds.
    """
    records = runtime_state(lab.node(node))["health"].items()
    by_address = sorted((key.split("/")[1], health["state"]) for key, health in records if key.startswith(f"{name}/"))
    return " ".join(state for _address, state in by_address)


def wait_for_states(lab: Lab, name: str, expected: str, *, node: str = "lb1", seconds: float = PATIENCE) -> None:
    """Wait until a listener's backends, in the order of their addresses, have these states."""

    def look() -> str:
        return states(lab, name, node)

    wait_until(look, f"{name}: {expected}", accepts=lambda seen: seen == expected, seconds=seconds)
    # A change that holds the node's lock writes the states.
    lab.node(node).run(["flock", "/run/evenflow/lock", "true"])


def wait_for_connections(client: Node, port: int, count: int) -> None:
    """Wait until the client holds `count` connections to a port."""
    command = ["ss", "-Htn", "state", "established", "dport", "=", f":{port}"]
    wait_until(
        lambda: len(client.run(command).stdout.splitlines()),
        f"{count} connections to port {port}",
        accepts=lambda seen: seen >= count,
    )


def forget_removed(fleet: Fleet, node: Node) -> None:
    """Remove the guards for backends that earlier tests removed, which would leave the table in five minutes."""
    node.run(["systemctl", "stop", "evenflow.service"])
    node.run(["rm", "-f", *_STATE_FILES])
    fleet.module(node.name, "lb_config", listeners=[])
    node.run(["systemctl", "start", "evenflow.service"])


def forget_flows(lab: Lab) -> None:
    """Empty the nodes' conntrack tables, so that every tuple is new to them."""
    for node in lab.nodes("lb"):
        node.run(["conntrack", "-F"])


def held_connections(lab: Lab) -> dict[str, int]:
    """Count the connections to the stream service on each backend."""
    command = ["ss", "-Htn", "state", "established", "sport", "=", ":7000"]
    return {node.name: len(node.run(command).stdout.splitlines()) for node in lab.nodes("backend")}


def put_library(node: Node) -> str:
    """Put the collection's library on a node as a separate package, and return its folder."""
    folder = "/run/evenflow-lab/library"
    library = Path(str(import_module(_LIBRARY).__file__)).parent
    for file in sorted(library.rglob("*.py")):
        node.put(f"{folder}/{file.relative_to(library)}", file.read_text(encoding="utf-8"))
    return folder


@contextmanager
def sniffed(lab: Lab, expression: str) -> Iterator[dict[str, str]]:
    """Sniff on every backend, and yield a dictionary that has the packets of each backend after the block."""
    seen: dict[str, str] = {}
    with ExitStack() as stack:
        sniffers = {
            node.name: stack.enter_context(Sniffer(node, BACK.name, expression, beside=lab.node("lb1")))
            for node in lab.nodes("backend")
        }
        yield seen
        for name, sniffer in sniffers.items():
            seen[name] = "\n".join(sniffer.finish())


def leaked(lab: Lab, targets: list[str], family: int, port: int = 80) -> str:
    """Delete the entries of flows while the servers send, and return the packets that reach the client untranslated.

    `targets` are on one port of listeners with the stream service; the client's route must lead through lb1.
    """
    client, balancer = lab.node("c1"), lab.node("lb1")
    pushed = start_load(client, "stream", targets, count=5, push=True)
    wait_for_connections(client, port, 5)
    own = BACK.prefix6 if family == 6 else BACK.prefix4
    spoken = f"{'ip6' if family == 6 else 'ip'} and tcp src port 7000"
    with (
        Sniffer(client, FRONT.name, f"src net {own}", beside=balancer) as sniffer,
        Sniffer(balancer, BACK.name, spoken, beside=lab.node("lb2")) as answers,
    ):
        balancer.run(["conntrack", "-D", "-f", f"ipv{family}", "-p", "tcp", "--dport", str(port)])
        before = len(answers.lines())
        # Each server has sent, and has sent again because it got no answer.
        wait_until(answers.lines, "the servers send", accepts=lambda lines: len(lines) >= before + _SPOKEN)
        answers.finish()
        seen = sniffer.finish()
    pushed.abandon()
    return "\n".join(seen)
