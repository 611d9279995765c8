# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the processor time that a check may take."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.budget import Costly, announce, within


def work(seconds: float) -> None:
    """Use as much processor time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def run(budget: float, job: Coroutine[Any, Any, Any]) -> Any:
    async def main() -> Any:
        return await within(budget, job)

    return asyncio.run(main())


def test_the_result_of_cheap_work() -> None:
    async def job() -> int:
        await asyncio.sleep(0.05)
        work(0.01)
        return 7

    assert run(1, job()) == 7


def test_an_error_of_the_work() -> None:
    async def job() -> None:
        await asyncio.sleep(0)
        raise KeyError("it")

    with pytest.raises(KeyError):
        run(1, job())


def test_steps_are_added_up() -> None:
    steps = 0

    async def job() -> None:
        nonlocal steps
        while True:
            await asyncio.sleep(0)
            work(0.01)
            steps += 1

    with pytest.raises(Costly):
        run(0.05, job())
    assert 4 <= steps <= 5


@pytest.mark.parametrize("error", [None, KeyError("it")])
def test_the_last_step_counts(error: Exception | None) -> None:
    async def job() -> None:
        work(0.02)
        if error:
            raise error

    with pytest.raises(Costly):
        run(0.01, job())


def test_the_work_cleans_up_at_its_end() -> None:
    """What it does then takes as long as it takes."""
    steps = []

    async def job() -> None:
        try:
            work(0.02)
            await asyncio.sleep(60)
        finally:
            work(0.02)
            await asyncio.sleep(0)
            work(0.02)
            steps.append("clean")

    with pytest.raises(Costly):
        run(0.01, job())
    assert steps == ["clean"]


def test_work_that_is_cancelled() -> None:
    async def main() -> None:
        task = asyncio.ensure_future(asyncio.wait_for(within(1, asyncio.sleep(60)), 60))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_work_that_cannot_be_interrupted_is_announced() -> None:
    async def job(seconds: float) -> str:
        announce(seconds)
        return "done"

    assert run(0.01, job(0.005)) == "done"
    with pytest.raises(Costly):
        run(0.01, job(0.02))
    assert asyncio.run(job(60)) == "done"


def test_a_step_that_does_not_end_ends_the_process() -> None:
    """The test makes it in a process of its own."""
    process = os.fork()
    if not process:

        async def job() -> None:
            work(60)

        try:
            run(1, job())
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGPROF
