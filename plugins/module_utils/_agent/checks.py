# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All kinds of checks by their names, and a check with its time-out."""

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
    """Check a target once, within the check's time-out."""
    task = asyncio.current_task()
    has_timed_out = False

    def time_out() -> None:
        nonlocal has_timed_out
        has_timed_out = True
        if task:
            task.cancel()

    # asyncio.wait_for would create another task for each check.
    timer = asyncio.get_running_loop().call_later(target.check.timeout_sec, time_out)
    try:
        return await CHECKS[target.check.type](target)
    except CheckFailed as failed:
        return CheckResult(False, str(failed))
    except OSError as error:
        return failure(error)
    except asyncio.CancelledError:
        if not has_timed_out:
            raise
        return CheckResult(False, f"timed out after {target.check.timeout_sec} s")
    finally:
        timer.cancel()
