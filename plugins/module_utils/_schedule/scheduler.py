# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Slot tables: which backend a new flow gets, as a list that the kernel indexes by a counter or a hash.

A slot holds a backend's id. The kernel picks slot ``numgen inc mod size`` (rr, wrr, lc, wlc) or ``jhash tuple
mod size`` (mh, sh, dh).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache, reduce
from math import gcd
from typing import Iterable, Iterator, Mapping, NamedTuple, Sequence

from .._config.address import address_bytes
from .._config.identity import BackendIds
from .._config.model import Backend, Listener
from .._config.options import EVEN_SCHEDULERS, HASH_SCHEDULERS, MAX_RING_SIZE

RING_SIZES = (1009, 4093, 16381, MAX_RING_SIZE)
"""Prime sizes of Maglev tables; few steps, because another size moves nearly every flow."""

SLOTS_PER_BACKEND = 100
"""A Maglev table has at least this many slots per registered backend, so that shares come out even."""

LEAST_CONN_SLOTS = 256
"""Size of the table of lc and wlc: fixed, so that new shares replace slots and no rule."""

_EVEN = 20
"""Weight of each backend where weights do not matter; a backend that joins has a part of it."""

MAX_PERIOD = 65536
"""Longest cycle of wrr; weights that need a longer one are approximated to it."""


class Entry(NamedTuple):
    """A backend in a slot table.

    :ivar place: the key of its Maglev permutation, the same for one machine in every listener; empty if the scheduler
        does not hash.
    """

    id: int
    place: bytes
    weight: int


@dataclass(frozen=True)
class SlotTable:
    """A slot table by its inputs; equal inputs give equal slots on every node.

    :ivar size: number of slots; 0 if no backend may be chosen.
    """

    scheduler: str
    size: int
    seed: int
    entries: tuple[Entry, ...]

    def slots(self) -> tuple[int, ...]:
        """Return the id in each slot."""
        ids = [entry.id for entry in self.entries]
        return tuple(ids[index] for index in self._order())

    def shares(self) -> dict[int, int]:
        """Return the number of slots of each id."""
        counts = apportion([entry.weight for entry in self.entries], self.size)
        return {entry.id: count for entry, count in zip(self.entries, counts)}

    def _order(self) -> tuple[int, ...]:
        counts = tuple(self.shares().values())
        if self.scheduler in HASH_SCHEDULERS:
            return maglev(tuple(entry.place for entry in self.entries), counts, self.seed)
        return smooth_order(counts)


def slot_table(
    listener: Listener,
    eligible: Sequence[Backend],
    ids: BackendIds,
    seed: int,
    shares: Mapping[int, int] | None = None,
) -> SlotTable:
    """Return the slot table of a listener.

    :param eligible: the backends that may get new flows.
    :param seed: the fleet's hash seed.
    :param shares: slots by id that were last dealt to a listener with lc or wlc. They are ignored if they are for other
        backends.
    """
    ranks = _ranks(listener.backends) if listener.is_hashed else {}
    chosen = sorted(eligible, key=lambda backend: (address_bytes(backend.address), backend.port))
    entries = tuple(
        Entry(
            ids[listener.name, backend.address, backend.port],
            address_bytes(backend.address) + ranks[backend.endpoint] if ranks else b"",
            weight_of(listener, backend),
        )
        for backend in chosen
    )
    if not entries:
        size = 0
    elif listener.is_hashed:
        size = ring_size(len(listener.backends), listener.minimum_ring_size)
    elif listener.is_least_conn:
        size = least_conn_slots(len(listener.backends))
        if shares and shares.keys() == {entry.id for entry in entries} and sum(shares.values()) == size:
            entries = tuple(entry._replace(weight=shares[entry.id]) for entry in entries if shares[entry.id])
    else:
        size = period([entry.weight for entry in entries])
    return SlotTable(listener.scheduler, size, seed if listener.is_hashed else 0, entries)


def weight_of(listener: Listener, backend: Backend) -> int:
    """Return a backend's weight for its listener's scheduler; only ratios matter."""
    return max(1, round(backend.ramp * _EVEN)) if listener.scheduler in EVEN_SCHEDULERS else backend.share


def least_conn_slots(registered: int) -> int:
    """Return the size of a table of lc and wlc: :data:`LEAST_CONN_SLOTS`, doubled until each backend has four slots.

    :param registered: number of registered backends, in any state, so that a drain does not change the size.
    """
    size = LEAST_CONN_SLOTS
    while size < 4 * registered and size < MAX_PERIOD:
        size *= 2
    return size


def ring_size(registered: int, minimum: int) -> int:
    """Return the size of a Maglev table.

    :param registered: number of registered backends, in any state, so that a drain does not change the size.
    :param minimum: the listener's ``minimum_ring_size``.
    """
    wanted = max(minimum, registered * SLOTS_PER_BACKEND)
    return next((size for size in RING_SIZES if size >= wanted), RING_SIZES[-1])


def period(weights: Sequence[int]) -> int:
    """Return the shortest cycle that gives each weight its exact share, at most :data:`MAX_PERIOD`."""
    divisor = reduce(gcd, weights, 0)
    return min(sum(weights) // divisor, MAX_PERIOD) if divisor else 0


def apportion(weights: Sequence[int], size: int) -> list[int]:
    """Divide slots by weight: largest remainder (Hamilton's method), at least one for each weight.

    :param weights: each above 0.
    :param size: number of slots, not below the number of weights.
    :returns: slots per weight; each less than 1 from its exact share, except where the minimum of 1 takes from others.
    """
    total = sum(weights)
    counts = [max(1, weight * size // total) for weight in weights]
    spare = size - sum(counts)

    def surplus(index: int) -> int:
        return counts[index] * total - weights[index] * size

    # A weight that got its minimum has a surplus, so it comes last when slots are handed out.
    for index in sorted(range(len(weights)), key=surplus)[: max(0, spare)]:
        counts[index] += 1
    for _debt in range(-spare):
        counts[max((index for index, count in enumerate(counts) if count > 1), key=surplus)] -= 1
    return counts


@lru_cache(maxsize=16)
def smooth_order(counts: tuple[int, ...]) -> tuple[int, ...]:
    """Spread each index over a cycle as evenly as its count allows: 0, 0, 1, 0 for counts 3 and 1.

    Stride scheduling (Waldspurger and Weihl, 1995): the k-th turn of an index is due at (k + phase) / count, where the
    phase is 1/2, or spread evenly over those that have the same count.

    :returns: ``sum(counts)`` indices.
    """
    return tuple(index for due, index in sorted(_turns(counts)))


def _turns(counts: Sequence[int]) -> Iterator[tuple[float, int]]:
    alike = Counter(counts)
    seen: Counter[int] = Counter()
    for index, count in enumerate(counts):
        seen[count] += 1
        for turn in range(count):
            # Indices with equal counts are due one after the other, not at once: 50 light ones would come in a row.
            # Division is correctly rounded, so equal fractions compare equal and every node sorts alike.
            yield (2 * turn * alike[count] + 2 * seen[count] - 1) / (count * alike[count]), index


@lru_cache(maxsize=64)
def maglev(places: tuple[bytes, ...], counts: tuple[int, ...], seed: int) -> tuple[int, ...]:
    """Fill a Maglev table (Eisenbud et al., NSDI 2016, section 3.4), weighted by the number of turns.

    :param places: the key of each backend's permutation.
    :param counts: the number of slots of each backend; their sum, the size, is a prime.
    :returns: the index of a backend in each slot.
    """
    size = sum(counts)
    table = [-1] * size
    walks = [_permutation(place, size, seed) for place in places]
    for index in smooth_order(counts):
        slot = next(slot for slot in walks[index] if table[slot] < 0)
        table[slot] = index
    return tuple(table)


def _permutation(place: bytes, size: int, seed: int) -> Iterator[int]:
    digest = hashlib.blake2b(place, digest_size=16, key=seed.to_bytes(4, "big"), person=b"evenflow").digest()
    slot = int.from_bytes(digest[:8], "big") % size
    skip = int.from_bytes(digest[8:], "big") % (size - 1) + 1
    for _turn in range(size):
        yield slot
        slot = (slot + skip) % size


def _ranks(backends: Iterable[Backend]) -> dict[tuple[str, int], bytes]:
    ranks: dict[tuple[str, int], bytes] = {}
    ports: dict[str, int] = {}
    for backend in sorted(backends, key=lambda backend: backend.port):
        rank = ports[backend.address] = ports.get(backend.address, -1) + 1
        # The first backend of a machine: the address alone, so that its slots are the same in every listener.
        ranks[backend.endpoint] = rank.to_bytes(2, "big") if rank else b""
    return ranks
