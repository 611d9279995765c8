# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node: reads what is, plans, applies, remembers. What modules do to a node, they do through this."""

from __future__ import annotations

import gc
import os
import socket
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Callable, Collection, Iterator, Mapping, Optional

from .._config.address import Address
from .._config.derived import Derived
from .._config.difference import Difference, difference
from .._config.document import Document
from .._config.edit import Edit
from .._config.identity import backend_ids
from .._config.model import Configuration
from .._config.settings import Settings
from .._errors import ConditionNotMet
from .._nft import live_table, runner
from .._nft.desired_table import desired_table
from .._nft.limits import uncounted
from .._nft.objects import LiveTable
from .._nft.parts import TABLE_COMMENT, parts
from .._nft.plan import Live, Plan, is_other_version, plan, redeal
from .._nft.static_rules import rules_digest
from .._nft.transaction import Transaction
from .._state.effective import effective
from .._state.health import Health
from .._state.runtime import EMPTY_RUNTIME, Runtime, Shares
from .._state.transition import Event, SlowStart, flows_to_delete, transition
from .._system import addresses, conntrack
from .._system.store import DEFAULT_CONFIG_DIR, Change, Store
from . import agent_status

_SO_NETNS_COOKIE = 71
_SHOWN, _SHOWN_STATEMENTS = 160, 6

Timeouts = Callable[[Document], Mapping[str, Optional[float]]]
Guard = Callable[[Configuration, Configuration], None]
"""Is given the configuration in force before and after; raises :class:`InvalidInput`."""


@dataclass
class Outcome:
    """What a change did, or would do.

    :ivar difference: between the two configurations.
    :ivar plan: what had to be done on the node.
    :ivar runtime_before: what the node had learned and begun before.
    :ivar runtime_after: what it has now.
    :ivar effective_after: the configuration after, in force.
    :ivar fingerprint: of the configuration after.
    :ivar repairs: what somebody else had changed, in words; nothing where it was for us to change.
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

    @property
    def changed(self) -> bool:
        """Whether the configuration or the node differs from before."""
        return bool(self.difference or self.plan)


@dataclass(frozen=True)
class _Known:
    """What follows from a configuration.

    :ivar stamp: tells the file that it stands in from any other.
    """

    stamp: Any
    fingerprint: str
    shared_out: Configuration
    ids: Mapping[tuple[str, str, int], int]


def _listeners_own(_after: Document) -> Mapping[str, float | None]:
    return {}


@contextmanager
def gc_paused() -> Iterator[None]:
    """Keep Python from looking for cycles among values that have none: with thousands of them it looks all the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            # What is left counts as old, so that it is not looked through right now.
            gc.freeze()
            gc.unfreeze()
            gc.enable()


class Node:
    """This machine as a load balancer.

    :param config_dir: the directory of its configuration.
    """

    def __init__(self, config_dir: str = DEFAULT_CONFIG_DIR) -> None:
        self._store = Store(config_dir)
        self._last_known: _Known | None = None

    def change(
        self,
        edit: Edit,
        check: bool = False,
        expected: str | None = None,
        timeouts: Timeouts = _listeners_own,
        guard: Guard | None = None,
    ) -> Outcome:
        """Change the configuration and bring the kernel to it, also where only the kernel differs.

        :param edit: gives the configuration after, from the one before.
        :param check: only say what would be done.
        :param expected: fingerprint that the configuration must have.
        :param timeouts: gives the time-outs of drains from the configuration after, see
            :func:`~.._state.transition.transition`.
        :param guard: refuses what it does not want to become of the configuration in force.
        :raises InvalidInput: the edit is refused; nothing was changed.
        :raises ConditionNotMet: the configuration has another fingerprint; nothing was changed.
        :raises NodeError: the node could not be read or changed; the last good state stands.
        """
        # What rises by the clock is the agent's: a run that is asked for nothing changes nothing.
        slow_start = SlowStart.HOLD if agent_status.is_running(self._store) else SlowStart.AT_ONCE
        with nullcontext() if check else self._store.lock():
            outcome = self._change(edit, check, expected, slow_start=slow_start, timeouts=timeouts, guard=guard)
        if not check and outcome.runtime_after.drains != outcome.runtime_before.drains and not outcome.difference:
            agent_status.wake_agent(self._store)
        return outcome

    @gc_paused()
    def _change(
        self,
        edit: Edit,
        check: bool = False,
        expected: str | None = None,
        learned: Mapping[str, Health] = MappingProxyType({}),
        save: bool | None = None,
        slow_start: SlowStart = SlowStart.RISE,
        timeouts: Timeouts = _listeners_own,
        guard: Guard | None = None,
    ) -> Outcome:
        """Carry out a change. The caller holds the lock, or only checks."""
        before = self._store.configuration()
        old = Configuration.from_document(before)
        if expected is not None and expected != old.fingerprint:
            raise ConditionNotMet(expected, old.fingerprint)
        after = edit(before)
        settings = self._store.settings()
        if settings.vip_mode == "address":
            addresses.check_interface(settings.vip_interface)
        known = self._store.runtime()
        new = old if after == before else Configuration.from_document(after, old)
        derived = Derived()
        past = effective(old, known, derived)
        owned, generation = frozenset(self._store.vips()), runner.generation()
        as_left = self._memory(old.fingerprint, settings, known, owned, generation)
        live = Live(
            self._table(past, settings, known, owned, as_left, derived), self._on_interfaces(settings, owned), owned
        )
        event = Event(old, new, time.time(), learned, slow_start, timeouts(after))
        runtime = transition(known, event, conntrack.count, derived)
        present = effective(new, runtime, derived)
        if guard:
            guard(past, present)
        runtime = replace(runtime, uncounted=_uncounted(present, live, runtime))
        wanted = plan(present, settings, live, runtime, derived)
        outcome = Outcome(before, after, difference(before, after), wanted, known, runtime, present, new.fingerprint)
        if outcome.plan and self._store.read_run("applied.json") is not None:
            outcome.repairs = _repairs(outcome, live)
        if not check:
            memory = self._memory(new.fingerprint, settings, runtime, wanted.owned, generation)
            self._apply(outcome, new, memory, save)
        return outcome

    def process_deadlines(self) -> None:
        """Do what time asks for, where no agent does it."""
        if not agent_status.is_running(self._store):
            with self._store.lock():
                outcome = self._change(_as_it_is, slow_start=SlowStart.AT_ONCE)
            self.end_flows(outcome)

    def end_flows(self, outcome: Outcome) -> None:
        """End what is to end at once, where no agent does it."""
        if outcome.runtime_after.ending and not agent_status.is_running(self._store):
            time.sleep(max(0.0, max(outcome.runtime_after.ending.values()) - time.time()))
            with self._store.lock():
                self._change(_as_it_is, slow_start=SlowStart.AT_ONCE)

    def reconcile(self, learned: Mapping[str, Health], save: bool) -> Outcome:
        """Bring the kernel to the configuration as health and time have it now.

        :param learned: the health of registrations.
        :param save: also bring up to date what boots; a change of health does not wait for the disk.
        :raises NodeError: the node could not be read or changed; the last good state stands.
        """
        with self._store.lock():
            return self._change(_as_it_is, learned=learned, save=save)

    def save_check_results(self, learned: Mapping[str, Health]) -> None:
        """Write down what checks have told, where it changes nothing."""
        with self._store.lock():
            known = self._store.runtime()
            health = {name: learned.get(name, one) for name, one in known.health.items()}
            self._store.save_runtime(replace(known, health=health), known)

    def redeal(self, choose: Callable[[Configuration, Mapping[tuple[str, str, int], int]], Shares]) -> bool:
        """Deal new shares to the listeners with lc and wlc, where the kernel is as it was left.

        :param choose: gives the shares, from those listeners and the ids of all backends.
        :returns: whether a table changed.
        :raises NodeError: the node could not be read or changed.
        """
        with self._store.lock():
            known = self._known()
            before = self._store.runtime()
            shared_out = effective(known.shared_out, before)
            after = replace(before, shares=choose(shared_out, known.ids))
            transaction = redeal(shared_out, known.ids, before, after)
            if not transaction:
                return False
            settings, owned = self._store.settings(), frozenset(self._store.vips())
            generation = runner.generation()
            remembered = self._store.read_run("applied.json")
            is_as_left = remembered == self._memory(known.fingerprint, settings, before, owned, generation)
            generation += runner.apply(transaction)
            self._store.save_runtime(after, before)
            if is_as_left and runner.generation() == generation:
                memory = self._memory(known.fingerprint, settings, after, owned, generation)
                self._store.write_run("applied.json", memory)
            return True

    def render(self, edit: Edit) -> Outcome:
        """Say what a node without any listener would be given; nothing is read from the kernel or written."""
        after = edit({})
        configuration = Configuration.from_document(after)
        present = effective(configuration, EMPTY_RUNTIME)
        wanted = plan(present, self._store.settings(), Live())
        nothing = EMPTY_RUNTIME
        return Outcome({}, after, difference({}, after), wanted, nothing, nothing, present, configuration.fingerprint)

    def configuration(self) -> Document:
        """Return the configuration as it stands."""
        return self._store.configuration()

    def settings(self) -> Settings:
        """Return the node's own settings."""
        return self._store.settings()

    def runtime(self) -> Runtime:
        """Return what the node has learned and begun."""
        return self._store.runtime()

    def flows(self, marks: Collection[int]) -> dict[int, int]:
        """Count the active flows of backend ids."""
        return conntrack.count(marks)

    def packets_out(self) -> dict[int, int]:
        """Count the packets that have come from backends, by id."""
        return {mark: packets for mark, (packets, _bytes) in live_table.read_counters("acct_out").items()}

    def agent(self) -> dict[str, Any]:
        """Tell whether the agent runs, and what it says of itself."""
        return agent_status.read(self._store)

    def _apply(self, outcome: Outcome, wanted: Configuration, memory: dict[str, Any], save: bool | None) -> None:
        if outcome.changed or save:
            files = self._store.change()
            try:
                if outcome.difference:
                    files.configuration(wanted)
                if save is not False:
                    _boot_files(files, outcome.plan)
                with addresses.added(outcome.plan.add):
                    if outcome.plan.transaction:
                        memory["generation"] += runner.apply(outcome.plan.transaction)
                files.commit()
            finally:
                files.abandon()
            conntrack.delete_unmarked(outcome.plan.new_destinations)
            addresses.announce(outcome.plan.add)
            addresses.remove(outcome.plan.remove)
        conntrack.delete_flows(flows_to_delete(outcome.runtime_before, outcome.runtime_after))
        if outcome.runtime_after != outcome.runtime_before:
            self._store.save_runtime(outcome.runtime_after, outcome.runtime_before)
        # Somebody else's transaction in between would be taken for ours: then remember nothing.
        if runner.generation() == memory["generation"] and self._store.read_run("applied.json") != memory:
            self._store.write_run("applied.json", memory)

    def _table(
        self,
        present: Configuration,
        settings: Settings,
        runtime: Runtime,
        owned: frozenset[Address],
        as_left: dict[str, Any],
        derived: Derived,
    ) -> LiveTable | None:
        """Return our table: from memory as long as nobody has touched nftables since we did, else from the kernel."""
        if self._store.read_run("applied.json") != as_left:
            return live_table.read_table()
        return desired_table(present, settings, {vip.address for vip in owned}, runtime, derived).as_live()

    def _on_interfaces(self, settings: Settings, owned: frozenset[Address]) -> frozenset[Address]:
        interfaces = {address.interface for address in owned}
        if settings.vip_mode == "address":
            interfaces.add(settings.vip_interface)
        return addresses.read(interfaces)

    def _known(self) -> _Known:
        """Return what follows from the configuration alone, worked out once for each."""
        stamp = self._store.stamp()
        if self._last_known is None or self._last_known.stamp != stamp:
            document = self._store.configuration()
            configuration = Configuration.from_document(document)
            shared_out = Configuration(tuple(one for one in configuration.listeners if one.is_least_conn))
            self._last_known = _Known(stamp, configuration.fingerprint, shared_out, backend_ids(configuration))
        return self._last_known

    def _memory(
        self, name: str, settings: Settings, runtime: Runtime, owned: frozenset[Address], generation: int
    ) -> dict[str, Any]:
        return {
            "network": _network_namespace(),
            "rules": rules_digest(),
            "generation": generation,
            "fingerprint": name,
            "settings": asdict(settings),
            "owned": sorted(f"{vip.prefix} {vip.interface}" for vip in owned),
            "runtime": runtime.visible_in_kernel,
        }


def _as_it_is(before: Document) -> Document:
    return before


def _repairs(outcome: Outcome, live: Live) -> list[str]:
    found = []
    if live.table is None:
        found.append("the table inet evenflow was gone; it is back")
    elif is_other_version(live.table):
        found.append("the table inet evenflow had other rules; it is built anew")
    if outcome.difference or outcome.runtime_before.visible_in_kernel != outcome.runtime_after.visible_in_kernel:
        return found
    found += [f"{vip.prefix} was gone from {vip.interface}; it is back" for vip in outcome.plan.add]
    if not found and outcome.plan.transaction:
        statements = outcome.plan.transaction.lines()
        shown = [text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …" for text in statements[:_SHOWN_STATEMENTS]]
        more = len(statements) - len(shown)
        found.append(f"the table was changed; done: {'; '.join(shown)}{f' and {more} more' if more else ''}")
    return found


def _uncounted(configuration: Configuration, live: Live, runtime: Runtime) -> dict[str, int]:
    kept = None if live.table is None or is_other_version(live.table) else live.table
    return uncounted(configuration, kept, runtime.uncounted, conntrack.count)


def _boot_files(files: Change, wanted: Plan) -> None:
    head = Transaction()
    head.add_table(TABLE_COMMENT)
    head.delete_table()
    files.restore(parts(wanted.boot), head)
    files.vips(wanted.owned)


def _network_namespace() -> str:
    """Name the network namespace in a way that no other one has, before the next boot or after."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            cookie = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8).hex()
        except OSError:
            cookie = "before 5.14"
    return f"{boot} {cookie} {os.stat('/proc/self/ns/net').st_ino}"
