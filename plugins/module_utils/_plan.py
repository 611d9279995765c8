# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one place that decides what must change in the kernel: pure, from what is wanted and what is there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Mapping

from ._model import Configuration, Settings, family
from ._nft import Elements, FoundTable, Set, Table, Transaction
from ._ruleset import SHARED_SETS, STATIC_CHAINS, chain_name, slots_name, table
from ._scheduler import SlotTable

TABLE_COMMENT = "evenflow.l4lb: changes by hand are undone"


@dataclass(frozen=True)
class Address:
    """An address on an interface."""

    interface: str
    address: str

    @property
    def prefix(self) -> str:
        """The address with the prefix length of a single host."""
        return f"{self.address}/{'128' if family(self.address) == '6' else '32'}"


@dataclass
class Live:
    """What is on the node.

    :ivar table: our table; ``None`` if there is none.
    :ivar addresses: addresses on the VIP interface and on those where we put some.
    :ivar owned: the addresses that we put there.
    """

    table: FoundTable | None = None
    addresses: frozenset[Address] = frozenset()
    owned: frozenset[Address] = frozenset()


@dataclass
class Plan:
    """What is to be done.

    :ivar transaction: for nft.
    :ivar add: VIPs to put on an interface.
    :ivar remove: VIPs to take off it.
    :ivar owned: the addresses that are ours afterwards.
    :ivar table: what the kernel holds afterwards.
    """

    transaction: Transaction
    table: Table
    add: tuple[Address, ...] = ()
    remove: tuple[Address, ...] = ()
    owned: frozenset[Address] = field(default_factory=frozenset)

    def __bool__(self) -> bool:
        return bool(self.transaction or self.add or self.remove)


def plan(configuration: Configuration, settings: Settings, live: Live) -> Plan:
    """Decide how to bring the node to the configuration.

    :returns: an empty plan if everything is as it should be.
    """
    wanted = table(configuration, settings)
    vips = _vips(configuration, settings)
    if live.table is None or _is_other_version(live.table):
        transaction = _load(wanted, replace=live.table is not None)
    else:
        transaction = _update(wanted, live.table)
    return Plan(
        transaction,
        wanted,
        add=_sorted(vips - live.addresses),
        remove=_sorted((live.owned - vips) & live.addresses),
        # An address that was there before us is not ours to remove later.
        owned=vips & (live.owned | (vips - live.addresses)),
    )


@dataclass(frozen=True)
class Part:
    """Statements that build a part of a table.

    :ivar name: parts loaded in their names' order in one go build the table.
    :ivar digest: equal digests, equal statements.
    """

    name: str
    digest: str
    write: Callable[[], Transaction]


def parts(wanted: Table) -> list[Part]:
    """Divide what builds a table: what all share, a part a listener, what refers to listeners."""
    static, elements = _static(wanted), _shared_elements(wanted)
    found = [_part("0_static", static.text(), lambda: static), _part("2_elements", elements.text(), lambda: elements)]
    for listener in _listeners(wanted):
        chain, slots = wanted.chains[chain_name(listener)], wanted.sets[slots_name(listener)]
        depends_on = repr((chain.comments, slots))
        found.append(_part(f"1_{listener}", depends_on, partial(_listener, wanted, listener)))
    return sorted(found, key=lambda part: part.name)


def _part(name: str, depends_on: str, write: Callable[[], Transaction]) -> Part:
    return Part(name, hashlib.blake2b(depends_on.encode("utf-8"), digest_size=8).hexdigest(), write)


def _static(wanted: Table) -> Transaction:
    transaction = Transaction()
    transaction.add_table(TABLE_COMMENT)
    for name in SHARED_SETS:
        transaction.add_set(name, wanted.sets[name])
    for name, chain in STATIC_CHAINS.items():
        transaction.add_chain(name, chain)
    for name, chain in STATIC_CHAINS.items():
        transaction.add_rules(name, chain)
    return transaction


def _listener(wanted: Table, listener: str) -> Transaction:
    transaction = Transaction()
    _update_listener(transaction, wanted, FoundTable({}, {}), listener)
    return transaction


def _shared_elements(wanted: Table) -> Transaction:
    transaction = Transaction()
    for name in SHARED_SETS:
        transaction.add_elements(name, content(wanted.sets[name].elements))
    return transaction


def content(elements: Elements) -> Mapping[Any, Any]:
    """Return elements as a mapping, slots computed."""
    return dict(enumerate(elements.slots())) if isinstance(elements, SlotTable) else elements


def _vips(configuration: Configuration, settings: Settings) -> frozenset[Address]:
    if settings.vip_mode != "address":
        return frozenset()
    return frozenset(Address(settings.vip_interface, listener.address) for listener in configuration.listeners)


def _sorted(addresses: frozenset[Address]) -> tuple[Address, ...]:
    return tuple(sorted(addresses, key=lambda address: (address.interface, address.address)))


def _is_other_version(found: FoundTable) -> bool:
    return any(name not in found.sets for name in SHARED_SETS) or any(
        name not in found.chains
        or (found.chains[name].hook, found.chains[name].comments) != (chain.hook, chain.comments)
        for name, chain in STATIC_CHAINS.items()
    )


def _load(wanted: Table, replace: bool) -> Transaction:
    transaction = Transaction()
    if replace:
        transaction.delete_table()
    for part in parts(wanted):
        transaction.extend(part.write())
    return transaction


def _update(wanted: Table, found: FoundTable) -> Transaction:
    transaction = Transaction()
    for listener in _listeners(wanted):
        _update_listener(transaction, wanted, found, listener)
    for name in SHARED_SETS:
        _update_elements(transaction, name, wanted.sets[name], found.sets[name])
    # A rule can name a set, a map's verdict a chain: rules go first, then sets, then chains.
    stale = [name for name in found.chains if name not in wanted.chains]
    for name in stale:
        transaction.flush_chain(name)
    for name in found.sets:
        if name not in wanted.sets:
            transaction.delete_set(name, found.sets[name].kind)
    for name in stale:
        transaction.delete_chain(name)
    return transaction


def _update_listener(transaction: Transaction, wanted: Table, found: FoundTable, listener: str) -> None:
    chain, slots = chain_name(listener), slots_name(listener)
    if slots in found.sets:
        _update_elements(transaction, slots, wanted.sets[slots], found.sets[slots])
    else:
        transaction.add_set(slots, wanted.sets[slots])
        transaction.add_elements(slots, content(wanted.sets[slots].elements))
    if chain not in found.chains:
        transaction.add_chain(chain, wanted.chains[chain])
    elif wanted.chains[chain].comments == found.chains[chain].comments:
        return
    else:
        transaction.flush_chain(chain)
    transaction.add_rules(chain, wanted.chains[chain])


def _update_elements(transaction: Transaction, name: str, wanted: Set, found: Set) -> None:
    if wanted.elements == found.elements:
        return
    after, before = content(wanted.elements), content(found.elements)
    # The kernel refuses to add an element that is there with another value, so it is deleted first.
    transaction.delete_elements(name, [key for key in before if key not in after or after[key] != before[key]])
    transaction.add_elements(
        name, {key: value for key, value in after.items() if key not in before or before[key] != value}
    )


def _listeners(wanted: Table) -> list[str]:
    return [name[len(chain_name("")) :] for name in wanted.chains if name not in STATIC_CHAINS]
