# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program that ``evenflow.service`` runs."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time

from .._errors import EvenflowError
from .._node import agent_status
from .._node.node import Node
from .._system.store import DEFAULT_CONFIG_DIR, Store
from .agent import Agent
from .anchor import Anchor
from .node_thread import NodeThread
from .pool import Pool
from .watch import node_watches
from .worker import SOCKET

_START_SECONDS = 5

# The prefixes by which the journal recognizes levels, see sd-daemon(3).
_LEVELS = {logging.ERROR: "<3>", logging.WARNING: "<4>", logging.INFO: "<6>"}


class _Journal(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _LEVELS.get(record.levelno, "<6>") + super().format(record)


def main() -> int:
    """Run the agent and return the exit status: 1 if another agent is running."""
    parser = argparse.ArgumentParser(prog="evenflow-agent", description="Keeps a load balancer node in order.")
    parser.add_argument("--config-dir", default=DEFAULT_CONFIG_DIR, help="directory of the node's configuration")
    parser.add_argument(
        "--stopped", action="store_true", help="only let the kernel count for limits, because the agent has ended"
    )
    parser.add_argument("--checks-socket", default=SOCKET, help="where the service that makes checks listens")
    arguments = parser.parse_args()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Journal("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if arguments.stopped:
        try:
            Node(arguments.config_dir).end_dealing()
        except EvenflowError as error:
            logging.error("limits: %s", error)
            return 1
        return 0
    store = Store(arguments.config_dir)
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with agent_status.held(store) as is_alone:
            if is_alone:
                asyncio.run(_run(store, arguments.checks_socket))
                return 0
        # An agent that is ending, or a module that looks whether one is running, releases the lock in a moment.
        if time.monotonic() > deadline:
            logging.error("another agent is running for %s", arguments.config_dir)
            return 1
        time.sleep(0.05)


async def _run(store: Store, checks_socket: str) -> None:
    # Created in the loop: before Python 3.10 events belong to the loop in which they are created.
    await Agent(store, NodeThread(Node(store.config_dir)), Anchor(), node_watches(store), Pool(checks_socket)).run()


if __name__ == "__main__":
    raise SystemExit(main())
