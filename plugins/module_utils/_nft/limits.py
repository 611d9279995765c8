# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits of connections: who counts, the elements that count, and the flows that they do not count.

The kernel counts the flows of every limit (``ct count``), but walks a list of all of them for a new flow. So the agent
deals places of limits above :data:`EXACT`: a bucket in the kernel, which is never filled again, lets as many new flows
pass as there are places, in constant time. The agent counts flows and deals again. A limit has two buckets, so that one
can be dealt anew while flows take places from the other.

The kernel counts from the moment an element is made. One that is made anew, because its limit was edited, the table was
lost or no agent deals any more, does not count the flows that live then. These are subtracted from the limit until
fewer are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping

from .._config.identity import BackendIds, backend_ids
from .._config.model import Configuration, Listener
from .._config.str_enum import StrEnum
from .objects import Element, LiveTable, content
from .transaction import Transaction

BACKENDS = "limit_backend"
"""The set that counts the flows of backends, by id."""

FULL = "full"
"""The set of backends that are skipped, because they were full."""

DEALT = "dealt"
"""The map of the backends whose places are dealt, to the chain that takes a place."""

BUCKETS = "bucket"
"""The set of the main buckets of these backends. Each counts the flows that asked for a place."""

SPARES = "spare"
"""The set of their spare buckets."""

LAST = "last_place"
"""The set of buckets that are empty when the last place of both is taken."""

EXACT = 16
"""Limits up to this are counted by the kernel alone: to walk so short a list is cheap."""

MOST = 15000
"""Maximum number of places that a bucket holds: the kernel keeps them as the nanoseconds of their refill, one a week,
in 63 bits."""

FULL_TIMEOUT = 3
"""Seconds for which a full backend is skipped, unless one of its TCP flows ends before.

If it is still full after that, the next flow is dropped, because the kernel has counted it; its retry goes elsewhere.
Flows that end without a packet, by their time-out, make room only when this time has passed.
"""

HALF_OPEN_TIMEOUT = 3
"""Seconds after which a TCP flow under a limit is forgotten if its handshake does not go on.

A server repeats its SYN-ACK after 1, 3 and 7 s, so a SYN that is never acknowledged takes a place for 6 s.
"""

PICKED_UP_TIMEOUT = 5
"""Seconds for which a TCP flow under a limit that was picked up in mid-stream waits for its peer.

A flow that is forgotten while a segment is repeated is picked up again.
"""


class Dealing(StrEnum):
    """Which buckets flows take the places of a limit from.

    FIRST: the main bucket, and the kernel counts too, because it has counted the flows until now. SOME, ONE: the main
    bucket, which has several places, or one. SPARE: the spare bucket. BOTH: the spare bucket, then the main bucket.
    NONE: there is no place.
    """

    FIRST = "first"
    SOME = "some"
    ONE = "one"
    SPARE = "spare"
    BOTH = "both"
    NONE = "none"

    @property
    def uses_main(self) -> bool:
        """Whether flows take places from the main bucket."""
        return self not in (Dealing.SPARE, Dealing.NONE)

    @property
    def uses_spare(self) -> bool:
        """Whether flows take places from the spare bucket."""
        return self in (Dealing.SPARE, Dealing.BOTH)

    @property
    def uses_last(self) -> bool:
        """Whether a bucket of its own says which place of a backend is the last one."""
        return self not in (Dealing.ONE, Dealing.NONE)


@dataclass(frozen=True)
class Places:
    """Numbers of places: in the main bucket, and in the spare one."""

    main: int = 0
    spare: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.main + self.spare


@dataclass(frozen=True)
class Deal:
    """How the places of a limit are dealt from now on.

    :ivar main: the places of a new main bucket, ``None`` if it stays as it is.
    :ivar spare: the same for the spare bucket.
    :ivar total: the places in both, ``None`` if no new ones are dealt.
    """

    dealing: Dealing
    main: int | None = None
    spare: int | None = None
    total: int | None = None

    @property
    def takes_away(self) -> bool:
        """Whether flows take from one bucket less, so that flows can be counted and the other one be dealt anew."""
        return self.total is None and self.dealing in (Dealing.SOME, Dealing.SPARE)


@dataclass(frozen=True)
class Limit:
    """A limit of connections.

    :ivar name: its name in the runtime state.
    :ivar marks: the ids of the backends whose flows count.
    :ivar set_name: the set with the element that counts.
    :ivar key: the key of that element, and of those with which places are dealt.
    :ivar listener: the name of the listener whose limit it is, empty for a backend's.
    """

    name: str
    maximum: int
    marks: tuple[int, ...]
    set_name: str
    key: Any
    listener: str = ""

    @property
    def is_dealt(self) -> bool:
        """Whether an agent deals its places."""
        return self.maximum > EXACT

    @property
    def bucket_set(self) -> str:
        """The set with its main bucket."""
        return bucket_set_name(self.listener) if self.listener else BUCKETS

    @property
    def spare_set(self) -> str:
        """The set with its spare bucket."""
        return spare_set_name(self.listener) if self.listener else SPARES

    @property
    def dealt_map(self) -> str:
        """The map that leads to the chain that takes a place."""
        return dealt_map_name(self.listener) if self.listener else DEALT

    def elements(self, deal: Deal) -> dict[str, dict[Any, Any]]:
        """Return the elements with which its places are dealt, by the names of their sets."""
        dealing = deal.dealing
        chain = listener_chain_name(self.listener, dealing) if self.listener else f"places_{dealing}"
        elements: dict[str, dict[Any, Any]] = {
            self.bucket_set: {self.key: _bucket(deal.main)},
            self.dealt_map: {self.key: f"goto {chain}"},
        }
        if dealing.uses_spare:
            elements[self.spare_set] = {self.key: _bucket(deal.spare)}
        if dealing.uses_last and not self.listener:
            elements[LAST] = {self.key: Element(_rate((deal.total or 0) - 1))}
        return elements

    def renewed(self, deal: Deal) -> set[str]:
        """Return the names of the sets whose elements are made anew, although there are some already."""
        numbers = {self.bucket_set: deal.main, self.spare_set: deal.spare, LAST: deal.total}
        return {self.dealt_map, *(name for name, number in numbers.items() if number is not None)}


@dataclass(frozen=True)
class Bucket:
    """A bucket as the kernel holds it.

    :ivar places: number of places that were dealt.
    :ivar asked: number of flows that have asked for one since then.
    """

    places: int
    asked: int


def backend_limit_name(mark: int) -> str:
    """Return the name of a backend's limit, which no listener can have."""
    return f"{mark:#010x}"


def listener_set_name(listener: str) -> str:
    """Return the name of the set that counts the flows of a listener."""
    return f"cap_{listener}"


def listener_key(listener: Listener) -> str:
    """Return the key of the element of that set: a property that all packets of the listener have."""
    return f"ipv{listener.family}"


def bucket_set_name(listener: str) -> str:
    """Return the name of the set with the main bucket of a listener's limit."""
    return f"bucket_{listener}"


def spare_set_name(listener: str) -> str:
    """Return the name of the set with the spare bucket of a listener's limit."""
    return f"spare_{listener}"


def dealt_map_name(listener: str) -> str:
    """Return the name of the map that leads to the chain that takes a place of a listener's limit."""
    return f"dealt_{listener}"


def listener_chain_name(listener: str, dealing: Dealing) -> str:
    """Return the name of the chain that takes a place of a listener's limit."""
    if dealing == Dealing.NONE:
        return "refuse"
    return f"{Dealing.SOME if dealing == Dealing.ONE else dealing}_{listener}"


def over(maximum: int, uncounted: int) -> Element:
    """Return the element that matches flows above a limit, less the flows that the kernel does not count."""
    return Element(f"ct count over {max(0, maximum - uncounted)}")


def remaining(dealing: Dealing | None, main: Bucket | None, spare: Bucket | None = None) -> Places:
    """Return the number of places that flows may still take."""
    if dealing is None:
        return Places()
    return Places(
        max(0, main.places - main.asked) if main and dealing.uses_main else 0,
        max(0, spare.places - spare.asked) if spare and dealing.uses_spare else 0,
    )


def deal(maximum: int, dealing: Dealing | None, left: Places, active: int) -> Deal | None:
    """Return how places of a limit are to be dealt.

    While flows are counted, all places that are left may be taken. So as many as there were before the count are set
    aside, whether they are taken or not, and the others are put into an empty bucket: active flows and places are never
    more than the limit together. If neither bucket is empty, the smaller one is taken away first.

    :param left: the remaining places, read before flows were counted.
    :returns: ``None`` if nothing is to change.
    """
    # Flows that took a place since it was read are in both numbers, so the result may be below zero.
    free = maximum - active - left.total
    if dealing is None or (dealing == Dealing.FIRST and free < 0):
        # No place is set aside for flows that come during the count, because the kernel counts too until the next time.
        # Flows that came during the last one have made too many.
        places = min(max(0, maximum - active), MOST)
        return Deal(Dealing.FIRST if places else Dealing.NONE, main=places, total=places)
    if left.main and left.spare:
        smaller = min(left.main, left.spare)
        if min(free + smaller, MOST) <= smaller:
            return None
        return Deal(Dealing.SOME) if smaller == left.spare else Deal(Dealing.SPARE, main=0)
    places = min(free, MOST)
    if places <= 0:
        return Deal(Dealing.SOME) if dealing == Dealing.FIRST else None
    total = left.total + places
    if left.main:
        return Deal(Dealing.BOTH, spare=places, total=total)
    if left.spare:
        return Deal(Dealing.BOTH, main=places, total=total)
    return Deal(Dealing.ONE if total == 1 else Dealing.SOME, main=places, total=total)


def deal_transaction(before: Mapping[str, str], after: Mapping[str, Deal], limits: Mapping[str, Limit]) -> Transaction:
    """Return what deals places.

    :param before: how the places of limits were dealt before, by the limits' names.
    :param after: how they are to be dealt.
    """
    added: dict[str, dict[Any, Any]] = {}
    deleted: dict[str, list[Any]] = {}
    for name, each in after.items():
        limit = limits[name]
        present = limit.elements(Deal(Dealing(before[name]))) if name in before else {}
        needed, renewed = limit.elements(each), limit.renewed(each)
        for set_name, elements in present.items():
            if set_name in renewed or set_name not in needed:
                deleted.setdefault(set_name, []).extend(elements)
        for set_name, elements in needed.items():
            if set_name in renewed or set_name not in present:
                added.setdefault(set_name, {}).update(elements)
    transaction = Transaction()
    for set_name, keys in deleted.items():
        transaction.delete_elements(set_name, keys)
    for set_name, elements in added.items():
        transaction.add_elements(set_name, elements)
    # A backend with a place is not full. It is added first, because nft refuses to delete what does not exist.
    open_again = [limits[name].key for name, each in after.items() if each.total and not limits[name].listener]
    transaction.add_elements(FULL, dict.fromkeys(open_again))
    transaction.delete_elements(FULL, open_again)
    return transaction


def still_dealt(
    configuration: Configuration, live: LiveTable | None, before: Mapping[str, str], uncounted_before: Mapping[str, int]
) -> dict[str, str]:
    """Return how the places of limits are dealt that are as they were, by the limits' names.

    :param configuration: the effective configuration.
    :param live: the live table, if it is not replaced.
    """
    if not before or live is None:
        return {}
    return {
        limit.name: before[limit.name]
        for limit in limits_of(configuration)
        if limit.name in before
        and limit.is_dealt
        and _is_there(limit, uncounted_before.get(limit.name, 0), live)
        and _is_dealt_as(limit, Dealing(before[limit.name]), live)
    }


def uncounted(
    configuration: Configuration,
    live: LiveTable | None,
    before: Mapping[str, int],
    active: Callable[[], Mapping[int, int]],
    dealt: Mapping[str, str] | None = None,
    left: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Return the number of flows that the element of each limit does not count, now or once it is made.

    :param configuration: the effective configuration.
    :param live: the live table, if it is not replaced.
    :param before: the result of the last time.
    :param active: counts the active flows of each backend id. It is called only if a limit has uncounted flows.
    :param dealt: the limits whose places go on being dealt, so that no element counts their flows.
    :param left: the places that flows may still take, by the names of the limits whose places were dealt until now.
    :returns: the number by the limit's name, without zeros.
    """
    numbers: dict[str, int] = {}
    flows: Mapping[int, int] | None = None
    dealt, left = dealt or {}, left or {}
    for limit in limits_of(configuration):
        known = before.get(limit.name, 0)
        if limit.name in dealt:
            if known:
                numbers[limit.name] = known
            continue
        is_kept = limit.name not in left and _is_there(limit, known, live)
        if is_kept and not known:
            continue
        flows = active() if flows is None else flows
        alive = sum(flows.get(mark, 0) for mark in limit.marks)
        # If at least as many live, all of the uncounted flows may be among them; else at most those that live.
        number = known if is_kept and alive >= known else alive + left.get(limit.name, 0)
        if number:
            numbers[limit.name] = number
    return numbers


def has_dealt_limit(listener: Listener) -> bool:
    """Return whether an agent deals places of a limit of the listener."""
    return max(listener.max_connections, *(backend.max_connections for backend in listener.backends), 0) > EXACT


def limits_of(configuration: Configuration, ids: BackendIds | None = None) -> Iterator[Limit]:
    """Yield the limits of a configuration.

    :param ids: of all backends, if the configuration is a part of the node's.
    """
    limited = [one for one in configuration.listeners_and_leaving if one.max_connections or one.is_limited]
    ids = ids or (backend_ids(configuration) if limited else {})
    for listener in limited:
        marks = tuple(ids[(listener.name, *backend.endpoint)] for backend in listener.backends)
        if listener.max_connections:
            set_name = listener_set_name(listener.name)
            yield Limit(listener.name, listener.max_connections, marks, set_name, listener_key(listener), listener.name)
        for mark, backend in zip(marks, listener.backends):
            if backend.max_connections:
                yield Limit(backend_limit_name(mark), backend.max_connections, (mark,), BACKENDS, mark)


def _is_there(limit: Limit, known: int, live: LiveTable | None) -> bool:
    if live is None or limit.set_name not in live.sets:
        return False
    elements = live.sets[limit.set_name].elements
    return isinstance(elements, dict) and elements.get(limit.key) == over(limit.maximum, known)


def _is_dealt_as(limit: Limit, dealing: Dealing, live: LiveTable) -> bool:
    for name, elements in limit.elements(Deal(dealing)).items():
        present = content(live.sets[name].elements) if name in live.sets else {}
        for key, value in elements.items():
            # The places of a bucket are not compared: only the bucket itself is there to be seen.
            if key not in present or not (isinstance(value, Element) or present[key] == value):
                return False
    return True


def _bucket(places: int | None) -> Element:
    return Element(f"counter {_rate(places or 0)}")


def _rate(places: int) -> str:
    return f"limit rate over 1/week burst {max(1, places)} packets"
