# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the agent's status as modules read it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ansible_collections.evenflow.l4lb.plugins.module_utils._node import agent_status
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.store import Store


def test_an_agent_that_was_killed_is_not_running(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert not agent_status.is_running(store)
    with agent_status.held(store) as is_alone:
        assert is_alone
        assert agent_status.is_running(store)
    agent_status.write(store, {"pid": 1})
    assert agent_status.read(store) == {"pid": 1, "running": False}
    (tmp_path / "run" / "agent.lock").unlink()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl,sys,time; f=open(sys.argv[1],'a'); fcntl.flock(f,2); print(flush=True); time.sleep(60)",
            str(tmp_path / "run" / "agent.lock"),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.read(1)
        assert agent_status.is_running(store)
    finally:
        holder.kill()
        holder.communicate()
    assert not agent_status.is_running(store)
