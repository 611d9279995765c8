# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The id of a backend: its conntrack mark, the same on every node of a fleet."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Mapping, Tuple

from .model import Configuration

OURS = 0x80000000
"""The bit that every id has: a flow whose conntrack mark has it is one of ours."""

ANCHOR = 0xFFFFFFFF
"""A mark that no flow ever has."""


BackendIds = Mapping[Tuple[str, str, int], int]
"""Id by listener's name, backend's address and backend's port."""


def backend_ids(configuration: Configuration) -> dict[tuple[str, str, int], int]:
    """Derive the ids of all backends.

    An id is a hash of the backend's identity, so it need not be allocated. If two backends have the same hash, the
    first in sorted order keeps it and the other is hashed again. Leaving backends come last.
    """
    ids: dict[tuple[str, str, int], int] = {}
    taken: set[int] = set()
    backends = [
        sorted((listener.name, *backend.endpoint) for listener in listeners for backend in listener.backends)
        for listeners in (configuration.listeners, configuration.leaving)
    ]
    for backend in backends[0] + backends[1]:
        attempt = 0
        candidate = _hash(backend, attempt)
        while candidate in taken or candidate == ANCHOR:
            attempt += 1
            candidate = _hash(backend, attempt)
        taken.add(candidate)
        ids[backend] = candidate
    return ids


@lru_cache(maxsize=65536)
def _hash(backend: tuple[str, str, int], attempt: int) -> int:
    text = "%s %s %d %d" % (*backend, attempt)
    return int.from_bytes(hashlib.blake2b(text.encode("ascii"), digest_size=4).digest(), "big") | OURS
