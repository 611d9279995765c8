# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks by a DNS query over UDP (RFC 1035).

The answer is read in one pass that follows no compression pointer: a library that builds names from them takes seconds
for an answer of 16 kB.
"""

from __future__ import annotations

import os
import struct

from .._state.health import CheckResult
from .check_stream import exchange
from .target import CheckFailed, Target

MAX_ANSWER = 4096
"""Maximum length in bytes of an answer; a server may send 512 to a query without EDNS."""

_TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33}
_CODES = (
    "NOERROR",
    "FORMERR",
    "SERVFAIL",
    "NXDOMAIN",
    "NOTIMP",
    "REFUSED",
    "YXDOMAIN",
    "YXRRSET",
    "NXRRSET",
    "NOTAUTH",
)
_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_CLASS_IN = 1
_IS_RESPONSE, _OPCODE, _RECURSION_DESIRED, _CODE = 0x8000, 0x7800, 0x0100, 0x000F


async def dns(target: Target) -> CheckResult:
    """Query a name and succeed if the answer has records. Answers with another id are ignored."""
    query, identity = target.check.query, os.urandom(2)
    question = _name(query) + _QUESTION.pack(_TYPES[target.check.query_type], _CLASS_IN)
    header = _HEADER.pack(int.from_bytes(identity, "big"), _RECURSION_DESIRED, 1, 0, 0, 0)
    answer = await exchange(target, header + question, lambda data: data[:2] == identity)
    if len(answer) > MAX_ANSWER:
        raise CheckFailed(f"the answer is longer than {MAX_ANSWER} bytes")
    try:
        code, records = _read(answer, question)
    except (IndexError, struct.error) as error:
        raise CheckFailed("not a DNS answer: it ends too soon") from error
    if code != "NOERROR":
        raise CheckFailed(f"{code} for {query}")
    if not records:
        raise CheckFailed(f"no {target.check.query_type} record of {query}")
    return CheckResult(True, f"{records} records")


def _name(query: str) -> bytes:
    labels = [label.encode("ascii") for label in query.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _read(answer: bytes, question: bytes) -> tuple[str, int]:
    """Return the code and the number of records of an answer, each of which is looked at."""
    _identity, flags, questions, records, _authorities, _additional = _HEADER.unpack_from(answer)
    code = flags & _CODE
    place = _HEADER.size
    asked = answer[place : place + len(question)]
    # A server that refuses a query may leave the question out.
    is_asked = questions == 1 and asked.lower() == question.lower()
    if not flags & _IS_RESPONSE or flags & _OPCODE or not (is_asked or (code and not questions)):
        raise CheckFailed("the answer is for another query")
    place += len(question) if questions else 0
    for _record in range(records):
        place = _skip_name(answer, place)
        place += _RECORD.size + _RECORD.unpack_from(answer, place)[3]
    if place > len(answer):
        raise CheckFailed("not a DNS answer: it ends too soon")
    return _CODES[code] if code < len(_CODES) else f"code {code}", records


def _skip_name(answer: bytes, place: int) -> int:
    while True:
        length = answer[place]
        if length >= 0xC0:
            return place + 2
        place += 1 + length
        if not length:
            return place
