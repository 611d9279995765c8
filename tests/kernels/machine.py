# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A virtual machine that boots a stock kernel, runs pytest and powers itself off. It has no disk and no network."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from threading import Timer

from lab.store import LabError

from .archive import Entry, archive, file_entry, folder_entries
from .image import Image

SECONDS = 2400.0
"""Time after which a machine is ended: several times what its tests take."""

_PROGRAM = "qemu-system-x86_64"
_MEMORY_MIB = 2048
_TESTS = Path(__file__).resolve().parents[1]
_COLLECTION = _TESTS.parent
_LIBRARY = "usr/local/lib/evenflow"
_STATUS = "exit status "


class Machine:
    """A machine with the tests and the collection of this tree.

    :param log: the file for what the machine's console shows: messages of the kernel, and errors of what boots it.
    """

    def __init__(self, image: Image, log: Path) -> None:
        self._image = image
        self._log = log

    def run(self, arguments: Sequence[str], say: Callable[[str], None]) -> int:
        """Run pytest with these arguments in the machine, give each line that it prints to `say`, return its status.

        Raise LabError if the machine ends without a status; the text ends in the tail of its console.
        """
        if not shutil.which(_PROGRAM):
            raise LabError(f"{_PROGRAM} is missing; run: apt-get install qemu-system-x86")
        first_files = self._log.with_suffix(".cpio")
        with open(first_files, "wb") as file, open(self._image.root, "rb") as root:
            shutil.copyfileobj(root, file)
            file.write(archive(_entries(arguments)))
        try:
            status = self._boot(first_files, say)
        finally:
            first_files.unlink()
        if status is None:
            console = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
            tail = "\n".join(f"    {line}" for line in console[-60:])
            raise LabError(f"the machine ended before its tests; its console, {self._log}:\n{tail}")
        return status

    def _boot(self, first_files: Path, say: Callable[[str], None]) -> int | None:
        command = [
            *(_PROGRAM, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(_MEMORY_MIB)),
            *("-kernel", str(self._image.kernel), "-initrd", str(first_files)),
            *("-append", "console=ttyS0 loglevel=5 panic=-1 rdinit=/init"),
            *("-display", "none", "-nodefaults", "-no-reboot", "-nic", "none"),
            *("-serial", f"file:{self._log}", "-serial", "stdio"),
        ]
        status = None
        # The machine ends with this process.
        with subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            limit = Timer(SECONDS, process.kill)
            limit.start()
            try:
                assert process.stdout
                for line in process.stdout:
                    if line.startswith(_STATUS):
                        status = int(line.removeprefix(_STATUS))
                    else:
                        say(line.rstrip())
            finally:
                limit.cancel()
                process.kill()
        return status


def _entries(arguments: Sequence[str]) -> list[Entry]:
    """Return the files that are not in the image: the tests, the collection, and what of Ansible modules import."""
    guest = _TESTS / "kernels" / "guest"
    # A test package of a node, the units of backends, and the library, are where the lab and the role put them.
    units = ("evenflow.service", "evenflow-checks.service", "evenflow-checks.socket")
    ansible = Path(str(import_module("ansible.module_utils.basic").__file__)).parent
    return [
        file_entry(guest / "init", "init"),
        file_entry(guest / "systemctl.py", "usr/local/lib/systemctl.py"),
        Entry("usr/local/bin/systemctl", 0o100755, b'#!/bin/sh\nexec python3 /usr/local/lib/systemctl.py "$@"\n'),
        Entry("arguments.json", 0o100644, json.dumps(list(arguments)).encode()),
        *folder_entries(_TESTS / "lab", "tests/lab"),
        *folder_entries(_TESTS / "kernels", "tests/kernels"),
        file_entry(_COLLECTION / "pyproject.toml", "tests/pyproject.toml"),
        *folder_entries(_TESTS / "lab" / "node", "opt/lab"),
        *folder_entries(_TESTS / "lab" / "node" / "units", "usr/local/lib/systemd/system"),
        file_entry(guest / "lab-sctp.service", "usr/local/lib/systemd/system/lab-sctp.service"),
        *[Entry(f"usr/local/lib/systemd/system/{name}", 0o100644, _unit(name)) for name in units],
        *folder_entries(_COLLECTION / "plugins" / "module_utils", f"{_LIBRARY}/current/evenflow_l4lb"),
        *folder_entries(_COLLECTION / "plugins", "collections/ansible_collections/evenflow/l4lb/plugins"),
        Entry("collections/ansible/__init__.py", 0o100644),
        *folder_entries(ansible, "collections/ansible/module_utils"),
    ]


def _unit(name: str) -> bytes:
    """Return a unit of the role, without what a machine that has no systemd does not need."""
    unit = (_COLLECTION / "roles/lb_node/templates" / f"{name}.j2").read_text(encoding="utf-8")
    return unit.replace("{{ _lb_node_library_dir }}", f"/{_LIBRARY}").encode()
