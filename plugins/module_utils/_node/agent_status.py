# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent and other programs exchange: that it runs, its status, and the request to look at the node again."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import Any, Iterator, Mapping

from .._system.store import Store

WAKE_AGENT = "wake_agent.json"
"""A file in the run-time directory. Writing it asks the agent to look at the node again."""

_NAME = "agent.json"
_LOCK = "agent.lock"


@contextmanager
def held(store: Store) -> Iterator[bool]:
    """Hold the lock that shows that the agent runs. The kernel releases it however the process ends.

    :returns: whether the lock is held; not while another agent holds it.
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
    """Return whether an agent runs."""
    try:
        with open(os.path.join(store.run_dir, _LOCK), encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def wake_agent(store: Store) -> None:
    """Ask the agent to look at the node again, where no file of the configuration changes."""
    store.write_run(WAKE_AGENT, {})


def write(store: Store, status: Mapping[str, Any]) -> None:
    """Write the agent's status."""
    store.write_run(_NAME, dict(status))


def read(store: Store) -> dict[str, Any]:
    """Return the last agent's status, and whether an agent is ``running``."""
    status = store.read_run(_NAME)
    return {**(status if isinstance(status, dict) else {}), "running": is_running(store)}
