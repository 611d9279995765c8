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
from ._nft import Elements, FoundTable, Group, Set, Table, Transaction
from ._ruleset import SHARED_SETS, STATIC_CHAINS, table
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
    vips = _vips(configuration, settings)
    wanted = table(configuration, settings, frozenset(vip.address for vip in vips))
    if live.table is None or _is_other_version(live.table):
        transaction = _load(wanted, live.table)
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
    for name, group in wanted.listeners.items():
        depends_on = repr(([chain.comments for chain in group.chains.values()], group.sets))
        found.append(_part(f"1_{name}", depends_on, partial(_built, group)))
    return sorted(found, key=lambda part: part.name)


def _part(name: str, depends_on: str, write: Callable[[], Transaction]) -> Part:
    return Part(name, hashlib.blake2b(depends_on.encode("utf-8"), digest_size=8).hexdigest(), write)


def _static(wanted: Table) -> Transaction:
    transaction = Transaction()
    transaction.add_table(TABLE_COMMENT)
    for name, declaration in wanted.timeouts.items():
        transaction.add_timeout(name, declaration)
    for name, shared in wanted.shared.sets.items():
        transaction.add_set(name, shared)
    for name, chain in wanted.shared.chains.items():
        transaction.add_chain(name, chain)
    for name, chain in wanted.shared.chains.items():
        transaction.add_rules(name, chain)
    return transaction


def _built(group: Group) -> Transaction:
    transaction = Transaction()
    _update_group(transaction, group, FoundTable({}, {}, set()))
    return transaction


def _shared_elements(wanted: Table) -> Transaction:
    transaction = Transaction()
    for name, shared in wanted.shared.sets.items():
        transaction.add_elements(name, content(shared.elements))
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


def _load(wanted: Table, found: FoundTable | None) -> Transaction:
    transaction = Transaction()
    if found:
        transaction.delete_table()
    for part in parts(wanted):
        transaction.extend(part.write())
    for name, kept in wanted.sets.items():
        # Sessions outlive a table that is built anew.
        if found and not kept.is_ours and kept.kind == "map" and name in found.sets:
            transaction.add_elements(name, content(found.sets[name].elements))
    return transaction


def _update(wanted: Table, found: FoundTable) -> Transaction:
    transaction = Transaction()
    for name in sorted(wanted.timeouts.keys() - found.timeouts):
        transaction.add_timeout(name, wanted.timeouts[name])
    for group in wanted.listeners.values():
        _update_group(transaction, group, found)
    for name, shared in wanted.shared.sets.items():
        _update_elements(transaction, name, shared, found.sets[name])
    _remove_stale(transaction, wanted, found)
    return transaction


def _update_group(transaction: Transaction, group: Group, found: FoundTable) -> None:
    for name, wanted in group.sets.items():
        if name in found.sets:
            _update_elements(transaction, name, wanted, found.sets[name])
        else:
            transaction.add_set(name, wanted)
            transaction.add_elements(name, content(wanted.elements))
    for name, chain in group.chains.items():
        if name not in found.chains:
            transaction.add_chain(name, chain)
        elif chain.comments == found.chains[name].comments:
            continue
        else:
            transaction.flush_chain(name)
        transaction.add_rules(name, chain)


def _remove_stale(transaction: Transaction, wanted: Table, found: FoundTable) -> None:
    chains, sets = wanted.chains, wanted.sets
    stale = [name for name in found.chains if name not in chains]
    for name in stale:
        transaction.flush_chain(name)
    for name in stale:
        transaction.delete_chain(name)
    for name in found.sets:
        if name not in sets:
            transaction.delete_set(name, found.sets[name].kind)
    for name in sorted(found.timeouts - wanted.timeouts.keys()):
        transaction.delete_timeout(name)


def _update_elements(transaction: Transaction, name: str, wanted: Set, found: Set) -> None:
    if not wanted.is_ours or wanted.elements == found.elements:
        return
    after, before = content(wanted.elements), content(found.elements)
    # The kernel refuses to add an element that is there with another value, so it is deleted first.
    transaction.delete_elements(name, [key for key in before if key not in after or after[key] != before[key]])
    transaction.add_elements(
        name, {key: value for key, value in after.items() if key not in before or before[key] != value}
    )
