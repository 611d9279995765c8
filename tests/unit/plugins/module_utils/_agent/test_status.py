# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the agent's report about itself."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.status import Status
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.store import Store


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE])
def test_a_report_that_cannot_be_written_does_not_end_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    status = Status(Store(str(tmp_path)), lambda: 0.0)
    with monkeypatch.context() as patched:

        def refuse(path: str, *_arguments: object, **_options: object) -> int:
            raise OSError(code, os.strerror(code), path)

        patched.setattr(os, "open", refuse)
        status.report_error("first")
        status.report_ready()
    assert os.strerror(code) in caplog.text
    status.report_error("second")
    assert json.loads((tmp_path / "run" / "agent.json").read_text())["error"] == "second"
