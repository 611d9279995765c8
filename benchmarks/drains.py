# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the cost of drains: many at once, and the drain of a machine with 100,000 live flows."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.identity import backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.validation import Faults, parse_drain
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import runner
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.drain_wait import DrainProgress, wait
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.node import Node
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.view import NodeView
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.drain import DrainRequest
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.fate import FlowKind
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import Health, HealthState
from ansible_collections.evenflow.l4lb.plugins.module_utils._system import conntrack
from ansible_collections.evenflow.l4lb.plugins.modules.lb_config import build

from .listeners import many
from .machine import Namespace, namespaces

LISTENERS, BACKENDS, MACHINES = 1000, 10, 100


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--flows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=20, help="how long to wait for flows")


def run(options: argparse.Namespace) -> None:
    """Run the benchmark and print it."""
    with namespaces(3) as (unchecked, checked, flows):
        with unchecked.entered():
            _many_at_once(options.rounds)
        with checked.entered():
            _many_at_once(options.rounds, health_check={"type": "tcp"})
        with flows.entered():
            _many_flows(flows, options)


def _configured(folder: str, listeners: int, backends: int, **options: object) -> Node:
    """Return a node with listeners; all backends of the listeners with health checks are healthy."""
    node = Node(folder)
    items = [{**item, **options} for item in many("wrr", listeners, backends)]
    node.change(build({"listeners": items, "purge": "all", "state": "replaced"})[0])
    configuration = Configuration.from_document(NodeView(folder).configuration())
    checked = [listener for listener in configuration.listeners if listener.health_check]
    names = [name for listener in checked for name in listener.backend_keys]
    node.reconcile({name: Health(HealthState.HEALTHY, time.time()) for name in names}, save=True)
    return node


def _request(machines: list[str], **options: object) -> DrainRequest:
    return DrainRequest.from_options(parse_drain({"backends": machines, **options}, Faults()))


def _many_at_once(rounds: int, **options: object) -> None:
    machines = [f"198.18.{number + 10}.1" for number in range(MACHINES)]
    drain = _request(machines)
    back = _request(machines, state="active")
    taken: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        node = _configured(folder, LISTENERS, BACKENDS, **options)
        for _round in range(rounds):
            before, began = runner.generation(), time.monotonic()
            outcome = node.change(
                lambda document: drain.edit(document, Faults()), timeouts=drain.timeouts, guard=drain.guard
            )
            taken.append(time.monotonic() - began)
            transactions = runner.generation() - before
            node.change(lambda document: back.edit(document, Faults()))
    checks = " and health checks" if "health_check" in options else ""
    print(
        f"{MACHINES} machines drained at once, {len(outcome.difference.modified)} backends of {LISTENERS} "
        f"listeners with {BACKENDS} backends{checks}: {transactions} transaction, s: {min(taken):.2f} "
        f"{statistics.median(taken):.2f} {max(taken):.2f} (min, median, max of {rounds}; expected: at most 1)"
    )


def _many_flows(namespace: Namespace, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        node = _configured(folder, 1, 2)
        document = NodeView(folder).configuration()
        listener = document["listener-0"]
        backend = listener["backends"][0]
        mark = backend_ids(Configuration.from_document(document))[("listener-0", backend["address"], backend["port"])]
        _make_flows(namespace, folder, options.flows, listener["address"], mark)
        drain = _request([backend["address"]])
        outcome = node.change(
            lambda configured: drain.edit(configured, Faults()), timeouts=drain.timeouts, guard=drain.guard
        )
        progress = DrainProgress(NodeView(folder), drain, outcome.config_after)
        flows = sum(backend.connections for backend in progress.count())
        used, began = time.process_time(), time.monotonic()
        wait(node, progress, 0, 3600, 1, options.seconds)
        share = (time.process_time() - used) / (time.monotonic() - began)
        began = time.monotonic()
        conntrack.delete_flows({mark: list(FlowKind)})
        took = time.monotonic() - began
        left = sum(backend.connections for backend in progress.count())
    print(
        f"a machine with {flows} live flows: waiting takes {share:.1%} of a processor (expected: at most 10 %); "
        f"ending them {took:.2f} s (expected: at most 1), {left} left"
    )


def _make_flows(namespace: Namespace, folder: str, count: int, address: str, mark: int) -> None:
    path = os.path.join(folder, "flows")
    with open(path, "w", encoding="ascii") as file:
        for number in range(count):
            source = f"198.18.{number // 50000 + 1}.{number // 1000 % 50 + 1}"
            file.write(
                f"-I -p tcp -s {source} -d {address} --sport {number % 1000 + 20000} --dport 80 "
                f"--state ESTABLISHED -u ASSURED,SEEN_REPLY -t 3600 -m {mark}\n"
            )
    namespace.run("conntrack", "--load-file", path)
