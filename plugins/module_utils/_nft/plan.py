# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one place that decides what must change in the kernel: pure, from what is wanted and what is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping

from .._config.address import Address, Destination
from .._config.model import Configuration
from .._config.settings import Settings
from .._schedule.scheduler import slot_table
from .._state.eligibility import eligible
from .._state.runtime import EMPTY_RUNTIME, Runtime
from .desired_table import table
from .limits import BACKENDS, FULL
from .listener_chains import slots_name
from .objects import Group, LiveTable, Set, Table, content
from .parts import add_set, parts
from .static_rules import SHARED_SETS, STATIC_CHAINS, dispatch_key
from .transaction import Transaction


@dataclass
class Live:
    """What is on the node.

    :ivar table: our table; ``None`` if there is none.
    :ivar addresses: addresses on the VIP interface and on those where we put some.
    :ivar owned: the addresses that we put there.
    """

    table: LiveTable | None = None
    addresses: frozenset[Address] = frozenset()
    owned: frozenset[Address] = frozenset()


@dataclass
class Plan:
    """What is to be done.

    :ivar transaction: for nft.
    :ivar add: VIPs to put on an interface.
    :ivar remove: VIPs to take off it.
    :ivar owned: the addresses that are ours afterwards.
    :ivar boot: what the kernel is given at the next boot.
    :ivar new_destinations: destinations that no listener served before; the entries of flows to them are deleted,
        so that the flows are scheduled.
    """

    transaction: Transaction
    boot: Table
    add: tuple[Address, ...] = ()
    remove: tuple[Address, ...] = ()
    owned: frozenset[Address] = field(default_factory=frozenset)
    new_destinations: tuple[Destination, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.transaction or self.add or self.remove)


def plan(configuration: Configuration, settings: Settings, live: Live, runtime: Runtime = EMPTY_RUNTIME) -> Plan:
    """Decide how to bring the node to the configuration.

    :param configuration: in force, see :func:`~._in_force.effective`.
    :param runtime: what the node knows when that is done.
    :returns: an empty plan if everything is as it should be.
    """
    vips = _vips(configuration, settings)
    # An address that was there before us is not ours to remove later.
    owned = vips & (live.owned | (vips - live.addresses))
    addresses = {vip.address for vip in owned}
    wanted = table(configuration, settings, addresses, runtime)
    if live.table is None or is_other_version(live.table):
        transaction = _load(wanted, live.table)
    else:
        transaction = _update(wanted, live.table)
    return Plan(
        transaction,
        wanted
        if runtime == runtime.across_reboot
        else table(configuration, settings, addresses, runtime.across_reboot),
        add=_sorted(vips - live.addresses),
        remove=_sorted((live.owned - vips) & live.addresses),
        owned=owned,
        new_destinations=_new_destinations(configuration, live.table),
    )


def redeal(
    configuration: Configuration, ids: Mapping[tuple[str, str, int], int], before: Runtime, after: Runtime
) -> Transaction:
    """Decide how to bring the tables of listeners with lc and wlc from the shares that they have to others.

    :param configuration: the listeners, in force; others than these are passed over.
    :param ids: id by (listener, address, port).
    """
    transaction = Transaction()
    for listener in configuration.listeners:
        if listener.is_least_conn:
            name = slots_name(listener.name)
            found, wanted = (
                Set("map", "", slot_table(listener, eligible(listener), ids, 0, runtime.shares.get(listener.name)))
                for runtime in (before, after)
            )
            _update_elements(transaction, name, wanted, found)
    return transaction


def _new_destinations(configuration: Configuration, found: LiveTable | None) -> tuple[Destination, ...]:
    new_destinations = []
    for listener in configuration.listeners:
        for ports in listener.ports:
            name, key = dispatch_key(listener, ports)
            if found is None or name not in found.sets or key not in content(found.sets[name].elements):
                new_destinations.append(Destination(listener.address, listener.protocol, ports))
    return tuple(new_destinations)


def _vips(configuration: Configuration, settings: Settings) -> frozenset[Address]:
    if settings.vip_mode != "address":
        return frozenset()
    return frozenset(
        Address(settings.vip_interface, listener.address) for listener in configuration.listeners_and_leaving
    )


def _sorted(addresses: frozenset[Address]) -> tuple[Address, ...]:
    return tuple(sorted(addresses, key=lambda address: (address.interface, address.address)))


def is_other_version(found: LiveTable) -> bool:
    """Tell whether a table has other static rules or sets than this library's, so that it is built anew."""
    return any(name not in found.sets for name in SHARED_SETS) or any(
        name not in found.chains
        or (found.chains[name].hook, found.chains[name].comments) != (chain.hook, chain.comments)
        for name, chain in STATIC_CHAINS.items()
    )


def _load(wanted: Table, found: LiveTable | None) -> Transaction:
    transaction = Transaction()
    if found:
        transaction.delete_table()
    for part in parts(wanted):
        transaction.extend(part.write())
        if not found:
            # Nothing leads to a listener's part before the last part, the shared elements.
            transaction.checkpoint()
    for name, kept in wanted.sets.items():
        # Sessions outlive a table that is built anew.
        if found and not kept.is_ours and kept.kind == "map" and name in found.sets:
            transaction.add_elements(name, content(found.sets[name].elements))
    return transaction


def _update(wanted: Table, found: LiveTable) -> Transaction:
    transaction = Transaction()
    for name in sorted(wanted.timeouts.keys() - found.timeouts):
        transaction.add_timeout(name, wanted.timeouts[name])
    for group in wanted.listeners.values():
        _update_group(transaction, group, found)
    for name, shared in wanted.shared.sets.items():
        _update_elements(transaction, name, shared, found.sets[name])
    _clear_full(transaction, wanted.sets[BACKENDS], found.sets[BACKENDS])
    _remove_stale(transaction, wanted, found)
    return transaction


def _update_group(transaction: Transaction, group: Group, found: LiveTable) -> None:
    for name, wanted in group.sets.items():
        if name in found.sets:
            _update_elements(transaction, name, wanted, found.sets[name])
        else:
            add_set(transaction, name, wanted)
    for name, chain in group.chains.items():
        if name not in found.chains:
            transaction.add_chain(name, chain)
        elif chain.comments == found.chains[name].comments:
            continue
        else:
            transaction.flush_chain(name)
        transaction.add_rules(name, chain)


def _clear_full(transaction: Transaction, wanted: Set, found: Set) -> None:
    """Take backends whose limit was edited out of the full ones, be they among them or not: there may be room now."""
    after, before = content(wanted.elements), content(found.elements)
    edited = [key for key in after if key in before and after[key] != before[key]]
    transaction.add_elements(FULL, dict.fromkeys(edited))
    transaction.delete_elements(FULL, edited)


def _remove_stale(transaction: Transaction, wanted: Table, found: LiveTable) -> None:
    chains, sets = wanted.chains, wanted.sets
    # A rule can name a set, a map's verdict a chain: rules go first, then sets, then chains.
    stale = [name for name in found.chains if name not in chains]
    for name in stale:
        transaction.flush_chain(name)
    for name in found.sets:
        if name not in sets:
            transaction.delete_set(name, found.sets[name].kind)
    for name in stale:
        transaction.delete_chain(name)
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
