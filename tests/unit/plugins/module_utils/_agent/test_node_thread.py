# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests that all calls of the node run in a single thread beside the event loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, cast

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.node_thread import NodeThread
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import NodeError
from ansible_collections.evenflow.l4lb.tests.unit.interpreter import python_path


class SlowNode:
    """A node whose first call waits until the test continues it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.threads: set[int] = set()
        self.may_go_on = threading.Event()

    def reconcile(self, health: Mapping[str, Any], save: bool) -> str:
        self.threads.add(threading.get_ident())
        self.may_go_on.wait(10)
        self.calls.append(("reconcile", (health, save)))
        return "outcome"

    def save_check_results(self, health: Mapping[str, Any]) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append(("save", health))

    def redeal(self, _choose: Any) -> bool:
        self.threads.add(threading.get_ident())
        self.calls.append(("redeal", None))
        raise NodeError("nft: busy")


def test_calls_run_one_after_the_other_without_blocking_the_loop() -> None:
    node = SlowNode()

    async def main() -> None:
        thread = NodeThread(cast(Any, node))
        outcome = asyncio.ensure_future(thread.reconcile({"web": 1}, True))  # type: ignore[dict-item]
        saved = asyncio.ensure_future(thread.save_check_results({}))
        dealt = asyncio.ensure_future(thread.deal_shares())
        await asyncio.sleep(0)
        assert node.calls == []
        node.may_go_on.set()
        assert await outcome == "outcome"  # type: ignore[comparison-overlap]
        await saved
        with pytest.raises(NodeError):
            await dealt
        thread.close()

    asyncio.run(main())
    assert node.calls == [("reconcile", ({"web": 1}, True)), ("save", {}), ("redeal", None)]
    assert len(node.threads) == 1 and threading.get_ident() not in node.threads


def test_the_thread_says_how_long_a_call_has_been_running() -> None:
    node = SlowNode()

    async def main() -> None:
        thread = NodeThread(cast(Any, node))
        assert thread.busy_seconds == 0
        outcome = asyncio.ensure_future(thread.reconcile({}, True))
        while not node.threads:
            await asyncio.sleep(0.01)
        assert thread.busy_seconds > 0
        node.may_go_on.set()
        await outcome
        assert thread.busy_seconds == 0
        thread.close()

    asyncio.run(main())


_HANGS = """
import asyncio, threading
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent import node_thread

class Node:
    def reconcile(self, health, save):
        print("it hangs", flush=True)
        threading.Event().wait()

async def main():
    thread = node_thread.NodeThread(Node())
    call = asyncio.ensure_future(thread.reconcile({}, True))
    while not thread.busy_seconds:
        await asyncio.sleep(0.01)
    call.cancel()
    thread.close()

node_thread.END_SECONDS = 0.1
asyncio.run(main())
print("it ends")
"""


def test_the_process_ends_though_a_call_hangs() -> None:
    completed = subprocess.run(
        [sys.executable, "-c", _HANGS],
        env={"PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert completed.stdout == "it hangs\nit ends\n", completed.stderr
    assert completed.returncode == 0
    assert "a change has not ended within 0.1 s" in completed.stderr
