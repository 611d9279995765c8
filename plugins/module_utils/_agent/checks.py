# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All kinds of checks by their names, and a check with its time-out."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from .._state.health import CheckResult
from . import conntrack_drops
from .budget import Costly, within
from .check_dns import dns
from .check_grpc import grpc
from .check_http import http, https
from .check_http2 import http2
from .check_ping import ping
from .check_script import script
from .check_stream import tcp, udp
from .check_tls import tls
from .target import Check, Target, printable, result_of

CHECKS: dict[str, Check] = {
    "tcp": tcp,
    "tls": tls,
    "http": http,
    "https": https,
    "http2": http2,
    "grpc": grpc,
    "dns": dns,
    "udp": udp,
    "ping": ping,
    "script": script,
}


async def probe(target: Target, budget: float | None = None, seconds: float | None = None) -> CheckResult:
    """Check a target once, within the check's time-out. This is the one place where the result of a check is made.

    :param budget: maximum number of seconds of processor time.
    :param seconds: what is left of the check's time-out.
    :raises Costly: the check takes more processor time.
    """
    task = asyncio.current_task()
    has_timed_out = False
    dropped = conntrack_drops.before()

    def time_out() -> None:
        nonlocal has_timed_out
        has_timed_out = True
        if task:
            task.cancel()

    # asyncio.wait_for would create another task for each check.
    timer = asyncio.get_running_loop().call_later(target.check.timeout_sec if seconds is None else seconds, time_out)
    try:
        check = CHECKS[target.check.type](target)
        result = await (check if budget is None else within(budget, check))
    except asyncio.CancelledError:
        if not has_timed_out:
            raise
        result = CheckResult(False, f"timed out after {target.check.timeout_sec} s")
        if conntrack_drops.now() > dropped:
            result = CheckResult(None, "not checked: the conntrack table of the node is full")
    except Costly:
        raise
    except Exception as error:  # pylint: disable=broad-exception-caught
        result = result_of(error)
    finally:
        timer.cancel()
    return replace(result, message=printable(result.message))
