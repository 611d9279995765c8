# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what a limit adds to the cost of a new flow, by how many flows are counted already.

Two paths as in `forwarding`, one through a node whose backends have a limit that is never reached, one through a node
without limits. Flows are counted by sending a first packet of each; then the first packets of further flows are timed.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Iterator
from random import Random
from typing import Any

from ansible_collections.evenflow.l4lb.plugins.module_utils._node.node import Node
from ansible_collections.evenflow.l4lb.plugins.modules.lb_config import build

from .forwarding import link, quiet_sink
from .machine import Namespace, namespaces
from .ratio import ratio

BOUND = 1.3
"""Maximum ratio of the cost of a new flow under a limit to the cost of one without."""

_VIP, _PORT, _BACKENDS = "198.19.0.1", 80, 10
_BATCH = 20000


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--counted", default="100,10000,200000", help="numbers of counted flows")
    parser.add_argument("--limit", type=int, default=1000000, help="of each of the 10 backends")
    parser.add_argument("--kernel", action="store_true", help="deal no places: the kernel counts, as without an agent")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--packets", type=int, default=1000, help="for each round and path")


def run(options: argparse.Namespace) -> None:
    """Run the benchmark and print it."""
    # Keep the whole path of a packet on one processor.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"{options.rounds} rounds of {options.packets} new flows a path; microseconds a flow, the sender's included")
    print(f"{'':<36}{'min':>8}{'median':>8}{'max':>8}")
    for counted in map(int, options.counted.split(",")):
        with namespaces(5) as (client, sink, *nodes):
            paths = [
                _Path(number, client, node, sink, limit)
                for number, (node, limit) in enumerate(zip(nodes, (0, options.limit, None)))
            ]
            quiet_sink(sink)
            for path in paths[:2]:
                for batch in range(0, counted, _BATCH):
                    if path.limit and not options.kernel:
                        path.deal()
                    path.send(min(_BATCH, counted - batch))
            if not options.kernel:
                paths[1].deal()
            _compare(paths, counted, options)


class _Path:
    """A path from the client to the sink through a node; without a limit (`None`) the node forwards nothing."""

    def __init__(self, number: int, client: Namespace, node: Namespace, sink: Namespace, limit: int | None) -> None:
        self.limit = limit
        self.name = "nothing forwarded" if limit is None else f"limit {limit}" if limit else "no limit"
        self._number = number
        self._node = node
        self._directory = tempfile.TemporaryDirectory()
        front, back = f"198.18.{number}", f"198.18.{220 + number}"
        link(client, f"node{number}", f"{front}.1", node, "front", f"{front}.2")
        link(node, "back", f"{back}.1", sink, f"node{number}", f"{back}.2")
        client.run("sysctl", "-qw", "net.ipv4.conf.all.forwarding=1")
        with client.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, f"node{number}".encode("ascii"))
        vip = f"{_VIP[:-1]}{number + 1}"
        client.run("ip", "route", "add", vip, "via", f"{front}.2")
        self._target = (vip, 0)
        self._packets = self._distinct(vip)
        if limit is not None:
            node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
            for sysctl in ("timeout", "timeout_stream"):
                node.run("sysctl", "-qw", f"net.netfilter.nf_conntrack_udp_{sysctl}=3600")
            node.run("ip", "route", "add", "default", "via", f"{front}.1")
            self._configure(number, limit, vip, f"{back}.2")

    def _configure(self, number: int, limit: int, vip: str, gateway: str) -> None:
        backends = [
            {"address": f"198.19.{101 + number}.{host}", "port": 8080, "max_connections": limit}
            for host in range(1, _BACKENDS + 1)
        ]
        for backend in backends:
            self._node.run("ip", "route", "add", str(backend["address"]), "via", gateway)
        listener: dict[str, Any] = {
            "name": "udp",
            "address": vip,
            "protocol": "udp",
            "ports": [_PORT],
            "backends": backends,
        }
        with self._node.entered():
            Node(self._directory.name).change(build({"listeners": [listener]})[0])

    def deal(self) -> None:
        """Deal places as the agent does; the kernel counts too until the second time."""
        with self._node.entered():
            node = Node(self._directory.name)
            for _time in range(2):
                node.deal_places(lambda _limits, _left: True)

    def _distinct(self, vip: str) -> Iterator[bytes]:
        """Yield first packets of flows, each from another address and port."""
        destination = socket.inet_aton(vip)
        udp = bytes(64)
        for number in range(1 << 28):
            source = struct.pack("!I", 0xC6130000 + 0x8000 + number % 16384)
            header = struct.pack("!BBHHHBBH", 0x45, 0, 92, 0, 0, 64, 17, 0) + source + destination
            yield header + struct.pack("!HHHH", 1024 + number // 16384, _PORT, 72, 0) + udp

    def send(self, count: int) -> float:
        """Send the first packets of flows that were not there before, and return the seconds that each took."""
        packets = [next(self._packets) for _number in range(count)]
        send, target = self._socket.sendto, self._target
        began = time.perf_counter()
        for packet in packets:
            send(packet, target)
        return (time.perf_counter() - began) / max(1, count)

    def counted(self) -> int:
        """Return the number of flows that the node tracks."""
        return int(self._node.run("sysctl", "-n", "net.netfilter.nf_conntrack_count"))


def _compare(paths: list[_Path], counted: int, options: argparse.Namespace) -> None:
    taken: list[list[float]] = [[] for _path in paths]
    order, random = list(range(len(paths))), Random(1)
    for _round in range(options.rounds):
        random.shuffle(order)
        for number in order:
            taken[number].append(paths[number].send(options.packets))
    for path in paths[:2]:
        # A packet that was lost before it was counted would make the path look cheap.
        assert path.counted() >= counted + options.rounds * options.packets, f"{path.name}: {path.counted()} flows"
    for path, seconds in zip(paths, taken):
        low, middle, high = (cost * 1e6 for cost in (min(seconds), statistics.median(seconds), max(seconds)))
        print(f"{f'{counted} counted, {path.name}':<36}{low:>8.2f}{middle:>8.2f}{high:>8.2f}")
    own = statistics.median(taken[2])
    without, limited = ([cost - own for cost in taken[number]] for number in (0, 1))
    measured = ratio(limited, without)
    verdict = "within" if measured.median <= BOUND else "ABOVE"
    print(f"{counted} counted, limit / no limit, less the sender's own: {measured}   {verdict} {BOUND:g}", flush=True)
