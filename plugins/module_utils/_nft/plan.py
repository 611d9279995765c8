# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan: the one place that decides what must change in the table and on interfaces. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._config.address import Address, Destination
from .._config.derived import Derived
from .._config.identity import BackendIds
from .._config.model import Configuration
from .._config.settings import Settings
from .._schedule.scheduler import slot_table
from .._state.eligibility import select
from .._state.runtime import EMPTY_RUNTIME, Runtime
from .desired_table import desired_table
from .limits import BACKENDS, FULL
from .listener_chains import SESSIONS_PREFIX, slots_name
from .objects import DesiredTable, Group, LiveTable, Set, SetKind, Timed, content
from .parts import TABLE_COMMENT, add_set, parts
from .static_rules import SHARED_SETS, STATIC_CHAINS, dispatch_key
from .transaction import Transaction


@dataclass
class Live:
    """The live state of a node.

    :ivar table: our table; ``None`` if there is none.
    :ivar addresses: addresses on the VIP interface and on those where we put some.
    :ivar owned: the addresses that we put there.
    """

    table: LiveTable | None = None
    addresses: frozenset[Address] = frozenset()
    owned: frozenset[Address] = frozenset()


@dataclass
class Plan:
    """What is to be done on a node. It is false if nothing is.

    :ivar boot: the table that is loaded at the next boot.
    :ivar add: VIPs to put on an interface.
    :ivar remove: VIPs to take off an interface.
    :ivar owned: the addresses that are ours afterwards.
    :ivar new_destinations: destinations that no listener served before; the entries of flows to them are deleted,
        so that the flows are scheduled.
    """

    transaction: Transaction
    boot: DesiredTable
    add: tuple[Address, ...] = ()
    remove: tuple[Address, ...] = ()
    owned: frozenset[Address] = field(default_factory=frozenset)
    new_destinations: tuple[Destination, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.transaction or self.add or self.remove)


def plan(
    configuration: Configuration,
    settings: Settings,
    live: Live,
    runtime: Runtime = EMPTY_RUNTIME,
    derived: Derived | None = None,
) -> Plan:
    """Return what brings a node to a configuration.

    :param configuration: the effective configuration, see :func:`~.._state.effective.effective`.
    :param runtime: the runtime state that goes with it.
    :param derived: keeps the parts of listeners for the next call.
    """
    derived = derived or Derived()
    vips = _vips(configuration, settings)
    # An address that was there before us is not ours to remove later.
    owned = vips & (live.owned | (vips - live.addresses))
    addresses = {vip.address for vip in owned}
    desired = boot = desired_table(configuration, settings, addresses, runtime, derived)
    if live.table is None or must_be_replaced(live.table, settings):
        transaction = _load(desired, live.table)
    else:
        transaction = _update(desired, live.table)
    if runtime != runtime.across_reboot:
        boot = desired_table(configuration, settings, addresses, runtime.across_reboot, derived)
    return Plan(
        transaction,
        boot,
        add=_sorted(vips - live.addresses),
        remove=_sorted((live.owned - vips) & live.addresses),
        owned=owned,
        new_destinations=_new_destinations(configuration, live.table),
    )


def redeal(configuration: Configuration, ids: BackendIds, before: Runtime, after: Runtime) -> Transaction:
    """Return what brings the slot tables of listeners with lc and wlc from the shares before to those after.

    :param configuration: the effective configuration; other listeners than these are ignored.
    """
    transaction = Transaction()
    for listener in configuration.listeners:
        if listener.is_least_conn:
            eligible = select(listener).backends
            live, desired = (
                Set(SetKind.MAP, "", slot_table(listener, eligible, ids, 0, runtime.shares.get(listener.name)))
                for runtime in (before, after)
            )
            _update_elements(transaction, slots_name(listener.name), desired, live)
    return transaction


def must_be_replaced(live: LiveTable, settings: Settings) -> bool:
    """Return whether a live table must be replaced as a whole: the kernel changes no rule or size in place."""
    has_other_size = any(
        name.startswith(SESSIONS_PREFIX) and each.size != settings.conntrack_max for name, each in live.sets.items()
    )
    return live.is_refused or has_other_size or is_other_version(live)


def is_other_version(live: LiveTable) -> bool:
    """Return whether a live table has other static rules or sets than this library's."""
    return any(name not in live.sets for name in SHARED_SETS) or any(
        name not in live.chains or (live.chains[name].hook, live.chains[name].comments) != (chain.hook, chain.comments)
        for name, chain in STATIC_CHAINS.items()
    )


def _new_destinations(configuration: Configuration, live: LiveTable | None) -> tuple[Destination, ...]:
    destinations = []
    for listener in configuration.listeners:
        for ports in listener.ports:
            name, key = dispatch_key(listener, ports)
            if live is None or name not in live.sets or key not in content(live.sets[name].elements):
                destinations.append(Destination(listener.address, listener.protocol, ports))
    return tuple(destinations)


def _vips(configuration: Configuration, settings: Settings) -> frozenset[Address]:
    if settings.vip_mode != "address":
        return frozenset()
    listeners = configuration.listeners_and_leaving
    return frozenset(Address(settings.vip_interface, listener.address) for listener in listeners)


def _sorted(addresses: frozenset[Address]) -> tuple[Address, ...]:
    return tuple(sorted(addresses, key=lambda address: (address.interface, address.address)))


def _load(desired: DesiredTable, live: LiveTable | None) -> Transaction:
    """Build the table, in place of a live one that must be replaced."""
    transaction = Transaction()
    if live:
        transaction.delete_table()
    for part in parts(desired):
        transaction.extend(part.write())
        if not live:
            # Nothing leads to a listener's part before the last part, the shared elements.
            transaction.checkpoint()
    for name, kept in desired.sets.items():
        # Sessions outlive the replacement of the table.
        if live and not kept.is_ours and kept.kind == SetKind.MAP and name in live.sets:
            sessions = content(live.sets[name].elements).items()
            transaction.add_elements(name, {key: value for key, value in sessions if _is_session(key, value)})
    return transaction


def _is_session(key: Any, value: Any) -> bool:
    """Return whether an element is one that rules add, and not one of another program."""
    return isinstance(key, int) and isinstance(value, Timed) and isinstance(value.value, int)


def _update(desired: DesiredTable, live: LiveTable) -> Transaction:
    transaction = Transaction()
    if live.is_dormant:
        # Adding it without the flag wakes it.
        transaction.add_table(TABLE_COMMENT)
    for name in sorted(desired.timeouts.keys() - live.timeouts):
        transaction.add_timeout(name, desired.timeouts[name])
    for group in (desired.forward, *desired.listeners.values()):
        _update_group(transaction, group, live)
    for name, shared in desired.shared.sets.items():
        _update_elements(transaction, name, shared, live.sets[name])
    _clear_full(transaction, desired.sets[BACKENDS], live.sets[BACKENDS])
    _remove_stale(transaction, desired, live)
    return transaction


def _update_group(transaction: Transaction, group: Group, live: LiveTable) -> None:
    for name, desired in group.sets.items():
        if name in live.sets:
            _update_elements(transaction, name, desired, live.sets[name])
        else:
            add_set(transaction, name, desired)
    for name, chain in group.chains.items():
        if name not in live.chains:
            transaction.add_chain(name, chain)
        elif chain.comments == live.chains[name].comments:
            continue
        else:
            transaction.flush_chain(name)
        transaction.add_rules(name, chain)


def _update_elements(transaction: Transaction, name: str, desired: Set, live: Set) -> None:
    if not desired.is_ours or desired.elements == live.elements:
        return
    after, before = content(desired.elements), content(live.elements)
    # The kernel refuses to add an element that exists with another value, so it is deleted first.
    transaction.delete_elements(name, [key for key in before if key not in after or after[key] != before[key]])
    transaction.add_elements(
        name, {key: value for key, value in after.items() if key not in before or before[key] != value}
    )


def _clear_full(transaction: Transaction, desired: Set, live: Set) -> None:
    """Remove each backend whose limit was edited from the full ones, because it may have room now.

    It is added first, because nft refuses to delete an element that does not exist.
    """
    after, before = content(desired.elements), content(live.elements)
    edited = [key for key in after if key in before and after[key] != before[key]]
    transaction.add_elements(FULL, dict.fromkeys(edited))
    transaction.delete_elements(FULL, edited)


def _remove_stale(transaction: Transaction, desired: DesiredTable, live: LiveTable) -> None:
    chains, sets = desired.chains, desired.sets
    # A rule can name a set, a map's verdict a chain: rules go first, then sets, then chains.
    stale = [name for name in live.chains if name not in chains]
    for name in stale:
        transaction.flush_chain(name)
    for name in live.sets:
        if name not in sets:
            transaction.delete_set(name, live.sets[name].kind)
    for name in stale:
        transaction.delete_chain(name)
    for name in sorted(live.timeouts - desired.timeouts.keys()):
        transaction.delete_timeout(name)
