# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the cost of forwarding through a node with many listeners, beside a node with a single listener.

Three paths from one client, in network namespaces: to a node with one listener, to one with many, and to one that
forwards nothing, which shows the sender's own cost. A UDP packet runs through its whole path before the next packet
is sent, so the time of sending is the time of forwarding. There are two kinds: packets of an established flow, and the
first packets of new flows. Each round sends the same number of packets by each path, in another order.
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
"""Maximum ratio of the cost of a packet with many listeners to the cost with one listener."""

_PORT, _BACKEND_PORT = 80, 8080
_FIRST_SOURCE_PORT = 1024
_SINK_DROPS = "table inet sink { chain drops { type filter hook prerouting priority raw; udp dport 8080 drop; }; }"


@dataclass(frozen=True)
class Path:
    """A path from the client through one node to the sink.

    `backends` are the sink's addresses that the node may send to; there are none if the node forwards nothing.
    """

    name: str
    node: Namespace
    source: str
    vip: str
    backends: tuple[str, ...]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listeners", type=int, default=10000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--packets", type=int, default=4000, help="for each round and path")


def run(options: argparse.Namespace) -> None:
    """Run the benchmark and print it."""
    # Keep the whole path of a packet on one processor.
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
        quiet_sink(sink)
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
    """Put a node between the client and the sink, give it listeners and return the path."""
    front, back = f"198.18.{number}", f"198.18.{220 + number}"
    items = many("wrr", count, 2, protocol="udp")
    tested: dict[str, Any] = items[count // 2] if items else {"address": "198.19.255.1", "backends": []}
    backends = tuple(backend["address"] for backend in tested["backends"])
    link(client, f"node{number}", f"{front}.1", node, "front", f"{front}.2")
    link(node, "back", f"{back}.1", sink, f"node{number}", f"{back}.2")
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


def quiet_sink(sink: Namespace) -> None:
    """Let the sink drop what it gets."""
    sink.run("nft", "-f", "-", text=_SINK_DROPS)


def link(namespace: Namespace, name: str, address: str, peer: Namespace, peer_name: str, peer_address: str) -> None:
    namespace.run("ip", "link", "add", name, "type", "veth", "peer", "name", peer_name, "netns", str(peer.pid))
    for end, device, end_address in ((namespace, name, address), (peer, peer_name, peer_address)):
        end.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", f"net.ipv4.conf.{device}.rp_filter=0")
        end.run("ip", "address", "add", f"{end_address}/24", "dev", device)
        end.run("ip", "link", "set", device, "up")


def _bound(path: Path, kind: socket.SocketKind, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind, socket.IPPROTO_UDP)
    sock.bind((path.source, 0))
    sock.connect((path.vip, port))
    sock.settimeout(5)
    return sock


def _establish(flows: list[socket.socket], paths: list[Path], sink: Namespace) -> None:
    """Establish each flow: the sink answers its first packet."""
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
    """Send the packets by each path in turn and print the cost of a packet."""
    taken: list[list[float]] = [[] for _path in paths]
    order, random = list(range(len(paths))), Random(1)
    for _round in range(options.rounds):
        random.shuffle(order)
        for number in order:
            prepare(paths[number])
            taken[number].append(_send(sockets[number], packets))
    for path, seconds in zip(paths, taken):
        microseconds = [cost * 1e6 for cost in seconds]
        low, middle, high = min(microseconds), statistics.median(microseconds), max(microseconds)
        print(f"{kind + ', ' + path.name:<36}{low:>8.2f}{middle:>8.2f}{high:>8.2f}")
    own = statistics.median(taken[2])
    many_listeners, one_listener = ([cost - own for cost in taken[number]] for number in (1, 0))
    measured = ratio(many_listeners, one_listener)
    verdict = "within" if measured.median <= BOUND else "ABOVE"
    compared = f"{kind}, {paths[1].name} / {paths[0].name}"
    print(f"{compared}, less the sender's own: {measured}   {verdict} {BOUND:g}", flush=True)


def _send(sock: socket.socket, packets: list[bytes]) -> float:
    """Send the packets and return the seconds that each took."""
    send = sock.send
    began = time.perf_counter()
    for packet in packets:
        send(packet)
    return (time.perf_counter() - began) / len(packets)
