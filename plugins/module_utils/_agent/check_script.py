# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks by a program, which ``evenflow-scripts.service`` runs as an unprivileged user."""

from __future__ import annotations

import asyncio
import json

from .._state.health import CheckResult
from .script_runner import SOCKET
from .target import CheckFailed, NotChecked, Target


async def script(target: Target) -> CheckResult:
    """Run the program: exit code 0 is a success, and with dynamic weights so are 2 to 255, a weight plus 2."""
    check = target.check
    request = {
        "command": check.command,
        "timeout": check.timeout_sec,
        "environment": {
            "EVENFLOW_LISTENER": target.listener,
            "EVENFLOW_BACKEND": target.backend,
            "EVENFLOW_ADDRESS": target.address,
            "EVENFLOW_PORT": str(target.port),
        },
    }
    try:
        reader, writer = await asyncio.open_unix_connection(SOCKET)
    except OSError as error:
        raise NotChecked(f"evenflow-scripts.socket: {error.strerror}; does the service run?") from error
    try:
        writer.write(json.dumps(request).encode("utf-8") + b"\n")
        answer = json.loads(await reader.readline() or b"{}")
    finally:
        writer.transport.abort()
    if answer.get("is_local"):
        raise NotChecked(answer["refused"])
    if "code" not in answer:
        raise CheckFailed(answer.get("refused") or "the script was not run")
    return _result(answer["code"], answer.get("output", ""), check.dynamic_weight)


def _result(code: int, output: str, has_weight: bool) -> CheckResult:
    suffix = f": {output}" if output else ""
    if code == 0:
        return CheckResult(True, "exit code 0")
    if has_weight and 2 <= code <= 255:
        return CheckResult(True, f"exit code {code}, weight {code - 2}", code - 2)
    return CheckResult(False, (f"killed by signal {-code}" if code < 0 else f"exit code {code}") + suffix)
