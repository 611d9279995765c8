# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the notifications to the service manager."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.notify import notify, watchdog_interval


def test_the_service_manager_receives_notifications(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "60000000")
        notify(READY="1", STATUS="2 listeners")
        assert manager.recv(100) == b"READY=1\nSTATUS=2 listeners"
        assert watchdog_interval() == 60
    monkeypatch.delenv("NOTIFY_SOCKET")
    monkeypatch.delenv("WATCHDOG_USEC")
    notify(READY="1")
    assert watchdog_interval() is None


def test_a_missing_service_manager_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "missing"))
    notify(READY="1")


def test_a_process_without_descriptors_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_arguments: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setenv("NOTIFY_SOCKET", "@evenflow-test")
    monkeypatch.setattr(socket, "socket", exhausted)
    notify(READY="1")
