# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the node's own ``nft``: the only part of the library that executes a transaction."""

from __future__ import annotations

import os
import shutil
import subprocess

from .._errors import NodeError
from .._system import netlink
from .objects import FAMILY, TABLE
from .transaction import Transaction

SECONDS = 60
"""How long nft may take. A transaction of a million elements takes 3 seconds on an idle node."""

_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_GETGEN = 16
_NFTA_GEN_ID = 1
_BUSY = "Device or resource busy"


class NftFailed(NodeError):
    """nft, or the kernel, has refused what it was asked for."""


def apply(transaction: Transaction) -> int:
    """Run a transaction: all of it or nothing.

    One that has checkpoints may be run in batches, of which only the last one has an effect on packets.

    :returns: the number by which it has raised the kernel's generation.
    :raises NftFailed: the kernel or nft refused it; nothing of it took effect.
    :raises NodeError: nft gives no answer.
    """
    raised = 0
    for batch in transaction.batches():
        try:
            raised += _apply_batch(batch)
        except NodeError:
            if raised:
                run(["delete", "table", FAMILY, TABLE])
            raise
    return raised


def _apply_batch(batch: Transaction) -> int:
    """Run a batch in one kernel transaction, or in two.

    Kernels before 6.2 may refuse to delete a chain or set in the transaction that ends its use. Then the deletions
    follow in a second one.
    """
    completed = run(["-f", "-"], batch.text())
    deletions = [statement for statement in batch.statements if statement.is_deletion_of_object]
    if not (completed.returncode and _BUSY in completed.stderr and deletions):
        check(completed)
        return 1
    others = [statement for statement in batch.statements if not statement.is_deletion_of_object]
    for statements in (others, deletions):
        check(run(["-f", "-"], Transaction(statements).text()))
    return 2


def generation() -> int:
    """Return the kernel's nftables generation: a number that every transaction of any program raises by one.

    :raises NodeError: the kernel does not give it.
    """
    try:
        answer = next(netlink.ask(_NFNL_SUBSYS_NFTABLES, _NFT_MSG_GETGEN))
    except OSError as error:
        raise NodeError(f"the kernel does not give its nftables generation: {error.strerror}") from error
    attributes = netlink.parse(answer, netlink.PREAMBLE)
    if _NFTA_GEN_ID not in attributes:
        raise NodeError("the kernel's answer does not hold an nftables generation")
    return int.from_bytes(attributes[_NFTA_GEN_ID], "big")


def nft_program() -> str:
    """Return the path of the node's nft.

    :raises NodeError: it is not installed.
    """
    program = shutil.which("nft", path=_PATH)
    if program is None:
        raise NodeError(f"nft: not found in {_PATH}; install the package nftables")
    return program


def run(arguments: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run nft and return what it printed, whether it succeeded or not.

    :param text: its standard input.
    :raises NodeError: it has not ended within :data:`SECONDS`. The kernel has run the transaction or has not.
    """
    try:
        # The library also runs where there is no AnsibleModule with its run_command.
        return subprocess.run(  # pylint: disable=ansible-bad-function
            [nft_program(), *arguments],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise NodeError(f"nft {' '.join(arguments)}: no answer within {SECONDS} s; it was ended") from error


def check(completed: subprocess.CompletedProcess[str]) -> None:
    """Raise :class:`NftFailed` with nft's own message if it failed."""
    if completed.returncode:
        message = completed.stderr.strip()[:2000]
        raise NftFailed(f"nft {' '.join(completed.args[1:])}: {message} (exit code {completed.returncode})")
