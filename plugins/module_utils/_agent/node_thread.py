# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node in a thread of its own, so that checks never wait for nft or the disk."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Callable, Mapping, TypeVar

from .._node.node import Node, Outcome
from .._state.health import Health
from .least_conn_loop import LeastConnLoop
from .limit_loop import LimitLoop

_Result = TypeVar("_Result")


class NodeThread:
    """Calls the node, one call after the other."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._least_conn = LeastConnLoop(node)
        self._limits = LimitLoop(node)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="node")

    async def reconcile(self, health: Mapping[str, Health], save: bool) -> Outcome:
        """Reconcile the node, see :meth:`~.._node.node.Node.reconcile`."""
        return await self._call(partial(self._node.reconcile, health, save))

    async def save_check_results(self, health: Mapping[str, Health]) -> None:
        """Save results of checks that change nothing else."""
        await self._call(partial(self._node.save_check_results, health))

    async def deal_shares(self) -> None:
        """Deal the shares of the listeners with lc and wlc once."""
        await self._call(self._least_conn.tick)

    async def deal_places(self) -> None:
        """Deal the places of limits once."""
        await self._call(self._limits.tick)

    def close(self) -> None:
        """Wait for the last call and end the thread."""
        self._executor.shutdown()

    async def _call(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
