# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a node is changed: read its files and its kernel, plan, apply, save. Every change goes through this.

A change may die at any point, by a signal or a power cut. Its steps are in an order in which every point is one from
which the next change, or a reboot and the next change, reaches the configuration before or after it:

1. A note in the run-time directory says that a change has begun, and what cannot be seen later: whose unmarked flows
   are to be deleted, which addresses are to be announced. The new boot files and the new configuration are written
   beside the old ones, and synced. Where this fails nothing has changed. If the change dies, the old ones stand.
2. What must not be forgotten takes its place, and is synced with its directory: ``vips.json`` names the addresses that
   are ours before *or* after the change, ``runtime.json`` has the drains that the change begins beside those that it
   ends. Both mean nothing more than before as long as the configuration does not agree: an address that no listener
   needs is taken off, a drain whose backend is in use is dropped.
3. The kernel changes: addresses are added, then one transaction changes the table. If the change dies, the next one
   finds a kernel that is not what was last applied, reads it, and brings it back to the old configuration.
4. The new files take their places, the configuration last. From here on the change is the configuration: if it dies,
   the next one finds what is still to be done. The boot files come first, because no one looks at them again until the
   kernel and the configuration differ.
5. What may only go once nothing needs it goes: flows, addresses.
6. The records say so: ``vips.json`` without the removed addresses, ``runtime.json`` without the drains that are over
   and with the fates that have been carried out, and at last the note is removed.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Callable, Iterable, Mapping, Optional

from .._config.address import Address
from .._config.derived import Derived
from .._config.difference import Difference, difference
from .._config.document import Document
from .._config.edit import Edit
from .._config.identity import BackendIds, backend_ids
from .._config.model import Configuration, Listener
from .._config.settings import Settings
from .._errors import ConditionNotMet, EvenflowError
from .._nft import live_table, runner
from .._nft.limits import (
    Bucket,
    Deal,
    Dealing,
    Limit,
    Places,
    deal,
    deal_transaction,
    has_dealt_limit,
    limits_of,
    remaining,
    still_dealt,
    uncounted,
)
from .._nft.objects import LiveTable
from .._nft.plan import Live, Plan, must_be_replaced, plan, redeal
from .._nft.transaction import Transaction
from .._state.effective import effective
from .._state.health import Health
from .._state.runtime import EMPTY_RUNTIME, DrainCause, Runtime, Shares, with_clock_set_back
from .._state.transition import ENDED_SECONDS, Event, SlowStart, flows_to_delete, transition
from .._system import addresses, conntrack
from .._system.files import PendingFiles
from .._system.lock import os_errors
from .._system.store import DEFAULT_CONFIG_DIR, Store
from . import agent_status, repairs
from .applied import Applied, Snapshot, take_snapshot
from .boot_files import BootFiles
from .garbage import gc_paused
from .unfinished import Unfinished

Timeouts = Callable[[Document], Mapping[str, Optional[float]]]
"""Returns time-outs of drains by backend key from the configuration after; see :class:`~.._state.transition.Event`."""

Guard = Callable[[Configuration, Configuration, Derived], None]
"""Gets the effective configuration before and after; raises :class:`InvalidInput` to refuse the change."""


class SaveBoot(Enum):
    """When a change writes what the node is brought to at the next boot."""

    IF_CHANGED = "if changed"
    ALWAYS = "always"
    LATER = "later"


def _unchanged(before: Document) -> Document:
    return before


def _no_timeouts(_after: Document) -> Mapping[str, float | None]:
    return {}


@dataclass(frozen=True)
class ChangeRequest:
    """What a change is asked to do.

    :ivar edit: returns the configuration after, from the configuration before.
    :ivar check: only compute the outcome.
    :ivar expected: fingerprint that the configuration before must have.
    :ivar learned: health of backends that is newer than the saved one.
    :ivar save_boot: when to write the boot files.
    :ivar slow_start: how backends that join reach their share.
    :ivar timeouts: returns the time-outs of drains, from the configuration after.
    :ivar guard: refuses an effective configuration.
    :ivar replaces_table: replace the live table, because the kernel has refused to change it.
    """

    edit: Edit = _unchanged
    check: bool = False
    expected: str | None = None
    learned: Mapping[str, Health] = field(default_factory=dict)
    save_boot: SaveBoot = SaveBoot.IF_CHANGED
    slow_start: SlowStart = SlowStart.RISE
    timeouts: Timeouts = _no_timeouts
    guard: Guard | None = None
    replaces_table: bool = False


@dataclass
class Outcome:
    """What a change did, or would do.

    :ivar difference: between the two configurations.
    :ivar plan: what had to be done on the node.
    :ivar fingerprint: of the configuration after.
    :ivar repairs: what differed on the node without a reason in the change, as texts: what other programs did, a table
        of another version, an interrupted change.
    :ivar rejected: the records of the runtime state that were damaged, as texts.
    """

    config_before: Document
    config_after: Document
    difference: Difference
    plan: Plan
    runtime_before: Runtime
    runtime_after: Runtime
    effective_after: Configuration
    fingerprint: str
    repairs: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether the configuration or the node differs from before."""
        return bool(self.difference or self.plan)


@dataclass(frozen=True)
class _Part:
    """What dealing shares or places needs of a configuration.

    :ivar stamp: of the file that the configuration is in.
    :ivar configuration: the listeners that it is about.
    :ivar ids: of all backends.
    """

    stamp: Any
    fingerprint: str
    configuration: Configuration
    ids: BackendIds


class Node:
    """This machine as a load balancer.

    :param config_dir: the directory of its configuration.
    """

    def __init__(self, config_dir: str = DEFAULT_CONFIG_DIR) -> None:
        self._store = Store(config_dir)
        self._applied = Applied(self._store)
        self._boot_files = BootFiles(self._store.state_dir)
        self._unfinished = Unfinished(self._store)
        self._parts: dict[Callable[[Listener], bool], _Part] = {}

    def change(
        self,
        edit: Edit,
        check: bool = False,
        expected: str | None = None,
        timeouts: Timeouts = _no_timeouts,
        guard: Guard | None = None,
    ) -> Outcome:
        """Change the configuration and bring the kernel to it, also where only the kernel differs.

        :param edit: see :class:`ChangeRequest`, as for the others.
        :raises InvalidInput: the edit is refused; nothing was changed.
        :raises ConditionNotMet: the configuration has another fingerprint; nothing was changed.
        :raises NodeError: the node could not be read or changed; the last good state stands.
        """
        # Shares that rise with time are the agent's matter: a run that asks for nothing changes nothing.
        slow_start = SlowStart.HOLD if agent_status.is_running(self._store) else SlowStart.AT_ONCE
        request = ChangeRequest(edit, check, expected, slow_start=slow_start, timeouts=timeouts, guard=guard)
        with os_errors() if check else self._store.lock():
            outcome = self._change(request)
        if not check and outcome.runtime_after.drains != outcome.runtime_before.drains and not outcome.difference:
            agent_status.wake_agent(self._store)
        return outcome

    def process_deadlines(self) -> None:
        """Process expired deadlines if no agent is running."""
        if not agent_status.is_running(self._store):
            with self._store.lock():
                outcome = self._change(ChangeRequest(slow_start=SlowStart.AT_ONCE))
            self.end_flows(outcome)

    def end_flows(self, outcome: Outcome) -> None:
        """End the flows that a change has begun to end, if no agent is running."""
        if outcome.runtime_after.ending and not agent_status.is_running(self._store):
            # The clock may have been set back since.
            time.sleep(min(ENDED_SECONDS, max(0.0, max(outcome.runtime_after.ending.values()) - time.time())))
            with self._store.lock():
                self._change(ChangeRequest(slow_start=SlowStart.AT_ONCE))

    def end_dealing(self) -> None:
        """Let the kernel count for the limits whose places were dealt, if no agent is running."""
        # The first time sets all places aside that flows could still take, the second time only those that they took.
        for _time in range(2):
            with self._store.lock():
                runtime = self._store.runtime()
                if agent_status.is_running(self._store) or not (runtime.dealt or _time):
                    return
                self._change(ChangeRequest())

    def reconcile(self, learned: Mapping[str, Health], save: bool) -> Outcome:
        """Bring the kernel to the configuration with the present health and time applied.

        :param learned: the health of backends.
        :param save: also write the boot files; a change of health does not wait for the disk.
        :raises NodeError: the node could not be read or changed; the last good state stands.
        """
        save_boot = SaveBoot.ALWAYS if save else SaveBoot.LATER
        with self._store.lock():
            return self._change(ChangeRequest(learned=learned, save_boot=save_boot))

    def save_check_results(self, learned: Mapping[str, Health]) -> None:
        """Save the results of checks, except those that change a state, which a reconciliation saves."""
        with self._store.lock():
            before, rejected = self._store.read_runtime()
            if not rejected:
                health = {
                    key: latest if (latest.state, latest.weight) == (record.state, record.weight) else record
                    for key, record in before.health.items()
                    for latest in [learned.get(key, record)]
                }
                self._store.save_runtime(replace(before, health=health), before)

    def set_clock_back(self, known: Runtime, seconds: float) -> None:
        """Move the deadlines that were set before the clock was set back, so that they come no later.

        :param known: the runtime state before the clock was set back.
        """
        with self._store.lock():
            before = self._store.runtime()
            self._store.save_runtime(with_clock_set_back(before, known, seconds), before)

    def redeal(self, choose: Callable[[Configuration, BackendIds], Shares]) -> bool:
        """Deal new shares to the listeners with lc and wlc.

        :param choose: returns the shares, from those listeners and the ids of all backends.
        :returns: whether a table changed.
        :raises NodeError: the node could not be read or changed.
        """
        with self._store.lock():
            least_conn = self._read_part(_has_shares)
            runtime_before = self._store.runtime()
            listeners = effective(least_conn.configuration, runtime_before)
            runtime_after = replace(runtime_before, shares=choose(listeners, least_conn.ids))
            transaction = redeal(listeners, least_conn.ids, runtime_before, runtime_after)
            if not transaction:
                return False
            self._apply_part(least_conn, transaction, runtime_before, runtime_after)
            return True

    def deal_places(self, is_due: Callable[[Mapping[str, Limit], Mapping[str, int]], bool]) -> bool:
        """Deal the places of limits that the agent deals.

        :param is_due: returns whether flows are to be counted, from these limits and the places that are left.
        :returns: whether a table changed.
        :raises NodeError: the node could not be read or changed.
        """
        with self._store.lock():
            after = self._deal(is_due)
            if any(each.takes_away for each in after.values()):
                self._deal(is_due)
            return bool(after)

    def _deal(self, is_due: Callable[[Mapping[str, Limit], Mapping[str, int]], bool]) -> dict[str, Deal]:
        """Deal places once, and return how, by the names of the limits for which it changed."""
        part = self._read_part(has_dealt_limit)
        runtime_before = self._store.runtime()
        effective_part = effective(part.configuration, runtime_before)
        limits = {limit.name: limit for limit in limits_of(effective_part, part.ids) if limit.is_dealt}
        buckets = _read_buckets(limits.values())
        left = {name: _left(limit, runtime_before, buckets) for name, limit in limits.items()}
        # A table that is not as it was left is the reconciliation's matter.
        known = {name: places for name, places in left.items() if places is not None}
        # The second time follows soon, because until then the kernel counts too.
        is_first = any(runtime_before.dealt.get(name) == Dealing.FIRST for name in known)
        if not known or not (is_due(limits, {name: places.total for name, places in known.items()}) or is_first):
            return {}
        active = conntrack.count()
        after: dict[str, Deal] = {}
        for name, places in known.items():
            flows = sum(active.get(mark, 0) for mark in limits[name].marks)
            dealing = Dealing(runtime_before.dealt[name]) if name in runtime_before.dealt else None
            dealt = deal(limits[name].maximum, dealing, places, flows)
            if dealt:
                after[name] = dealt
        if after:
            dealings = {**runtime_before.dealt, **{name: str(each.dealing) for name, each in after.items()}}
            transaction = deal_transaction(runtime_before.dealt, after, limits)
            self._apply_part(part, transaction, runtime_before, replace(runtime_before, dealt=dealings))
        return after

    def _apply_part(self, part: _Part, transaction: Transaction, before: Runtime, after: Runtime) -> None:
        """Run a transaction that belongs to a change of the runtime state alone, and save that."""
        settings, owned = self._store.settings(), frozenset(self._store.vips())
        generation = runner.generation()
        snapshot = take_snapshot(part.fingerprint, settings, before, owned, generation)
        is_as_applied = self._applied.equals(snapshot)
        generation += runner.apply(transaction)
        self._store.save_runtime(after, before)
        if is_as_applied:
            self._applied.save(take_snapshot(part.fingerprint, settings, after, owned, generation))

    def render(self, edit: Edit) -> Outcome:
        """Return the outcome on a node without any listener. Nothing is read from the kernel or written."""
        config_after = edit({})
        configuration = Configuration.from_document(config_after)
        effective_after = effective(configuration, EMPTY_RUNTIME)
        return Outcome(
            {},
            config_after,
            difference({}, config_after),
            plan(effective_after, self._store.settings(), Live()),
            EMPTY_RUNTIME,
            EMPTY_RUNTIME,
            effective_after,
            configuration.fingerprint,
        )

    @gc_paused()
    def _change(self, request: ChangeRequest) -> Outcome:
        """Carry out a change. The caller holds the lock, or asks for a check."""
        config_before = self._store.configuration()
        before = Configuration.from_document(config_before)
        if request.expected is not None and request.expected != before.fingerprint:
            raise ConditionNotMet(request.expected, before.fingerprint)
        config_after = request.edit(config_before)
        settings = self._store.settings()
        if settings.vip_mode == "address":
            addresses.check_interface(settings.vip_interface)
        runtime_before, rejected = self._store.read_runtime()
        after = before if config_after == config_before else Configuration.from_document(config_after, before)
        derived = Derived()
        effective_before = effective(before, runtime_before, derived)
        owned, generation = frozenset(self._store.vips()), runner.generation()
        snapshot_before = take_snapshot(before.fingerprint, settings, runtime_before, owned, generation)
        table = self._applied.read_table(snapshot_before, effective_before, settings, runtime_before, owned, derived)
        if table and request.replaces_table:
            table = replace(table, is_refused=True)
        live = Live(table, _read_addresses(settings, owned), owned)
        event = Event(before, after, time.time(), request.learned, request.slow_start, request.timeouts(config_after))
        runtime_after = transition(runtime_before, event, conntrack.count, derived)
        effective_after = effective(after, runtime_after, derived)
        if request.guard:
            request.guard(effective_before, effective_after, derived)
        kept = None if live.table is None or must_be_replaced(live.table, settings) else live.table
        # Without an agent that deals them, the kernel counts.
        is_dealing = runtime_before.dealt and agent_status.is_running(self._store)
        runtime_after = _with_limits(effective_after, kept, runtime_after, bool(is_dealing))
        outcome = Outcome(
            config_before,
            config_after,
            difference(config_before, config_after),
            plan(effective_after, settings, live, runtime_after, derived),
            runtime_before,
            runtime_after,
            effective_after,
            after.fingerprint,
        )
        outcome.rejected = rejected
        self._unfinished.read()
        if self._unfinished.exists:
            outcome.repairs = [repairs.INTERRUPTED]
        elif outcome.plan and self._applied.exists:
            is_asked_for = bool(outcome.difference) or (
                runtime_before.visible_in_kernel != runtime_after.visible_in_kernel
            )
            outcome.repairs = repairs.describe(outcome.plan, live, is_asked_for)
        if not request.check:
            snapshot = take_snapshot(after.fingerprint, settings, runtime_after, outcome.plan.owned, generation)
            try:
                self._apply(outcome, after, owned, snapshot, request.save_boot)
            except runner.NftFailed:
                if table is None or table.is_refused or self._applied.equals(snapshot_before):
                    raise
                # What another program has put in the table is in the way of the change.
                return self._change(replace(request, replaces_table=True))
        return outcome

    def _apply(
        self,
        outcome: Outcome,
        configuration: Configuration,
        owned_before: frozenset[Address],
        snapshot: Snapshot,
        save_boot: SaveBoot,
    ) -> None:
        """Bring files and kernel to the outcome, in the order that this file's first lines give.

        :param configuration: the configuration after.
        :param snapshot: of the outcome, with the kernel's generation before.
        """
        steps, files = outcome.plan, PendingFiles()
        saved = None if outcome.rejected else outcome.runtime_before
        is_boot_due = save_boot != SaveBoot.LATER and (
            outcome.changed or save_boot == SaveBoot.ALWAYS or not self._boot_files.are_intact(steps.owned)
        )
        try:
            try:
                if outcome.changed:
                    self._unfinished.write(steps)
                if is_boot_due:
                    self._boot_files.write(files, steps)
                if outcome.difference:
                    self._store.write_configuration(files, configuration)
                saved = self._record_intent(outcome, owned_before, saved)
                with addresses.added(steps.add):
                    if steps.transaction:
                        snapshot["generation"] += runner.apply(steps.transaction)
            except BaseException:
                self._withdraw_intent(outcome.runtime_before, owned_before)
                raise
            files.commit()
        finally:
            files.abandon()
            if is_boot_due or self._unfinished.exists:
                self._boot_files.remove_unused()
                self._store.remove_leftovers()
        conntrack.delete_unmarked(steps.new_destinations + self._unfinished.destinations(outcome.effective_after))
        addresses.announce(steps.add + self._unfinished.addresses(steps.owned))
        addresses.remove(steps.remove)
        conntrack.delete_flows(flows_to_delete(outcome.runtime_before, outcome.runtime_after))
        if steps.owned != frozenset(self._store.vips()):
            self._store.save_vips(steps.owned)
        if outcome.runtime_after != saved:
            self._store.save_runtime(outcome.runtime_after, saved)
        self._applied.save(snapshot)
        self._unfinished.remove()

    def _record_intent(
        self, outcome: Outcome, owned_before: frozenset[Address], saved: Runtime | None
    ) -> Runtime | None:
        """Write what must not be forgotten if the change dies while it changes the kernel.

        :param saved: the runtime state that the files hold.
        :returns: the runtime state that the files hold then.
        """
        before, after = outcome.runtime_before, outcome.runtime_after
        if not outcome.plan.owned <= owned_before:
            self._store.save_vips(outcome.plan.owned | owned_before)
        begun = {
            name: drain
            for name, drain in after.drains.items()
            # The drain of a pool follows from health, and a change of health must not wait for the disk.
            if drain.cause in (DrainCause.DRAINED, DrainCause.REMOVED) and before.drains.get(name) != drain
        }
        if begun:
            intended = replace(before, drains={**before.drains, **begun})
            self._store.save_runtime(intended, saved)
            saved = intended
        return saved

    def _withdraw_intent(self, runtime_before: Runtime, owned_before: frozenset[Address]) -> None:
        """Take back the note and what :meth:`_record_intent` wrote, because the kernel has not been changed."""
        # What cannot be taken back does no harm.
        with suppress(EvenflowError, OSError):
            if frozenset(self._store.vips()) != owned_before:
                self._store.save_vips(owned_before)
            saved = self._store.runtime()
            if saved != runtime_before:
                self._store.save_runtime(runtime_before, saved)
            self._unfinished.withdraw()

    def _read_part(self, is_chosen: Callable[[Listener], bool]) -> _Part:
        """Return a part of the configuration, computed once for each file.

        :param is_chosen: returns whether a listener belongs to the part; not a closure, because the part is kept by it.
        """
        stamp = self._store.stamp()
        if is_chosen not in self._parts or self._parts[is_chosen].stamp != stamp:
            configuration = Configuration.from_document(self._store.configuration())
            listeners = Configuration(tuple(filter(is_chosen, configuration.listeners)))
            self._parts[is_chosen] = _Part(stamp, configuration.fingerprint, listeners, backend_ids(configuration))
        return self._parts[is_chosen]


def _has_shares(listener: Listener) -> bool:
    return listener.is_least_conn


def _read_buckets(limits: Iterable[Limit]) -> dict[tuple[str, Any], Bucket]:
    return live_table.read_buckets(sorted({name for limit in limits for name in (limit.bucket_set, limit.spare_set)}))


def _left(limit: Limit, runtime: Runtime, buckets: Mapping[tuple[str, Any], Bucket]) -> Places | None:
    """Return the places of a limit that flows may still take; ``None`` if buckets are not in the kernel."""
    if limit.name not in runtime.dealt:
        return Places()
    dealing = Dealing(runtime.dealt[limit.name])
    main, spare = buckets.get((limit.bucket_set, limit.key)), buckets.get((limit.spare_set, limit.key))
    if main is None or (spare is None and dealing.uses_spare):
        return None
    return remaining(dealing, main, spare)


def _read_addresses(settings: Settings, owned: frozenset[Address]) -> frozenset[Address]:
    """Return the addresses on the interfaces where VIPs are or are to be."""
    interfaces = {address.interface for address in owned}
    if settings.vip_mode == "address":
        interfaces.add(settings.vip_interface)
    return addresses.read(interfaces)


def _with_limits(configuration: Configuration, kept: LiveTable | None, runtime: Runtime, is_dealing: bool) -> Runtime:
    """Return the runtime state with the limits whose places go on being dealt, and the flows that no limit counts.

    :param kept: the live table, if it is not replaced.
    """
    dealt = still_dealt(configuration, kept, runtime.dealt if is_dealing else {}, runtime.uncounted)
    left: dict[str, int] = {}
    if dealt != runtime.dealt:
        # The kernel has not counted their flows. The flows that may come until it does are counted as if they had.
        ended = {name: Dealing(each) for name, each in runtime.dealt.items() if name not in dealt}
        limits = {limit.name: limit for limit in limits_of(configuration) if limit.name in ended}
        buckets = _read_buckets(limits.values()) if kept else {}
        left = {
            name: remaining(
                ended[name], buckets.get((limit.bucket_set, limit.key)), buckets.get((limit.spare_set, limit.key))
            ).total
            for name, limit in limits.items()
            if ended[name] != Dealing.FIRST
        }
    numbers = uncounted(configuration, kept, runtime.uncounted, conntrack.count, dealt, left)
    return replace(runtime, dealt=dealt, uncounted=numbers)
