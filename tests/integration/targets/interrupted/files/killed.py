# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kill -9 a module before each of its steps, with the real nft, addresses and conntrack; argument: a folder.

A process that has imported the module is forked, and kills itself before the chosen step. After that the module runs
once more and asks for nothing. The node must be as before or after the change then, with nothing left over. Prints a
line for each kind of change.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from typing import Any, Callable

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.identity import backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import live_table, runner
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.view import NodeView
from ansible_collections.evenflow.l4lb.plugins.module_utils._system import addresses, conntrack
from ansible_collections.evenflow.l4lb.plugins.modules import lb_backend, lb_config, lb_drain

VIP, OTHER_VIP = "198.18.0.10", "198.18.0.11"
B1, B2 = "198.19.0.1", "198.19.0.2"


def listener(name: str, **options: Any) -> dict[str, Any]:
    """Return a listener of two backends as a task has it."""
    return {
        "name": name,
        "address": VIP,
        "protocol": "tcp",
        "ports": ["80"],
        "scheduler": "wrr",
        "backends": [{"address": B1}, {"address": B2}],
        **options,
    }


BASE = [listener("web"), listener("idle", address=OTHER_VIP), listener("dns", protocol="udp", ports=["53"])]
NEW = listener("new", address="198.18.0.12")
GONE = {"listener": ["web"], "address": B1, "state": "absent"}
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "a listener with its VIP is added": (lb_config, {"listeners": [NEW]}),
    "a backend with flows is removed": (lb_backend, GONE),
    "an idle listener is removed": (lb_config, {"listeners": [BASE[0], BASE[2]], "purge": "listeners"}),
    "a machine is drained": (lb_drain, {"backends": [B1], "listener": ["web"], "wait": False}),
    "flows are moved": (lb_backend, {"listener": ["dns"], "address": B1, "admin_state": "disabled"}),
    "a weight is changed": (lb_backend, {"listener": ["web"], "address": B1, "weight": 7}),
}


class Node:
    """This network namespace as a node, and its files."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def run(self, module: Any, arguments: dict[str, Any], patch: Callable[[], None] | None = None) -> dict[str, Any]:
        """Run a module in a process of its own and return its result; nothing if it was killed."""
        output = f"{self.folder}.result"
        pid = os.fork()
        if pid == 0:
            try:
                text = io.StringIO()
                sys.argv = [module.__name__, f"{self.folder}.arguments"]
                with open(sys.argv[1], "w", encoding="utf-8") as file:
                    json.dump({"ANSIBLE_MODULE_ARGS": {"config_dir": self.folder, **arguments}}, file)
                with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
                    if patch:
                        patch()
                    module.main()
                with open(output, "w", encoding="utf-8") as file:
                    file.write(text.getvalue())
                os._exit(0)
            finally:
                os._exit(1)
        _pid, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
            return {}
        with open(output, encoding="utf-8") as file:
            result: dict[str, Any] = json.load(file)
        if status or result.get("failed"):
            raise SystemExit(f"{module.__name__} failed: {result.get('msg')}")
        return result

    def begin(self) -> None:
        """Make the node what it is before each change: listeners, VIPs, live flows."""
        command("nft", "-f", "-", text="add table inet evenflow\ndelete table inet evenflow\n")
        command("ip", "address", "flush", "dev", "vips")
        command("ip", "address", "add", "198.18.0.77/32", "dev", "vips")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        with open(os.path.join(self.folder, "node.json"), "w", encoding="ascii") as file:
            json.dump({"vip_mode": "address", "vip_interface": "vips"}, file)
        self.run(lb_config, {"listeners": BASE})
        command("conntrack", "-F")
        ids = backend_ids(Configuration.from_document(NodeView(self.folder).configuration()))
        for (name, address, _port), mark in ids.items():
            if name != "idle":
                make_flow(name, address, mark)

    def state(self) -> dict[str, Any]:
        """Return everything that a change may have changed; a drain's times only as a length."""
        view = NodeView(self.folder)
        table = live_table.read_table()
        assert table
        return {
            "configuration": view.configuration(),
            "chains": {name: (chain.hook, chain.comments) for name, chain in table.chains.items()},
            "sets": {name: dict(found.elements) for name, found in table.sets.items()},
            "addresses": sorted(address.address for address in addresses.read(["vips"])),
            "drains": {
                name: (drain.cause, drain.deadline and drain.deadline - drain.since)
                for name, drain in view.runtime().drains.items()
            },
            "flows": conntrack.count(),
        }

    def leftovers(self) -> list[str]:
        """Return what should not be there: new files, unused folders, addresses that the files do not name."""
        paths = [os.path.join(top, name) for top, _folders, names in os.walk(self.folder) for name in names]
        # Before the first of all steps is done there is nothing to remember that it was begun.
        found = [
            path for path in paths if path.endswith((".new", "unfinished.json")) and "unfinished.json.new" not in path
        ]
        with open(os.path.join(self.folder, "state", "vips.json"), encoding="ascii") as file:
            named = {entry["address"] for entry in json.load(file)}
        there = {address.address for address in addresses.read(["vips"])} - {"198.18.0.77"}
        ruleset = os.path.join(self.folder, "state", "restore", "current", "main.nft")
        boot = subprocess.run(["nft", "-c", "-f", ruleset], check=False)
        return found + sorted(named ^ there) + ["what boots"] * bool(boot.returncode)


def make_flow(name: str, address: str, mark: int) -> None:
    """Put a live flow to a backend into the kernel's table."""
    kind = ["-p", "udp", "--dport", "53"] if name == "dns" else ["-p", "tcp", "--dport", "80", "--state", "ESTABLISHED"]
    flow = ["-s", f"198.18.9.{address[-1]}", "-d", VIP, "--sport", "7777", "-t", "3600", "-m", str(mark)]
    command("conntrack", "-I", *kind, *flow, "-u", "ASSURED,SEEN_REPLY")


def command(*arguments: str, text: str = "") -> None:
    """Run a program that must succeed."""
    subprocess.run(arguments, input=text, text=True, check=True, capture_output=True)


def killing(step: int) -> Callable[[], None]:
    """Return what makes a process kill itself before one of its steps."""
    taken = 0

    def take() -> None:
        nonlocal taken
        if taken == step:
            os.kill(os.getpid(), signal.SIGKILL)
        taken += 1

    def stepped(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if "dir_fd" not in options:
                take()
            return function(*arguments, **options)

        return call

    def patch() -> None:
        real_open, real_run = os.open, runner.run

        def open_(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if flags & os.O_CREAT:
                take()
            return real_open(path, flags, *arguments, **options)

        def run(arguments: list[str], text: str | None = None) -> Any:
            if text is not None:
                take()
            return real_run(arguments, text)

        os.open, runner.run = open_, run  # type: ignore[assignment]
        for place, names in (
            (os, ("link", "mkdir", "replace", "rmdir", "symlink", "unlink", "sync")),
            (addresses, ("_request", "announce")),
            (conntrack, ("delete_flows", "delete_unmarked", "_delete", "_flush")),
        ):
            for name in names:
                setattr(place, name, stepped(getattr(place, name)))

    return patch


def main() -> None:
    """Kill each change before each of its steps."""
    node = Node(sys.argv[1])
    for change, (module, arguments) in CHANGES.items():
        node.begin()
        before = node.state()
        node.run(module, arguments)
        node.run(lb_config, {"listeners": []})
        after = node.state()
        assert after["configuration"] != before["configuration"], change
        ends = {"before": 0, "after": 0}
        for step in range(1000):
            node.begin()
            was_killed = not node.run(module, arguments, killing(step))
            node.run(lb_config, {"listeners": []})
            assert not node.run(lb_config, {"listeners": []})["changed"]
            state = node.state()
            end = "after" if state["configuration"] == after["configuration"] else "before"
            expected = after if end == "after" else before
            where = f"{change}, killed before step {step}"
            differences = {name: (state[name], expected[name]) for name in expected if state[name] != expected[name]}
            assert not differences, f"{where}: {differences}"
            ends[end] += 1
            if not was_killed:
                break
            assert not node.leftovers(), f"{where}: {node.leftovers()}"
        counts = f"{ends['before']} end before it, {ends['after']} after"
        print(f"{change}: killed before {step} steps; {counts}", flush=True)


if __name__ == "__main__":
    main()
