# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests that all calls of the node run in a single thread beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any, cast

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.node_thread import NodeThread
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import NodeError


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
