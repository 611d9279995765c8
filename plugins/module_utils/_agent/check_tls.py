# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A check by a TLS handshake, of which the certificate is a part, and nothing after it."""

from __future__ import annotations

from .._state.health import CheckResult
from .target import Target
from .tls import open_tls

_MAX_BYTES = 1 << 17


async def tls(target: Target) -> CheckResult:
    """Connect, begin TLS and verify the certificate."""
    stream = await open_tls(target, _MAX_BYTES)
    try:
        return CheckResult(True, f"handshake with {stream.tls.version()}")
    finally:
        stream.close()
