# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The id of a registration: its conntrack mark, the same on every node of a fleet."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from .model import Configuration

OURS = 0x80000000
"""The bit that every id has: a conntrack mark with it belongs to a flow of ours."""

ANCHOR = 0xFFFFFFFF
"""A mark that no flow ever has."""


def backend_ids(configuration: Configuration) -> dict[tuple[str, str, int], int]:
    """Derive the ids of all registrations.

    An id is a hash, so nobody hands it out. Where two registrations meet on one, the first in sorted order has it and
    the other's hash is taken again; those that leave come last.

    :returns: id by (listener's name, address, port).
    """
    ids: dict[tuple[str, str, int], int] = {}
    taken: set[int] = set()
    registrations = [
        sorted((listener.name, *backend.endpoint) for listener in listeners for backend in listener.backends)
        for listeners in (configuration.listeners, configuration.leaving)
    ]
    for registration in registrations[0] + registrations[1]:
        attempt = 0
        candidate = _hash(registration, attempt)
        while candidate in taken or candidate == ANCHOR:
            attempt += 1
            candidate = _hash(registration, attempt)
        taken.add(candidate)
        ids[registration] = candidate
    return ids


@lru_cache(maxsize=65536)
def _hash(registration: tuple[str, str, int], attempt: int) -> int:
    text = "%s %s %d %d" % (*registration, attempt)
    return int.from_bytes(hashlib.blake2b(text.encode("ascii"), digest_size=4).digest(), "big") | OURS
