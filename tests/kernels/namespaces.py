# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab whose nodes are namespaces of a virtual machine, and its load balancers, which run modules without Ansible."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lab import Lab, LabError, network
from lab.fleet import Fleet, ModuleFailed
from lab.nodes import Node

_MODULES = "ansible_collections.evenflow.l4lb.plugins.modules"

# A node has separate files where it writes.
_PREPARE = """
set -e
hostname "$0"
for folder in /run /etc/evenflow /var/lib/evenflow; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
done
mount -t sysfs sysfs /sys
echo '{"hash_seed": 12345}' >/etc/evenflow/node.json
echo ready
exec sleep infinity
"""

_BACKEND_UNITS = ("lab-http", "lab-stream", "lab-udp", "lab-sctp")


class NamespaceNode(Node):
    """A node with a network, files and a name of its own; all nodes share the machine's processes."""

    _holder: subprocess.Popen[str] | None = None

    def power_on(self) -> None:
        """Make the node and start its services."""
        self._holder = subprocess.Popen(
            [*("unshare", "--net", "--mount", "--uts", "--ipc", "--propagation", "private", "--"), "sh", "-c", _PREPARE]
            + [self.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout
        if self._holder.stdout.readline() != "ready\n":
            raise LabError(f"{self.name} could not be made; the console has the reason")
        self._pid = self._holder.pid
        network.plug(self._namespace, self.spec, self.pid, self._topology)
        if self.spec.kind == "lb":
            settings = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.netfilter.nf_conntrack_acct")
            self.run(["sysctl", "-qw", *(f"{name}=1" for name in settings)])
            if self.name == "lb1":
                self.run(["systemctl", "start", "evenflow.service"])
        if self.spec.kind == "backend":
            for unit in _BACKEND_UNITS:
                self.run(["systemctl", "start", unit])


class NamespaceLab(Lab):
    """The lab of a virtual machine. It ends with the machine."""

    def __init__(self) -> None:
        super().__init__("kernels")
        self._nodes = {
            spec.name: NamespaceNode(self.store, self.name, spec, self.topology) for spec in self.topology.nodes
        }

    def up(self) -> bool:
        """Bring the lab up and return True."""
        network.create_bridges(self.namespace)
        with ThreadPoolExecutor(max_workers=len(self.nodes())) as pool:
            list(pool.map(lambda node: node.power_on(), self.nodes()))
        return True


class DirectFleet(Fleet):
    """The load balancers of the lab; a module is a program that reads its arguments as Ansible gives them."""

    def configure(self, listeners: Sequence[Mapping[str, Any]]) -> None:
        """Replace the listeners of the load balancer that the tests use: a machine is slow."""
        arguments = {"listeners": list(listeners), "state": "replaced", "purge": "all"}
        self.modules(["lb1"], [("lb_config", arguments)])

    def modules(
        self, nodes: Sequence[str], calls: Sequence[tuple[str, Mapping[str, Any]]], *, check: bool = True
    ) -> dict[str, list[dict[str, Any]]]:
        """Run modules as `Fleet.modules` does."""
        with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
            results = dict(zip(nodes, pool.map(lambda node: self._run(node, calls), nodes)))
        for node, of_node in results.items():
            if check and of_node[-1].get("failed"):
                raise ModuleFailed(node, calls[len(of_node) - 1][0], of_node[-1])
        return results

    def _run(self, node: str, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = []
        for module, arguments in calls:
            command = ["env", "PYTHONPATH=/collections", "python3", "-m", f"{_MODULES}.{module}"]
            done = self._lab.node(node).run(
                command, input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}), check=False, timeout=900
            )
            try:
                results.append(json.loads(done.stdout))
            except ValueError as error:
                raise LabError(f"{module} did not run on {node}: {done.stderr[-2000:]}") from error
            if results[-1].get("failed"):
                break
        return results
