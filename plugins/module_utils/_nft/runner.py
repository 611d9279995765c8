# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads and writes the kernel's nftables state through the node's own ``nft``."""

from __future__ import annotations

import os
import shutil
import subprocess

from .._errors import NodeError
from .._system import netlink
from .objects import FAMILY, TABLE
from .transaction import Transaction

_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_SUBSYSTEM = 10
_GET_GENERATION = 16
_GENERATION_ID = 1
_OBJECT_DELETIONS = ("delete chain", "delete map", "delete set", "delete ct timeout")
_BUSY = "Device or resource busy"


def apply(transaction: Transaction) -> int:
    """Run a transaction: all of it or nothing.

    One that has checkpoints may be run in batches, of which only the last one shows.

    :returns: by how much it has raised the kernel's generation.
    :raises NodeError: the kernel or nft refused it; nothing of it took effect.
    """
    done = 0
    for batch in transaction.batches():
        try:
            done += _apply_batch(batch)
        except NodeError:
            if done:
                run(["delete", "table", FAMILY, TABLE])
            raise
    return done


def _apply_batch(batch: Transaction) -> int:
    """Run statements at once.

    Kernels before 6.2 may refuse the deletion of a chain or set in the transaction that ends its use; then the
    deletions follow in a second one.
    """
    done = run(["-f", "-"], batch.text())
    deletions = [text for text in batch.statements if text.startswith(_OBJECT_DELETIONS)]
    if not (done.returncode and _BUSY in done.stderr and deletions):
        checked(done)
        return 1
    first, second = Transaction(), Transaction()
    first.statements = [text for text in batch.statements if text not in set(deletions)]
    second.statements = deletions
    checked(run(["-f", "-"], first.text()))
    checked(run(["-f", "-"], second.text()))
    return 2


def generation() -> int:
    """Return the kernel's nftables generation: a number that every transaction of anybody raises by one."""
    try:
        answer = next(netlink.ask(_SUBSYSTEM, _GET_GENERATION))
    except OSError as error:
        raise NodeError(f"the kernel does not tell its nftables generation: {error.strerror}") from error
    found = netlink.parse(answer, netlink.PREAMBLE)
    if _GENERATION_ID not in found:
        raise NodeError("the kernel's answer does not hold an nftables generation")
    return int.from_bytes(found[_GENERATION_ID], "big")


def nft_program() -> str:
    """Return the path of the node's nft.

    :raises NodeError: there is none.
    """
    program = shutil.which("nft", path=_PATH)
    if program is None:
        raise NodeError(f"nft: not found in {_PATH}; install the package nftables")
    return program


def run(arguments: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    # The library also runs where there is no AnsibleModule with its run_command.
    return subprocess.run(  # pylint: disable=ansible-bad-function
        [nft_program(), *arguments],
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )


def checked(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise NodeError(f"nft {' '.join(done.args[1:])}: {done.stderr.strip()[:2000]} (exit code {done.returncode})")
