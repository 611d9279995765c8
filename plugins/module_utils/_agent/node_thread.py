# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node in a thread of its own, so that checks never wait for nft or the disk."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from concurrent.futures import Future
from functools import partial
from typing import Any, Callable, Mapping, Optional, Tuple, TypeVar

from .._node.node import Node, Outcome
from .._state.health import Health
from .._state.runtime import Runtime
from .least_conn_loop import LeastConnLoop
from .limit_loop import LimitLoop

log = logging.getLogger("evenflow")

END_SECONDS = 10.0
"""How long the end of the agent waits for the call that is running. A change may be cut off at any point."""

_Result = TypeVar("_Result")
_Call = Tuple[Callable[[], Any], "Future[Any]"]


class NodeThread:
    """Calls the node, one call after the other."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._least_conn = LeastConnLoop(node)
        self._limits = LimitLoop(node)
        self._calls: queue.SimpleQueue[Optional[_Call]] = queue.SimpleQueue()
        self._began: float | None = None
        # An executor's thread would keep the process from ending for as long as a call hangs.
        self._thread = threading.Thread(target=self._work, name="node", daemon=True)
        self._thread.start()

    @property
    def busy_seconds(self) -> float:
        """For how long the present call has been running."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    async def reconcile(self, health: Mapping[str, Health], save: bool) -> Outcome:
        """Reconcile the node, see :meth:`~.._node.node.Node.reconcile`."""
        return await self._call(partial(self._node.reconcile, health, save))

    async def save_check_results(self, health: Mapping[str, Health]) -> None:
        """Save results of checks that change nothing else."""
        await self._call(partial(self._node.save_check_results, health))

    async def set_clock_back(self, known: Runtime, seconds: float) -> None:
        """Move deadlines with a clock that was set back, see :meth:`~.._node.node.Node.set_clock_back`."""
        await self._call(partial(self._node.set_clock_back, known, seconds))

    async def deal_shares(self) -> None:
        """Deal the shares of the listeners with lc and wlc once."""
        await self._call(self._least_conn.tick)

    async def deal_places(self) -> None:
        """Deal the places of limits once."""
        await self._call(self._limits.tick)

    def close(self) -> None:
        """End the thread after the call that is running, or give that up after :data:`END_SECONDS`."""
        self._calls.put(None)
        self._thread.join(END_SECONDS)
        if self._thread.is_alive():
            log.error("a change has not ended within %g s and is cut off; the next one repairs it", END_SECONDS)

    async def _call(self, work: Callable[[], _Result]) -> _Result:
        future: Future[_Result] = Future()
        self._calls.put((work, future))
        return await asyncio.wrap_future(future)

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            work, future = call
            if not future.set_running_or_notify_cancel():
                continue
            self._began = time.monotonic()
            try:
                result = work()
            except BaseException as error:  # pylint: disable=broad-exception-caught
                self._began = None
                future.set_exception(error)
            else:
                self._began = None
                future.set_result(result)
