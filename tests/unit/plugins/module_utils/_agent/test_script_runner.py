# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of how many scripts run at once; the lab runs them in control groups."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent import script_runner
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.script_runner import ScriptRunner
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.script_slots import Slot, Slots

Ask = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


def with_runner(folder: Path, at_once: int, work: Callable[[Ask], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine that gets a function which asks a script runner."""
    path = str(folder / "socket")

    async def ask(script: str, timeout: float = 60) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(path)
        request = {"command": ["/bin/sh", "-c", script], "timeout": timeout, "environment": {}}
        writer.write(json.dumps(request).encode() + b"\n")
        try:
            answer: dict[str, Any] = json.loads(await reader.readline())
            return answer
        finally:
            writer.close()

    async def main() -> None:
        runner = ScriptRunner(Slots(None, at_once))
        server = await asyncio.start_unix_server(runner.serve, path)
        try:
            await work(ask)
        finally:
            server.close()

    asyncio.run(main())


async def until_file(path: Path) -> None:
    while not path.exists():
        await asyncio.sleep(0.01)


def test_more_scripts_than_slots_wait_for_each_other(tmp_path: Path) -> None:
    async def work(ask: Ask) -> None:
        count = f"echo >{tmp_path}/$$; ls {tmp_path} | grep -c '^[0-9]'; sleep 0.05; rm {tmp_path}/$$"
        answers = await asyncio.gather(*[ask(count) for _number in range(12)])
        assert all(answer["code"] == 0 and int(answer["output"]) <= 3 for answer in answers), answers

    with_runner(tmp_path, 3, work)


def test_a_script_that_waits_too_long_is_not_run_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(ask: Ask) -> None:
        first = asyncio.ensure_future(ask(f"echo >{tmp_path}/began; until [ -e {tmp_path}/go ]; do sleep 0.01; done"))
        await until_file(tmp_path / "began")
        for _turn in range(2):
            late = await ask("exit 0", timeout=0.2)
            assert late == {"refused": "waited 0.1 s for other scripts to end", "is_local": True}
        (tmp_path / "go").touch()
        assert (await first)["code"] == 0
        assert (await ask("exit 7"))["code"] == 7

    caplog.set_level(logging.WARNING)
    with_runner(tmp_path, 1, work)
    late = [record.getMessage() for record in caplog.records if record.name == "evenflow"]
    assert late == ["scripts are late: 1 run at once, and one has waited 0.1 s"]


def test_the_time_of_waiting_is_part_of_the_time_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: list[float] = []

    async def run(_slot: Slot, _command: list[str], timeout: float, _environment: dict[str, str]) -> dict[str, Any]:
        timeouts.append(timeout)
        await asyncio.sleep(0.2)
        return {"code": 0, "output": ""}

    monkeypatch.setattr(script_runner, "run", run)

    async def work(ask: Ask) -> None:
        await asyncio.gather(ask("exit 0"), ask("exit 0"))

    with_runner(tmp_path, 1, work)
    assert timeouts[0] > 59.9 and timeouts[1] <= 60 - 0.2


def test_a_script_whose_asker_has_gone_gives_its_slot_back(tmp_path: Path) -> None:
    async def work(ask: Ask) -> None:
        gone = asyncio.ensure_future(ask(f"echo >{tmp_path}/began; sleep 1000"))
        await until_file(tmp_path / "began")
        gone.cancel()
        assert (await ask("exit 7"))["code"] == 7

    with_runner(tmp_path, 1, work)
