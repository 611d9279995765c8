# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Row 60: a change that is killed at any step is undone or finished by the next one, also after a reboot."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.address import Address
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.edit import Edit, without_backend, without_listener
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.identity import backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import LiveTable
from ansible_collections.evenflow.l4lb.plugins.module_utils._node import repairs
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.node import Node
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.runtime import Drain
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP6, backend, document, listener
from ansible_collections.evenflow.l4lb.tests.unit.fake_disk import Disk, watch
from ansible_collections.evenflow.l4lb.tests.unit.fake_machine import Machine, put
from ansible_collections.evenflow.l4lb.tests.unit.fake_nft import FakeNft

B1, B2, V6 = "198.19.0.1", "198.19.0.2", "2001:db8:1::1"
WEB = listener("web", backend(B1), backend(B2), scheduler="wrr")
DNS = listener("dns", backend(B1), backend(B2), protocol="udp", ports=["53"], scheduler="wrr")
IDLE = listener("idle", backend(V6), address=VIP6, scheduler="wrr")
DRAINING = listener("mail", backend(B1, admin_state="drained"), backend(B2), ports=["25"], scheduler="wrr")
BASE = document(WEB, DNS, IDLE, DRAINING)
FOREIGN = Address("lan", "198.18.0.77")
KERNEL = ("nft", "foreign", "addresses", "ever_announced", "flows", "flows_to_delete")
BEGAN, LATER = 1000.0, 1001.0
KILLED = 9


def one_backend(name: str, **options: Any) -> Edit:
    """Return the edit of a backend's options."""
    return put({"name": name, "backends": [{"address": B1, **options}]})


CHANGES: dict[str, Edit] = {
    "a listener with its VIP is added": put(listener("new", backend(B1), address="198.18.0.11", scheduler="wrr")),
    "a listener moves to another VIP": put({"name": "idle", "address": "2001:db8::11"}),
    "a backend with flows is removed": partial(without_backend, listeners=["web"], backend={"address": B1, "port": 0}),
    "a backend that drains is removed": partial(
        without_backend, listeners=["mail"], backend={"address": B1, "port": 0}
    ),
    "a listener with flows is removed": partial(without_listener, name="web"),
    "an idle listener is removed": partial(without_listener, name="idle"),
    "a machine is drained": one_backend("web", admin_state="drained"),
    "a drain is cancelled": one_backend("mail", admin_state="enabled"),
    "a backend whose flows move is disabled": one_backend("dns", admin_state="disabled"),
    "a weight is changed": one_backend("web", weight=7),
}


@dataclass
class State:
    """What a change may leave of a node."""

    configuration: Document
    table: LiveTable | None
    addresses: set[Address]
    drains: dict[str, Drain]
    flows: dict[int, int]


class Story:
    """A node, and what it is brought back to before each case."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        # What a power cut leaves is a matter of the disk in memory: nothing has to wait for the real one.
        monkeypatch.setattr(os, "sync", lambda: None)
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        self.machine = Machine(folder / "etc")
        self.machine.install(monkeypatch)
        self.saved = folder / "saved"
        self.dump = folder / "dump"
        self.at(BEGAN)
        self.machine.folder.mkdir()
        (self.machine.folder / "node.json").write_text('{"vip_mode": "address", "vip_interface": "lan"}', "ascii")
        self.machine.addresses = {FOREIGN}
        self.machine.node.change(put(*BASE.values()))
        ids = backend_ids(Configuration.from_document(BASE))
        self.machine.flows = {mark: 5 for (name, *_endpoint), mark in ids.items() if name != "idle"}
        self.machine.ever_announced.clear()
        self.machine.flows_to_delete.clear()
        shutil.copytree(self.machine.folder, self.saved, symlinks=True)
        self._kernel = self._pickled()

    def at(self, now: float) -> None:
        """Let it be a time."""
        self._monkeypatch.setattr(time, "time", lambda: now)

    def reset(self) -> None:
        """Bring files and kernel back to where they were."""
        shutil.rmtree(self.machine.folder)
        shutil.copytree(self.saved, self.machine.folder, symlinks=True)
        self._load(self._kernel)
        self.at(BEGAN)

    def state(self) -> State:
        """Return what the node is now."""
        view = self.machine.view
        return State(
            view.configuration(),
            self.machine.nft.read_table(),
            set(self.machine.addresses),
            dict(view.runtime().drains),
            dict(self.machine.flows),
        )

    def killed(self, edit: Edit, step: int) -> str:
        """Change the node in a process that is killed before one of its steps.

        :returns: the step; empty if there are not so many.
        """
        pid = os.fork()
        if pid == 0:
            self._run_killed(edit, step)
        _pid, status = os.waitpid(pid, 0)
        kernel, disk, name = pickle.loads(self.dump.read_bytes())
        self._load(kernel)
        self.disk: Disk = disk
        assert os.waitstatus_to_exitcode(status) == (KILLED if name else 0)
        return str(name)

    def _run_killed(self, edit: Edit, step: int) -> None:
        """Carry out a change and end the process, which no handler of an exception sees."""
        disk, taken = Disk(self.machine.folder), 0
        disk.sync()
        real_open = os.open

        def end(name: str) -> None:
            data = pickle.dumps((self._pickled(), disk, name))
            descriptor = real_open(self.dump, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.write(descriptor, data)
            os._exit(KILLED if name else 0)

        def take(name: str) -> None:
            nonlocal taken
            if taken == step:
                end(name)
            taken += 1

        try:
            self.machine.step = take
            watch(disk, take, self._monkeypatch)
            Node(str(self.machine.folder)).change(edit)
            end("")
        finally:
            os._exit(1)

    def reboot(self) -> None:
        """Empty what does not outlive a reboot, and load what boots. Flows come again, as their clients go on."""
        shutil.rmtree(self.machine.folder / "run", ignore_errors=True)
        self.machine.nft = FakeNft()
        self.machine.nft.run(self.machine.boot_ruleset())
        batch = (self.machine.folder / "state" / "vips.batch").read_text("ascii").split("\n")
        self.machine.addresses = {FOREIGN} | {
            Address(line.split()[4], line.split()[2].split("/")[0]) for line in batch if line
        }

    def _pickled(self) -> bytes:
        return pickle.dumps({name: getattr(self.machine, name) for name in KERNEL})

    def _load(self, kernel: bytes) -> None:
        vars(self.machine).update(pickle.loads(kernel))


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Story:
    """Return a node with flows, VIPs and a drain."""
    return Story(tmp_path, monkeypatch)


def after_power_cut(story: Story) -> None:
    """Lose everything that was not synced, and boot."""
    story.disk.cut_power()
    story.reboot()


RECOVERIES: dict[str, Callable[[Story], None]] = {
    "next run": lambda story: None,
    "reboot": Story.reboot,
    "power cut": after_power_cut,
}


def recover(story: Story) -> None:
    """Run a module that asks for nothing, then what an agent does when it starts."""
    story.at(LATER)
    node = Node(str(story.machine.folder))
    node.change(put())
    runs = len(story.machine.nft.runs)
    assert not node.change(put()).changed
    node.reconcile({}, save=True)
    assert len(story.machine.nft.runs) == runs


def assert_clean(story: Story) -> None:
    """Fail if anything is left over, or if the node would boot to anything else."""
    folder, machine = story.machine.folder, story.machine
    base = folder / "state" / "restore"
    assert [path for path in folder.rglob("*") if path.name.endswith(".new")] == []
    assert not (folder / "run" / "unfinished.json").exists()
    assert sorted(os.listdir(base)) == sorted(["current", os.readlink(base / "current")])
    vips = json.loads((folder / "state" / "vips.json").read_text("utf-8"))
    assert {Address(**vip) for vip in vips} == machine.addresses - {FOREIGN}
    booted = FakeNft()
    booted.run(machine.boot_ruleset())
    expected, table = booted.read_table(), machine.nft.read_table()
    assert expected and table
    assert expected.chains == table.chains
    assert {n: s.elements for n, s in expected.sets.items() if n != "ended"} == {
        n: s.elements for n, s in table.sets.items() if n != "ended"
    }
    batch = (folder / "state" / "vips.batch").read_text("ascii")
    assert batch.count("\n") == len(vips) and all(vip["address"] in batch for vip in vips)


@pytest.mark.parametrize("recovery", RECOVERIES)
@pytest.mark.parametrize("change", CHANGES)
def test_killed_at_every_step(story: Story, change: str, recovery: str) -> None:
    edit, before = CHANGES[change], story.state()
    story.machine.node.change(edit)
    announced, unmarked = set(story.machine.ever_announced), set(story.machine.flows_to_delete)
    recover(story)
    after = story.state()
    assert_clean(story)
    assert after.configuration != before.configuration
    ends = {"before": 0, "after": 0}
    for step in range(1000):
        story.reset()
        name = story.killed(edit, step)
        RECOVERIES[recovery](story)
        recover(story)
        state = story.state()
        where = f"{change}, {recovery}, killed before step {step}, {name}"
        is_after = state.configuration == after.configuration
        ends["after" if is_after else "before"] += 1
        assert state == (after if is_after else before), where
        assert_clean(story)
        if is_after and recovery == "next run":
            assert story.machine.ever_announced >= announced, where
            assert set(story.machine.flows_to_delete) >= unmarked, where
        if recovery == "next run" and not is_after:
            Node(str(story.machine.folder)).change(edit)
            done = story.state()
            assert done.configuration == after.configuration and done.addresses == after.addresses, where
            assert done.drains.keys() == after.drains.keys(), where
            assert_clean(story)
        if not name:
            break
    print(f"{change}, {recovery}: killed before {step} steps; {ends['before']} end before it, {ends['after']} after")
    assert ends["before"] > 5 and ends["after"] > 3


def test_the_agent_finishes_a_change_though_it_may_not_write_the_configuration(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its service sees the configuration's folder read-only."""
    edit, unlink = next(iter(CHANGES.values())), os.unlink
    for step in range(3, 30, 9):
        story.reset()
        story.killed(edit, step)

        def read_only(path: str, *arguments: Any, folder: str = str(story.machine.folder), **options: Any) -> None:
            if os.path.dirname(path) == folder:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
            unlink(path, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", read_only)
            Node(str(story.machine.folder)).reconcile({}, save=False)


def test_an_interrupted_change_is_no_repair_of_what_others_did(story: Story) -> None:
    names = [story.killed(put(), 0)]
    for step in range(1000):
        story.reset()
        names.append(story.killed(CHANGES["a weight is changed"], step))
        if names[-1] == "nft":
            break
    story.reset()
    story.killed(CHANGES["a weight is changed"], step + 1)
    assert story.machine.node.change(put()).repairs == [repairs.INTERRUPTED]
    assert story.machine.node.change(put()).repairs == []
