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

from .._node import agent_status
from .._system.store import DEFAULT_CONFIG_DIR, Store
from .agent import Agent

_START_SECONDS = 5

# How the journal tells levels apart, see sd-daemon(3).
_LEVELS = {logging.ERROR: "<3>", logging.WARNING: "<4>", logging.INFO: "<6>"}


class _Journal(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _LEVELS.get(record.levelno, "<6>") + super().format(record)


def main() -> int:
    """Run the agent; 1 if another one runs."""
    parser = argparse.ArgumentParser(prog="evenflow-agent", description="Keeps a load balancer node in order.")
    parser.add_argument("--config-dir", default=DEFAULT_CONFIG_DIR, help="directory of the node's configuration")
    arguments = parser.parse_args()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Journal("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    store = Store(arguments.config_dir)
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with agent_status.held(store) as is_alone:
            if is_alone:
                asyncio.run(_run(arguments.config_dir))
                return 0
        # One that ends, or somebody who looks whether one runs, is gone in a moment.
        if time.monotonic() > deadline:
            logging.error("another agent runs for %s", arguments.config_dir)
            return 1
        time.sleep(0.05)


async def _run(config_dir: str) -> None:
    # Made where the loop runs: before Python 3.10 its events belong to the loop they are made under.
    await Agent(config_dir).run()


if __name__ == "__main__":
    raise SystemExit(main())
