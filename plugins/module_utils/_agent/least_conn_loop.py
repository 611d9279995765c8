# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The loop that deals the slots of listeners with lc and wlc by the number of active flows."""

from __future__ import annotations

from typing import Mapping

from .._config.model import Configuration, Listener
from .._nft import live_table
from .._node.node import Node
from .._schedule.least_conn import Arrivals, deal
from .._schedule.scheduler import least_conn_slots, weight_of
from .._state.eligibility import select
from .._state.runtime import Shares
from .._system import conntrack


class LeastConnLoop:
    """Counts the flows of a node and deals its shares."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._arrivals: dict[str, Arrivals] = {}
        self._started: dict[int, int] = {}

    def tick(self) -> bool:
        """Count flows, and deal the slots of a listener again if its shares have changed.

        To be called every :data:`~.._schedule.least_conn.TICK` seconds.

        :returns: whether a table changed.
        :raises NodeError: the node could not be read or changed.
        """
        return self._node.redeal(self._choose)

    def _choose(self, configuration: Configuration, ids: Mapping[tuple[str, str, int], int]) -> Shares:
        if not configuration.listeners:
            self._arrivals.clear()
            return {}
        active = conntrack.count()
        started = {mark: packets for mark, (packets, _bytes) in live_table.read_counters("acct_new").items()}
        shares: dict[str, Mapping[int, int]] = {}
        for listener in configuration.listeners:
            marks = [ids[(listener.name, *backend.endpoint)] for backend in listener.backends]
            # A counter that is lower than before has been reset.
            arrived = sum(max(0, started.get(mark, 0) - self._started.get(mark, 0)) for mark in marks)
            arrivals = self._arrivals.get(listener.name, Arrivals()).after(arrived)
            self._arrivals[listener.name] = arrivals
            weights = _weights(listener, ids)
            if weights:
                shares[listener.name] = deal(
                    weights, active, arrivals.per_tick, least_conn_slots(len(listener.backends))
                )
        self._started = started
        return shares


def _weights(listener: Listener, ids: Mapping[tuple[str, str, int], int]) -> dict[int, int]:
    return {
        ids[(listener.name, *backend.endpoint)]: weight_of(listener, backend) for backend in select(listener).backends
    }
