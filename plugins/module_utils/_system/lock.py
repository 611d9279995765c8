# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock that lets one program at a time change the node."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import contextmanager
from typing import IO, Iterator

from .._errors import NodeError

LOCK_TIMEOUT = 120
"""Seconds to wait for other programs that change the node."""


@contextmanager
def exclusive(path: str) -> Iterator[None]:
    """Hold the lock of a file. The kernel releases it however the process ends.

    :raises NodeError: another program has held it for :data:`LOCK_TIMEOUT` seconds.
    """
    with _opened(path) as file:
        deadline = time.monotonic() + LOCK_TIMEOUT
        while not _is_locked(path, file.fileno()):
            if time.monotonic() > deadline:
                raise NodeError(f"{path}: another program has held the lock for {LOCK_TIMEOUT} s")
            time.sleep(0.02)
        with os_errors():
            yield


@contextmanager
def os_errors() -> Iterator[None]:
    """Turn an :class:`OSError` from inside into a :class:`NodeError` that names its own file, if there is any."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise NodeError(f"{error.filename}: {reason}" if error.filename else reason) from error


def _opened(path: str) -> IO[str]:
    with os_errors():
        os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
        return open(path, "a", encoding="ascii")


def _is_locked(path: str, descriptor: int) -> bool:
    """Lock a file and return whether that succeeded; not while another process holds the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise NodeError(f"{path}: {error.strerror}") from error
    return True
