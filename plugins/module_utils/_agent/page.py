# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What checks expect of a page, by whichever version of HTTP it comes."""

from __future__ import annotations

import json
from typing import Any

from .._config.model import HealthCheck
from .._state.health import CheckResult
from .budget import announce
from .target import CheckFailed, missing_library, quoted

MAX_BODY = 1 << 20
"""Maximum length in bytes of a body to which a JMESPath expression is applied."""

MAX_PIECES = 4096
"""Maximum number of pieces of which a body may consist."""

HEADERS = (("User-Agent", "evenflow"), ("Accept", "*/*"))
"""What a request has beside its host."""

WEIGHT_HEADER = "x-load-balancing-endpoint-weight"

_MAX_OVERHEAD = 1 << 17

_PARSE_SECONDS = 2.5e-7
_QUERY_SECONDS = 2e-7
"""Processor time at most: of JSON for each byte of the body, of an expression for each byte and each of its characters.

Measured with a list of as many short elements as there can be, and with filters that look at each of them.
"""


def prepare() -> None:
    """Load the library if the node has it."""
    try:
        import jmespath  # noqa: F401  pylint: disable=unused-import
    except ImportError:
        pass


def needed(check: HealthCheck) -> int:
    """Return how many bytes of the body the check needs to see."""
    return MAX_BODY + 1 if check.json_query else len(check.response.encode("utf-8"))


def max_bytes(check: HealthCheck) -> int:
    """Return how many bytes a server may send, with all that is around the body."""
    return _MAX_OVERHEAD + 2 * needed(check)


def check_status(code: int, check: HealthCheck) -> None:
    """Raise an error if the check does not expect this status."""
    for codes in check.status:
        first, _dash, last = codes.partition("-")
        if int(first) <= code <= int(last or first):
            return
    raise CheckFailed(f"status {code}, expected {', '.join(check.status)}")


def page_result(code: int, body: bytes, weight: str | None, check: HealthCheck) -> CheckResult:
    """Return the result for a page with an expected status, or raise an error if its body is not as expected.

    :param body: as much of the body as the check needs.
    :param weight: the value of the header :data:`WEIGHT_HEADER`.
    """
    if len(body) > MAX_BODY:
        raise CheckFailed(f"the body is longer than {MAX_BODY} bytes")
    if check.response and not body.startswith(check.response.encode("utf-8")):
        raise CheckFailed(f"body {quoted(body)}, expected {quoted(check.response.encode('utf-8'))}")
    if check.json_query:
        announce(len(body) * (_PARSE_SECONDS + _QUERY_SECONDS * len(check.json_query)))
        _check_json(body, check.json_query)
    return CheckResult(True, f"status {code}", _weight(weight) if check.dynamic_weight else None)


def _check_json(body: bytes, query: str) -> None:
    try:
        import jmespath
    except ImportError as error:
        raise missing_library("jmespath", error) from error
    try:
        document = json.loads(body)
    except ValueError as error:
        raise CheckFailed(f"the body is not JSON: {error}") from error
    try:
        value = jmespath.search(query, document)
    except jmespath.exceptions.JMESPathError as error:
        raise CheckFailed(f"json_query {query!r} cannot be applied: {error}") from error
    if value is not True:
        raise CheckFailed(f"json_query gives {_shown(value)}, expected true")


def _shown(value: Any) -> str:
    """Return a value for a message. A long one would take long to write."""
    if isinstance(value, (bool, int, float, type(None))):
        return json.dumps(value)
    if isinstance(value, str):
        return json.dumps(value[:60])
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else "no JSON value"


def _weight(value: str | None) -> int | None:
    if value and len(value) < 6 and value.isascii() and value.isdigit():
        return min(int(value), 65535)
    return None
