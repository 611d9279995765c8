# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kinds of checks, and one run of any of them."""

from __future__ import annotations

import asyncio

from .._state.health import CheckResult
from .check_grpc import grpc
from .check_http import http, https
from .check_ping import ping
from .check_script import script
from .check_stream import dns, tcp, udp
from .target import Check, CheckFailed, Target, failure

CHECKS: dict[str, Check] = {
    "tcp": tcp,
    "http": http,
    "https": https,
    "grpc": grpc,
    "dns": dns,
    "udp": udp,
    "ping": ping,
    "script": script,
}


async def probe(target: Target) -> CheckResult:
    """Check once, in no more than the check's time-out."""
    task = asyncio.current_task()
    is_late = False

    def give_up() -> None:
        nonlocal is_late
        is_late = True
        if task:
            task.cancel()

    # asyncio.wait_for would make one more task for each check.
    timer = asyncio.get_running_loop().call_later(target.check.timeout_sec, give_up)
    try:
        return await CHECKS[target.check.type](target)
    except CheckFailed as failed:
        return CheckResult(False, str(failed))
    except OSError as error:
        return failure(error)
    except asyncio.CancelledError:
        if not is_late:
            raise
        return CheckResult(False, f"timed out after {target.check.timeout_sec} s")
    finally:
        timer.cancel()
