# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cost of forwarding through a node with many listeners beside one with a single listener.

Three paths from one client, in network namespaces: to a node with one listener, to one with many, and to one that
forwards nothing, which tells the sender's own cost. A UDP packet runs through its whole path before the next one is
sent, so the time of sending is the time of forwarding. Two kinds: packets of an established flow, and the first
packets of new ones. Each round sends the same number by each path, and in another order.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from ansible_collections.evenflow.l4lb.plugins.module_utils._node.node import Node
from ansible_collections.evenflow.l4lb.plugins.modules.lb_config import build

from .listeners import many
from .machine import Namespace, namespaces
from .ratio import ratio

BOUND = 1.05
"""How much more a packet may cost with many listeners."""

_PORT, _BACKEND_PORT = 80, 8080
_FIRST_SOURCE_PORT = 1024
_SINK_DROPS = "table inet sink { chain drops { type filter hook prerouting priority raw; udp dport 8080 drop; }; }"


@dataclass(frozen=True)
class Path:
    """What leads from the client through one node.

    `backends` are the sink's addresses that the node may send to; none if it forwards nothing.
    """

    name: str
    node: Namespace
    source: str
    vip: str
    backends: tuple[str, ...]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listeners", type=int, default=10000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--packets", type=int, default=4000, help="a round and path")


def run(options: argparse.Namespace) -> None:
    """Run the benchmark and print it."""
    # The whole path of a packet on one processor.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with namespaces(5) as (client, sink, *nodes):
        counts = (1, options.listeners, 0)
        paths = [
            _path(number, count, *ends)
            for number, (count, *ends) in enumerate((count, client, node, sink) for count, node in zip(counts, nodes))
        ]
        with client.entered():
            flows = [_bound(path, socket.SOCK_DGRAM, _PORT) for path in paths]
            raws = [_bound(path, socket.SOCK_RAW, 0) for path in paths]
        _establish(flows, paths, sink)
        sink.run("nft", "-f", "-", text=_SINK_DROPS)
        print(f"{options.rounds} rounds of {options.packets} packets a path; microseconds a packet")
        print(f"{'':<36}{'min':>8}{'median':>8}{'max':>8}")
        payloads = [bytes(64)] * options.packets
        _compare("established", paths, flows, payloads, lambda path: None, options)
        segments = [
            struct.pack("!HHHH", _FIRST_SOURCE_PORT + number, _PORT, 72, 0) + bytes(64)
            for number in range(options.packets)
        ]
        _compare("new", paths, raws, segments, lambda path: path.node.run("conntrack", "-F"), options)


def _path(number: int, count: int, client: Namespace, node: Namespace, sink: Namespace) -> Path:
    """Put a node between the client and the sink and give it listeners."""
    front, back = f"198.18.{number}", f"198.18.{220 + number}"
    items = many("wrr", count, 2, protocol="udp")
    tested: dict[str, Any] = items[count // 2] if items else {"address": "198.19.255.1", "backends": []}
    backends = tuple(backend["address"] for backend in tested["backends"])
    _link(client, f"node{number}", f"{front}.1", node, "front", f"{front}.2")
    _link(node, "back", f"{back}.1", sink, f"node{number}", f"{back}.2")
    client.run("ip", "route", "add", tested["address"], "via", f"{front}.2")
    sink.run("ip", "route", "add", f"{front}.0/24", "via", f"{back}.1")
    for address in backends:
        sink.run("ip", "address", "replace", f"{address}/32", "dev", "lo")
        node.run("ip", "route", "add", address, "via", f"{back}.2")
    sink.run("ip", "link", "set", "lo", "up")
    if items:
        node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        with tempfile.TemporaryDirectory() as directory, node.entered():
            began = time.perf_counter()
            Node(directory).change(build({"listeners": items})[0])
            print(f"{count} listeners configured in {time.perf_counter() - began:.1f} s", flush=True)
    name = f"{count} listener{'s' * (count != 1)}" if count else "nothing forwarded"
    return Path(name, node, f"{front}.1", tested["address"], backends)


def _link(one: Namespace, name: str, address: str, other: Namespace, other_name: str, other_address: str) -> None:
    one.run("ip", "link", "add", name, "type", "veth", "peer", "name", other_name, "netns", str(other.pid))
    for namespace, device, own in ((one, name, address), (other, other_name, other_address)):
        namespace.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", f"net.ipv4.conf.{device}.rp_filter=0")
        namespace.run("ip", "address", "add", f"{own}/24", "dev", device)
        namespace.run("ip", "link", "set", device, "up")


def _bound(path: Path, kind: socket.SocketKind, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind, socket.IPPROTO_UDP)
    sock.bind((path.source, 0))
    sock.connect((path.vip, port))
    sock.settimeout(5)
    return sock


def _establish(flows: list[socket.socket], paths: list[Path], sink: Namespace) -> None:
    """Have the sink answer the first packet of each flow."""
    with sink.entered():
        answering = {
            address: socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for path in paths for address in path.backends
        }
        for address, sock in answering.items():
            sock.bind((address, _BACKEND_PORT))
            sock.setblocking(False)
    for flow, path in zip(flows, paths):
        if path.backends:
            flow.send(b"first")
            time.sleep(0.2)
            for address in path.backends:
                with suppress(BlockingIOError):
                    _data, peer = answering[address].recvfrom(64)
                    answering[address].sendto(b"answer", peer)
            flow.recv(64)
    for sock in answering.values():
        sock.close()


def _compare(
    kind: str,
    paths: list[Path],
    sockets: list[socket.socket],
    packets: list[bytes],
    prepare: Callable[[Path], object],
    options: argparse.Namespace,
) -> None:
    """Send the packets by each path in turn and print what one costs."""
    taken: list[list[float]] = [[] for _path in paths]
    order, random = list(range(len(paths))), Random(1)
    for _round in range(options.rounds):
        random.shuffle(order)
        for number in order:
            prepare(paths[number])
            taken[number].append(_sent(sockets[number], packets))
    for path, seconds in zip(paths, taken):
        microseconds = [each * 1e6 for each in seconds]
        low, middle, high = min(microseconds), statistics.median(microseconds), max(microseconds)
        print(f"{kind + ', ' + path.name:<36}{low:>8.2f}{middle:>8.2f}{high:>8.2f}")
    own = statistics.median(taken[2])
    found = ratio([each - own for each in taken[1]], [each - own for each in taken[0]])
    verdict = "within" if found.median <= BOUND else "ABOVE"
    compared = f"{kind}, {paths[1].name} / {paths[0].name}"
    print(f"{compared}, less the sender's own: {found}   {verdict} {BOUND:g}", flush=True)


def _sent(sock: socket.socket, packets: list[bytes]) -> float:
    """Send and return the seconds that a packet took."""
    send = sock.send
    began = time.perf_counter()
    for packet in packets:
        send(packet)
    return (time.perf_counter() - began) / len(packets)
