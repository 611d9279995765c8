# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The read side of a node: files, flows and counters, as reports and waiting need them. Nothing is changed."""

from __future__ import annotations

from typing import Any, Collection

from .._config.document import Document
from .._config.settings import Settings
from .._nft import live_table
from .._state.runtime import Runtime
from .._system import conntrack
from .._system.store import DEFAULT_CONFIG_DIR, Store
from . import agent_status


class NodeView:
    """This machine as a load balancer, to look at.

    :param config_dir: the directory of its configuration.
    :ivar rejected: the damaged records of the runtime state when it was last read, as texts.
    """

    def __init__(self, config_dir: str = DEFAULT_CONFIG_DIR) -> None:
        self._store = Store(config_dir)
        self.rejected: list[str] = []

    def configuration(self) -> Document:
        """Return the configuration."""
        return self._store.configuration()

    def settings(self) -> Settings:
        """Return the node's own settings."""
        return self._store.settings()

    def runtime(self) -> Runtime:
        """Return the runtime state."""
        runtime, self.rejected = self._store.read_runtime()
        return runtime

    def flows(self, marks: Collection[int]) -> dict[int, int]:
        """Return the number of active flows by backend id.

        :param marks: the ids that matter.
        """
        return conntrack.count(marks)

    def packets_out(self) -> dict[int, int]:
        """Return the number of packets that have come from backends, by backend id."""
        return {mark: packets for mark, (packets, _bytes) in live_table.read_counters("acct_out").items()}

    def agent(self) -> dict[str, Any]:
        """Return whether an agent runs, and what it last wrote about itself."""
        return agent_status.read(self._store)
