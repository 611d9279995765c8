# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks by gRPC's standard health service, version 1, over HTTP/2."""

from __future__ import annotations

from .._state.health import CheckResult
from .http2 import Answer, Request, ask
from .target import CheckFailed, Target

_STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_SERVING = 1
_MAX_ANSWER = 4096
_MAX_BYTES = 1 << 17
_MAX_PIECES = 100


async def grpc(target: Target) -> CheckResult:
    """Call ``grpc.health.v1.Health/Check`` and succeed if the answer is SERVING."""
    request = Request(
        "POST",
        "/grpc.health.v1.Health/Check",
        target.check.host or f"{target.host}:{target.port}",
        (("content-type", "application/grpc"), ("te", "trailers")),
        _MAX_BYTES,
        _MAX_PIECES,
        _message(target.check.grpc_service_name),
    )
    answer = await ask(target, request, _is_enough)
    return _result(answer.headers, bytes(answer.body))


def _is_enough(answer: Answer) -> bool:
    if len(answer.body) > _MAX_ANSWER:
        raise CheckFailed(f"the answer is longer than {_MAX_ANSWER} bytes")
    # The status comes last.
    return False


def _message(service: str) -> bytes:
    """Return a HealthCheckRequest, whose only field 1 is a string, as an uncompressed message."""
    name = service.encode("ascii")
    length = bytes([len(name)]) if len(name) < 128 else bytes([len(name) & 0x7F | 0x80, len(name) >> 7])
    message = b"\x0a" + length + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _result(headers: dict[str, str], body: bytes) -> CheckResult:
    if headers.get(":status") != "200":
        raise CheckFailed(f"status {headers.get(':status')}, expected 200")
    if headers.get("grpc-status") != "0":
        raise CheckFailed(f"gRPC status {headers.get('grpc-status')} {headers.get('grpc-message', '')}".rstrip())
    # A HealthCheckResponse, whose only field 1 is an enumeration; a field that is missing is 0.
    message = body[5:]
    state = message[1] if len(message) >= 2 and message[0] == 0x08 else 0
    if state != _SERVING:
        raise CheckFailed(_STATES.get(state, f"state {state}"))
    return CheckResult(True, _STATES[state])
