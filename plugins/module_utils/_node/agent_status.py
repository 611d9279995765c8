# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent and those outside tell each other: that it runs, what it has put right, that it should look again."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import Any, Iterator, Mapping

from .._system.store import Store

WAKE_AGENT = "wake_agent.json"
"""A file in the run-time directory: who writes it asks the agent to look at what the node has begun."""

_NAME = "agent.json"
_LOCK = "agent.lock"


@contextmanager
def held(store: Store) -> Iterator[bool]:
    """Hold the lock that tells that the agent runs. The kernel lets go of it however the process ends.

    :returns: whether it could be had; not while another agent has it.
    """
    os.makedirs(store.run_dir, mode=0o750, exist_ok=True)
    with open(os.path.join(store.run_dir, _LOCK), "a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def is_running(store: Store) -> bool:
    """Tell whether an agent runs."""
    try:
        with open(os.path.join(store.run_dir, _LOCK), encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def wake_agent(store: Store) -> None:
    """Ask the agent to look again, where no file of the configuration tells it."""
    store.write_run(WAKE_AGENT, {})


def write(store: Store, told: Mapping[str, Any]) -> None:
    """Tell something."""
    store.write_run(_NAME, dict(told))


def read(store: Store) -> dict[str, Any]:
    """Return whether an agent runs, and what the last one told."""
    told = store.read_run(_NAME)
    return {**(told if isinstance(told, dict) else {}), "running": is_running(store)}
