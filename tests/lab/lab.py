# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab as a whole: bring it up, take it down, its nodes and its inventory."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import network, ssh
from .image import ensure_image
from .nodes import Node
from .runtime import Runtime, find_runtime, forget_runtime
from .store import LabError, Store
from .topology import SUITES, NodeSpec, Topology, topology

_NODE_FILES = Path(__file__).resolve().parent / "node"
_GROUPS = {"lb": "lb_nodes", "backend": "backends", "client": "clients"}
_PROGRAMS = ("ip", "mmdebstrap", "nft", "nsenter", "podman", "sysctl", *ssh.PROGRAMS)


class Lab:
    """A named lab; several may be up side by side. Settings that are not given come from the environment.

    EVENFLOW_LAB: name; EVENFLOW_LAB_SUITE: Debian release; EVENFLOW_LAB_BACKENDS: number of backends. `packages`:
    additional Debian packages of all nodes.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        backends: int | None = None,
        suite: str | None = None,
        packages: tuple[str, ...] = (),
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.name = name or os.environ.get("EVENFLOW_LAB", "evenflow")
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", self.name):
            raise LabError(f"EVENFLOW_LAB must be 1 to 31 of a-z, 0-9 and -, not {self.name!r}")
        self.store = Store()
        self.namespace = self.store.namespace(self.name)
        self._say = say
        self._packages = packages
        self._state = self.store.folder / "labs" / f"{self.name}.json"
        self._inventory = self._state.with_name(f"{self.name}.inventory.json")
        kept = self._kept()
        self.suite = suite or os.environ.get("EVENFLOW_LAB_SUITE") or kept.get("suite", SUITES[0])
        number = backends or os.environ.get("EVENFLOW_LAB_BACKENDS") or kept.get("backends", 3)
        if self.suite not in SUITES:
            raise LabError(f"EVENFLOW_LAB_SUITE must be one of {', '.join(SUITES)}, not {self.suite!r}")
        try:
            self.topology: Topology = topology(int(number))
        except ValueError as error:
            raise LabError(f"EVENFLOW_LAB_BACKENDS: {error}") from error
        self._nodes = {spec.name: Node(self.store, self.name, spec, self.topology) for spec in self.topology.nodes}

    def up(self) -> bool:
        """Bring the lab up and return True, or False if it was up already. Raise LabError if that fails."""
        self._check_machine()
        self.store.prepare()
        with self.store.lock(f"lab-{self.name}"), self.store.lock("store", shared=True):
            if self.is_up():
                self._say(f"lab {self.name} is up already")
                return False
            began = time.monotonic()
            self._clear()
            image = ensure_image(self.store, self.suite, self._say, self._packages)
            built = time.monotonic()
            try:
                self._build(image, find_runtime(self.store, image, self._say))
            except LabError as error:
                # the remembered runtime may no longer work, as after an upgrade or with another cgroup layout
                self._say(f"trying the container runtimes again: {error}")
                forget_runtime(self.store, image)
                self._clear()
                self._build(image, find_runtime(self.store, image, self._say))
            done = time.monotonic()
            self._say(
                f"lab {self.name} is up: {len(self._nodes)} nodes of Debian {self.suite}, "
                f"image {built - began:.1f} s, boot {done - built:.1f} s"
            )
        return True

    def down(self) -> None:
        """Remove the lab, also what a crashed run has left."""
        self.store.prepare()
        with self.store.lock(f"lab-{self.name}"):
            self._clear()
            self.store.tidy()

    def is_up(self) -> bool:
        """Return whether every node of the lab with these settings runs and the bridges exist."""
        return (
            self._kept() == self._settings()
            and network.has_bridges(self.namespace)
            and all(node.is_running() for node in self._nodes.values())
        )

    def node(self, name: str) -> Node:
        """Return the node called `name`. Raise LabError with the names of all nodes if there is none."""
        if name not in self._nodes:
            raise LabError(f"no node {name!r}; there are {', '.join(self._nodes)}")
        return self._nodes[name]

    def nodes(self, kind: str | None = None) -> list[Node]:
        """Return all nodes, or those of one kind: lb, backend, client."""
        return [node for node in self._nodes.values() if kind in (None, node.spec.kind)]

    def route(self, via: network.Via) -> None:
        """Route the client's traffic for routed VIPs through one load balancer, or through both (per flow)."""
        if via not in ("lb1", "lb2", "both"):
            raise LabError(f"route through lb1, lb2 or both, not {via!r}")
        network.route_vips(self.node("c1").pid, self.topology, via)

    def inventory(self) -> dict[str, Any]:
        """Return an Ansible inventory of the lab as data."""
        groups: dict[str, Any] = {group: {"hosts": {}} for group in _GROUPS.values()}
        for node in self.nodes():
            groups[_GROUPS[node.spec.kind]]["hosts"][node.name] = {"ansible_host": node.container}
        return {
            "all": {
                "vars": {
                    **ssh.variables(self.store),
                    "ansible_python_interpreter": "/usr/bin/python3",
                    # the connection is root already, and a minimal node has no sudo
                    "ansible_become": False,
                },
                "children": groups,
            }
        }

    def write_inventory(self, path: Path | None = None) -> Path:
        """Write the inventory (JSON, which Ansible's YAML plugin reads) and return its path."""
        target = path or self._inventory
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(self.inventory(), indent=2) + "\n", encoding="utf-8")
        return target

    def _build(self, image: str, runtime: Runtime) -> None:
        self._state.parent.mkdir(parents=True, exist_ok=True)
        network.create_bridges(self.namespace)
        keys = ssh.prepare(self.store)
        with ThreadPoolExecutor(max_workers=len(self._nodes)) as pool:
            list(pool.map(lambda node: self._boot(node, image, runtime, keys), self._nodes.values()))
        self._state.write_text(json.dumps(self._settings()), encoding="utf-8")
        self.write_inventory()

    def _boot(self, node: Node, image: str, runtime: Runtime, keys: Path) -> None:
        self.store.podman(
            runtime.create_arguments(
                node.container,
                image,
                [
                    "--hostname",
                    node.name,
                    "--label",
                    f"evenflow.lab={self.name}",
                    *_mounts(node.spec),
                    *ssh.mount(keys),
                    *self.store.create_options(),
                ],
            )
        )
        node.power_on()

    def _clear(self) -> None:
        for file in (self._state, self._inventory):
            file.unlink(missing_ok=True)
        self.store.remove(self.store.containers(self.name))
        network.remove_bridges(self.namespace)

    def _settings(self) -> dict[str, Any]:
        return {
            "suite": self.suite,
            "backends": len(self.topology.of_kind("backend")),
            "packages": list(self._packages),
        }

    def _kept(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}

    def _check_machine(self) -> None:
        if os.geteuid() != 0:
            raise LabError("the lab makes containers and network namespaces: run it as root")
        missing = [program for program in _PROGRAMS if not shutil.which(program)]
        if missing:
            raise LabError(f"programs missing: {', '.join(missing)}")


def remove_all() -> None:
    """Take down every lab of this cache, whatever its name."""
    store = Store()
    if not store.folder.exists():
        return
    store.prepare()
    names = set(_existing_labs(store))
    for name in sorted(names):
        Lab(name).down()
    store.remove(store.containers())
    store.tidy()


def _existing_labs(store: Store) -> Sequence[str]:
    labels = store.podman(
        ["ps", "--all", "--filter", "label=evenflow.lab", "--format", '{{index .Labels "evenflow.lab"}}']
    ).split()
    return [*labels, *(path.stem for path in (store.folder / "labs").glob("*.json") if "." not in path.stem)]


def _mounts(spec: NodeSpec) -> list[str]:
    mounts = ["--mount", f"type=bind,src={_NODE_FILES},dst=/opt/lab,ro=true"]
    if spec.kind == "backend":
        # only backends have this folder of units: the other nodes stay plain Debian
        mounts += ["--mount", f"type=bind,src={_NODE_FILES / 'units'},dst=/usr/local/lib/systemd/system,ro=true"]
    return mounts
