# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the collection on the lab's nodes as an operator does: the site playbook, and single modules."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .lab import Lab
from .playbooks import Playbooks
from .process import enter
from .store import LabError

_COLLECTION = "evenflow.l4lb"
_TAIL_LINES = 40
_SECONDS = 900.0


@dataclass(frozen=True)
class Deployment:
    """The result of one run of the site playbook. `stats`: counts (ok, changed, failures, unreachable) by node."""

    stats: dict[str, dict[str, int]]
    output: str
    seconds: float

    @property
    def changed(self) -> int:
        """Return the number of tasks that changed something, over all nodes."""
        return sum(counts["changed"] for counts in self.stats.values())


class DeployFailed(LabError):
    """The playbook failed, or did not reach every load balancer; the text ends in the tail of its output."""


class ModuleFailed(LabError):
    """A module failed; `result` is what it returned."""

    def __init__(self, node: str, module: str, result: dict[str, Any]) -> None:
        self.result = result
        super().__init__(f"{module} on {node}: {result.get('msg', result)}")


class Fleet:
    """The load balancers of a lab that is up. The collection must be on ANSIBLE_COLLECTIONS_PATH, as `dev` sets it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._playbooks: dict[str, Playbooks] = {}

    def deploy(
        self,
        listeners: Sequence[Mapping[str, Any]],
        nodes: Sequence[str] = (),
        *,
        tags: Sequence[str] = (),
        **variables: Any,
    ) -> Deployment:
        """Run the site playbook on the named load balancers, or all, with listeners and other `variables` of the role.

        With `tags` run only these parts of the role. Raise DeployFailed unless it succeeded on each node.
        """
        began = time.monotonic()
        expected = set(nodes) or {node.name for node in self._lab.nodes("lb")}
        hosts = {"lb_hosts": ",".join(sorted(expected))}
        with self._files(variables={"lb_node_listeners": list(listeners), **hosts, **variables}) as folder:
            options = ["--extra-vars", f"@{folder / 'variables.json'}", *(["--tags", ",".join(tags)] if tags else [])]
            done = self._playbook(folder, f"{_COLLECTION}.site", *options)
        seconds = time.monotonic() - began
        output = done.stdout + done.stderr
        if done.returncode:
            raise DeployFailed(f"the site playbook ended with {done.returncode}:\n{_tail(output)}")
        stats = _recap(done.stdout)
        if not expected <= set(stats):
            raise DeployFailed(f"the site playbook did not reach {sorted(expected - set(stats))}:\n{_tail(output)}")
        return Deployment({name: stats[name] for name in sorted(expected)}, output, seconds)

    def play(self, playbook: str, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the collection that copies no files, and return its result, also if it failed."""
        with self._files(variables=variables) as folder:
            self._enter_nodes_directly(folder)
            name = f"{_COLLECTION}.{playbook}"
            return self._playbook(folder, name, "--extra-vars", f"@{folder / 'variables.json'}", *options)

    def configure(self, listeners: Sequence[Mapping[str, Any]]) -> None:
        """Replace the listeners of all load balancers by these. Raise ModuleFailed if a load balancer refuses them."""
        nodes = [node.name for node in self._lab.nodes("lb")]
        self.modules(nodes, [("lb_config", {"listeners": list(listeners), "state": "replaced", "purge": "all"})])

    def module(self, node: str, module: str, /, *, check: bool = True, **arguments: Any) -> dict[str, Any]:
        """Run one module (of the collection where the name has no dot) on one node and return its result.

        Raise ModuleFailed if it failed and `check` is set, LabError if it could not be run at all.
        """
        return self.modules([node], [(module, arguments)], check=check)[node][0]

    def modules(
        self, nodes: Sequence[str], calls: Sequence[tuple[str, Mapping[str, Any]]], *, check: bool = True
    ) -> dict[str, list[dict[str, Any]]]:
        """Run modules one after the other, each on all the nodes side by side; return each node's results.

        A call is a module's name and its arguments. A node on which a module fails does not run the rest. The errors
        are those of `module`.
        """
        tasks = [
            {"name": module, module if "." in module else f"{_COLLECTION}.{module}": arguments}
            for module, arguments in calls
        ]
        play = {"name": "Run modules", "hosts": list(nodes), "gather_facts": False, "tasks": tasks}
        with self._files(play=[play]) as folder:
            self._enter_nodes_directly(folder)
            done = self._playbook(folder, str(folder / "play.json"), callback="ansible.posix.json")
        try:
            results_by_task = [task["hosts"] for task in json.loads(done.stdout)["plays"][0]["tasks"]]
        except (ValueError, LookupError) as error:
            raise LabError(f"{calls} did not run:\n{_tail(done.stdout + done.stderr)}") from error
        results = {node: [hosts[node] for hosts in results_by_task if node in hosts] for node in nodes}
        for node in nodes:
            if not results[node]:
                raise LabError(f"{calls} did not run on {node}:\n{_tail(done.stdout + done.stderr)}")
            last = results[node][-1]
            if check and (last.get("failed") or last.get("unreachable")):
                raise ModuleFailed(node, calls[len(results[node]) - 1][0], last)
        return results

    def _enter_nodes_directly(self, folder: Path) -> None:
        """Write an inventory that runs modules in the nodes' namespaces, which is faster than the connection.

        Use it only for modules that copy no files, because a file would be written on this machine.
        """
        inventory = self._lab.inventory()
        for group in inventory["all"]["children"].values():
            for name in group["hosts"]:
                wrapper = folder / f"python-{name}"
                command = shlex.join(enter(self._lab.node(name).pid, ["/usr/bin/python3"]))
                wrapper.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
                wrapper.chmod(0o755)
                group["hosts"][name] = {"ansible_python_interpreter": str(wrapper), "ansible_connection": "local"}
        (folder / "inventory.json").write_text(json.dumps(inventory), encoding="utf-8")

    @contextmanager
    def _files(self, **documents: Any) -> Iterator[Path]:
        """Make a folder with the inventory and the documents as NAME.json for the length of a block."""
        self._lab.store.prepare()
        with TemporaryDirectory(dir=self._lab.store.folder / "tmp") as name:
            folder = Path(name)
            # a copy for each run, because a file that several runs share could be read half written
            self._lab.write_inventory(folder / "inventory.json")
            for key, document in documents.items():
                (folder / f"{key}.json").write_text(json.dumps(document), encoding="utf-8")
            yield folder

    def _playbook(
        self, folder: Path, *arguments: str, callback: str = "ansible.builtin.default"
    ) -> subprocess.CompletedProcess[str]:
        if callback not in self._playbooks:
            self._playbooks[callback] = Playbooks(self._environment(callback), folder.parent)
        return self._playbooks[callback].run(
            ["--inventory", str(folder / "inventory.json"), *arguments], folder, _SECONDS
        )

    def _environment(self, callback: str) -> dict[str, str]:
        if "ANSIBLE_COLLECTIONS_PATH" not in os.environ:
            raise LabError("ANSIBLE_COLLECTIONS_PATH is not set: start this through ./dev")
        return {
            **os.environ,
            "ANSIBLE_HOME": os.environ.get("ANSIBLE_HOME", str(self._lab.store.cache / "ansible")),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_RETRY_FILES_ENABLED": "0",
            "ANSIBLE_STDOUT_CALLBACK": callback,
        }


def _recap(output: str) -> dict[str, dict[str, int]]:
    """Return the counts by host from the last output of the default callback."""
    stats = {}
    for line in output.rpartition("PLAY RECAP")[2].splitlines():
        host, _colon, counts = line.partition(" : ")
        numbers = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", counts)}
        if numbers:
            stats[host.strip()] = {
                "ok": numbers["ok"],
                "changed": numbers["changed"],
                "failures": numbers["failed"],
                "unreachable": numbers["unreachable"],
            }
    return stats


def _tail(output: str) -> str:
    return "\n".join(output.strip().splitlines()[-_TAIL_LINES:])
