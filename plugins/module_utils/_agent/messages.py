# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent and the processes that check for it send to each other, in lines.

The agent believes no answer as it is: what reads the data of servers may be taken over by one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Optional

from .._config.model import HealthCheck
from .._state.health import CheckResult
from .target import Target, printable

MAX_LINE = 1 << 20
"""Maximum length in bytes of a request and of an answer."""

MAX_WEIGHT = 65535
"""Maximum weight that a server can ask for."""


@dataclass(frozen=True)
class Request:
    """A check to make.

    :ivar number: which check an answer belongs to.
    :ivar sent: the time at which the agent sent it, of the monotonic clock.
    :ivar seconds: the time that is left for it.
    """

    number: int
    sent: float
    seconds: float
    target: Target

    def line(self) -> bytes:
        """Return the request as a line."""
        return f"{self.number} {self.sent} {self.seconds} {_json_of(self.target)}\n".encode("ascii")

    @classmethod
    def of_line(cls, line: bytes) -> Request:
        """Return the request in a line."""
        number, sent, seconds, text = line.decode("ascii").split(" ", 3)
        return cls(int(number), float(sent), float(seconds), _target_of(text))


@dataclass(frozen=True)
class Answer:
    """What became of a check.

    :ivar result: ``None`` if the check was not made to its end.
    :ivar is_costly: whether it was stopped because of the processor time it took.
    :ivar cost: the processor time it took, in seconds.
    :ivar delay: the time from the request to the begin of the check, in seconds.
    :ivar signal: the number of the signal that ended its process, or 0.
    """

    number: int
    result: Optional[CheckResult] = None
    is_costly: bool = False
    cost: float = 0.0
    delay: float = 0.0
    signal: int = 0

    def line(self) -> bytes:
        """Return the answer as a line."""
        return json.dumps(asdict(self)).encode("ascii") + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Answer:
        """Return the answer in a line, with nothing in it that a check could not have.

        :raises Exception: the line is no answer; any exception, because it may be any line.
        """
        fields = json.loads(line)
        result = fields["result"]
        return cls(
            int(fields["number"]),
            _result_of(result) if result else None,
            fields["is_costly"] is True,
            float(fields["cost"]),
            float(fields["delay"]),
            int(fields["signal"]),
        )


def _result_of(fields: dict[str, Any]) -> CheckResult:
    success, weight = fields["success"], fields["weight"]
    if success not in (True, False, None):
        raise ValueError(f"success {success!r}")
    return CheckResult(
        None if success is None else bool(success),
        printable(str(fields["message"])),
        None if weight is None else min(max(int(weight), 0), MAX_WEIGHT),
    )


@lru_cache(maxsize=16384)
def _json_of(target: Target) -> str:
    return json.dumps(asdict(target))


@lru_cache(maxsize=16384)
def _target_of(text: str) -> Target:
    fields = json.loads(text)
    lists = {name: tuple(fields["check"][name]) for name in ("status", "command")}
    return Target(**{**fields, "check": HealthCheck(**{**fields["check"], **lists})})
