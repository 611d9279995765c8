# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the anchor table with programs in the place of nft; the lab has the real one."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent import anchor as anchor_module
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.anchor import Anchor
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import NodeError
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import runner
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, document, listener

ONE = Configuration.from_document(document(listener("web", backend("198.19.0.1"))))
NONE = Configuration.from_document({})
MANY = Configuration.from_document(
    document(*(listener(f"l{number}", address=f"198.18.{number >> 8}.{number & 255}") for number in range(1, 9000)))
)

ANSWERS = """
printf '%s\n' $$ >>pids
while read -r line; do
    printf '%s\n' "$line" >>lines
    case $line in
    "describe mark") echo "meta expression, datatype mark (packet mark) (basetype integer), 32 bits" ;;
    esac
done
"""
FAILS = ANSWERS.replace("esac", '"add element"*) echo "Error: no"; echo "^^^" ;;\n    esac')
HANGS = "printf '%s\\n' $$ >>pids; exec /bin/sleep 1000"
ENDS = "exit 1"


class Bench:
    """An anchor with a program in the place of nft, and what it reports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.anchor = Anchor()
        self.reasons: list[str] = []
        self.anchor.failed = self.reasons.append

    def nft(self, text: str) -> None:
        """Replace nft by a shell script."""
        program = self.folder / "nft"
        program.write_text(f'#!/bin/sh\ncd "${{0%/*}}" || exit\n{text}\n', encoding="ascii")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def lines(self) -> list[str]:
        """Return the lines that nft has got, without those that create the table."""
        text = (self.folder / "lines").read_text(encoding="ascii")
        return [line for line in text.splitlines() if not line.startswith("add table")]

    def pids(self) -> list[int]:
        """Return the ids of the processes that have been started."""
        path = self.folder / "pids"
        return [int(pid) for pid in path.read_text(encoding="ascii").split()] if path.exists() else []


async def until(look: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


Work = Callable[[Bench], Coroutine[Any, Any, None]]


@pytest.fixture
def run_anchor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], None]:
    """Return a function that runs a test's coroutine with an anchor."""
    monkeypatch.setattr(runner, "_PATH", str(tmp_path))

    def run_it(work: Work) -> None:
        async def main() -> None:
            bench = Bench(tmp_path)
            try:
                await work(bench)
            finally:
                bench.anchor.close()
            for pid in bench.pids():
                assert not Path("/proc", str(pid)).exists()

        asyncio.run(main())

    return run_it


def test_only_differences_are_written(run_anchor: Callable[[Work], None]) -> None:
    async def work(bench: Bench) -> None:
        bench.nft(ANSWERS)
        assert not bench.anchor.is_current
        for configuration in (ONE, ONE, NONE):
            bench.anchor.hold(configuration)
            await until(lambda: bench.anchor.is_current)
        elements = "element inet evenflow_anchor listeners4 { 198.18.0.10 . tcp . 80 }"
        assert bench.lines() == [f"add {elements}", "describe mark", f"delete {elements}", "describe mark"]
        assert bench.reasons == [] and len(bench.pids()) == 1

    run_anchor(work)


def test_packets_are_dropped_before_the_other_table_rejects_them() -> None:
    (creation,) = anchor_module._creation()
    for hook in ("prerouting", "output"):
        assert f"hook {hook} priority -95;" in creation
        for selected in ("ct state invalid", "ct state new ct mark & 0x80000000 == 0"):
            assert f"late_{hook} {selected} jump held" in creation


def test_an_error_is_reported_and_the_table_is_built_anew(run_anchor: Callable[[Work], None]) -> None:
    async def work(bench: Bench) -> None:
        bench.nft(FAILS)
        bench.anchor.hold(ONE)
        await until(lambda: bench.reasons)
        assert bench.reasons == ["nft -i: Error: no ^^^"]
        assert not bench.anchor.is_current
        # The old table keeps the hooks until then.
        os.kill(bench.pids()[0], 0)
        bench.nft(ANSWERS)
        bench.anchor.hold(ONE)
        await until(lambda: bench.anchor.is_current)
        assert len(bench.pids()) == 2 and len(bench.reasons) == 1

    run_anchor(work)


@pytest.mark.parametrize("configuration", [ONE, MANY])
def test_an_nft_that_hangs_does_not_block_and_is_replaced(
    run_anchor: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch, configuration: Configuration
) -> None:
    """The listeners of the second case are more than a pipe holds."""
    monkeypatch.setattr(anchor_module, "ANSWER_SECONDS", 0.2)

    async def work(bench: Bench) -> None:
        bench.nft(HANGS)
        bench.anchor.hold(configuration)
        await until(lambda: bench.reasons)
        assert bench.reasons == ["nft -i: no answer within 0.2 s"]
        monkeypatch.setattr(anchor_module, "ANSWER_SECONDS", 60)
        bench.nft(ANSWERS)
        bench.anchor.hold(configuration)
        await until(lambda: bench.anchor.is_current)
        assert sum(line.count(" . tcp . ") for line in bench.lines()) == len(configuration.listeners)

    run_anchor(work)


def test_an_nft_that_is_stopped_is_replaced(
    run_anchor: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(bench: Bench) -> None:
        bench.nft(ANSWERS)
        bench.anchor.hold(NONE)
        await until(lambda: bench.anchor.is_current)
        os.kill(bench.pids()[0], signal.SIGSTOP)
        monkeypatch.setattr(anchor_module, "ANSWER_SECONDS", 0.2)
        bench.anchor.hold(ONE)
        await until(lambda: bench.reasons)

    run_anchor(work)


def test_an_nft_that_ends_is_reported(run_anchor: Callable[[Work], None]) -> None:
    async def work(bench: Bench) -> None:
        bench.nft(ANSWERS)
        bench.anchor.hold(NONE)
        await until(lambda: bench.anchor.is_current)
        os.kill(bench.pids()[0], signal.SIGKILL)
        await until(lambda: bench.reasons)
        assert bench.reasons == ["nft -i has ended"]
        bench.nft(ENDS)
        bench.anchor.hold(NONE)
        await until(lambda: len(bench.reasons) > 1)
        assert not bench.anchor.is_current

    run_anchor(work)


def test_a_missing_nft_is_an_error(run_anchor: Callable[[Work], None]) -> None:
    async def work(bench: Bench) -> None:
        with pytest.raises(NodeError, match="install the package nftables"):
            bench.anchor.hold(ONE)

    run_anchor(work)
