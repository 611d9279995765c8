# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks by HTTP/2. No more of a body is read than the check needs."""

from __future__ import annotations

import re

from .._state.health import CheckResult
from .http2 import Answer, Request, ask
from .page import HEADERS, MAX_PIECES, WEIGHT_HEADER, check_status, max_bytes, needed, page_result
from .target import CheckFailed, Target


async def http2(target: Target) -> CheckResult:
    """Request the page and compare its status and its body with what the check expects."""
    check = target.check
    body_bytes = needed(check)

    def is_enough(answer: Answer) -> bool:
        if not answer.headers:
            return False
        check_status(_code(answer), check)
        return len(answer.body) >= body_bytes

    request = Request("GET", check.request_path, target.host, HEADERS, max_bytes(check), MAX_PIECES)
    answer = await ask(target, request, is_enough)
    return page_result(_code(answer), bytes(answer.body), answer.headers.get(WEIGHT_HEADER), check)


def _code(answer: Answer) -> int:
    text = answer.headers.get(":status", "")
    if not re.fullmatch("[1-5][0-9][0-9]", text):
        raise CheckFailed(f"not HTTP/2: status {text!r}")
    return int(text)
