# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fake of nft that runs the library's transactions in memory and refuses what the kernel refuses."""

from __future__ import annotations

import copy
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import (
    Element,
    LiveChain,
    LiveTable,
    Set,
    SetKind,
    Timed,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.transaction import Transaction


class NftRefused(Exception):
    """Raised for a statement that the kernel would refuse; the message is the reason."""


@dataclass
class FakeSet:
    """A set or map with a declaration and elements by key."""

    kind: str
    declaration: str
    elements: dict[Any, Any] = field(default_factory=dict)


@dataclass
class FakeChain:
    """A chain with a hook and rules as (text, comment)."""

    hook: str
    rules: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class FakeTable:
    """The content of a table.

    :ivar is_dormant: whether another program has switched it off.
    """

    comment: str
    sets: dict[str, FakeSet] = field(default_factory=dict)
    chains: dict[str, FakeChain] = field(default_factory=dict)
    timeouts: dict[str, str] = field(default_factory=dict)
    is_dormant: bool = False


class FakeNft:
    """A kernel that holds no table but the library's.

    :ivar table: the table, or ``None`` if it does not exist.
    :ivar runs: the statements of each transaction that took effect.
    """

    def __init__(self) -> None:
        self.table: FakeTable | None = None
        self.runs: list[list[str]] = []

    def run(self, text: str | Transaction) -> None:
        """Run a transaction as a whole, or change nothing.

        :raises NftRefused: if the kernel would refuse a statement.
        """
        statements = (text.text() if isinstance(text, Transaction) else text).splitlines()
        before = copy.deepcopy(self.table)
        try:
            for statement in statements:
                if not statement.startswith("#"):
                    self._statement(statement)
        except NftRefused:
            self.table = before
            raise
        self.runs.append(statements)

    def read_table(self) -> LiveTable | None:
        """Return the live table, or ``None``."""
        if self.table is None:
            return None
        chains = {
            name: LiveChain(tuple(comment for _rule, comment in chain.rules), chain.hook)
            for name, chain in self.table.chains.items()
        }
        sets = {
            name: Set(SetKind(each.kind), "", _listed(each.elements), size=_size(each.declaration))
            for name, each in self.table.sets.items()
        }
        return LiveTable(chains, sets, set(self.table.timeouts), self.table.is_dormant)

    def _statement(self, statement: str) -> None:
        for pattern, act in _STATEMENTS:
            match = pattern.fullmatch(statement)
            if match:
                act(self, *match.groups())
                return
        raise NftRefused(f"syntax error: {statement}")

    def _existing_table(self, statement: str) -> FakeTable:
        if self.table is None:
            raise NftRefused(f"no table: {statement}")
        return self.table

    def _add_table(self, comment: str) -> None:
        self.table = self.table or FakeTable(comment)
        self.table.is_dormant = False

    def _delete_table(self) -> None:
        self._existing_table("delete table")
        self.table = None

    def _add_set(self, kind: str, name: str, declaration: str) -> None:
        table = self._existing_table(name)
        fake_set = table.sets.setdefault(name, FakeSet(kind, declaration))
        if (fake_set.kind, fake_set.declaration) != (kind, declaration):
            raise NftRefused(f"{name} exists with another declaration")

    def _delete_set(self, kind: str, name: str) -> None:
        table = self._existing_table(name)
        if name not in table.sets or table.sets[name].kind != kind:
            raise NftRefused(f"no {kind} {name}")
        for chain in table.chains.values():
            if any(name in re.findall(r"@(\S+)", rule) for rule, _comment in chain.rules):
                raise NftRefused(f"{name} is busy: a rule refers to it")
        del table.sets[name]

    def _add_timeout(self, name: str, declaration: str) -> None:
        if self._existing_table(name).timeouts.setdefault(name, declaration) != declaration:
            raise NftRefused(f"{name} exists with another declaration")

    def _delete_timeout(self, name: str) -> None:
        table = self._existing_table(name)
        if name not in table.timeouts:
            raise NftRefused(f"no ct timeout {name}")
        if any(f'"{name}"' in rule for chain in table.chains.values() for rule, _comment in chain.rules):
            raise NftRefused(f"{name} is busy: a rule refers to it")
        del table.timeouts[name]

    def _add_chain(self, name: str, hook: str | None) -> None:
        table = self._existing_table(name)
        chain = table.chains.setdefault(name, FakeChain(hook or ""))
        if chain.hook != (hook or ""):
            raise NftRefused(f"{name} exists with another hook")

    def _flush_chain(self, name: str) -> None:
        self._chain(name).rules.clear()

    def _delete_chain(self, name: str) -> None:
        self._chain(name)
        table = self._existing_table(name)
        for other, chain in table.chains.items():
            if other != name and any(name in _targets(rule) for rule, _comment in chain.rules):
                raise NftRefused(f"{name} is busy: a rule of {other} goes there")
        for other, fake_set in table.sets.items():
            if any(name in _targets(str(value)) for value in fake_set.elements.values()):
                raise NftRefused(f"{name} is busy: an element of {other} goes there")
        del table.chains[name]

    def _add_rule(self, name: str, rule: str, comment: str) -> None:
        table = self._existing_table(name)
        # `@th,offset,length` are bits of the packet.
        for used in re.findall(r"@(?!th,)(\S+)", rule):
            if used not in table.sets:
                raise NftRefused(f"no set {used} for {rule}")
        for used in re.findall(r'ct timeout set "(\S+)"', rule):
            if used not in table.timeouts:
                raise NftRefused(f"no ct timeout {used} for {rule}")
        for target in _targets(rule):
            self._chain(target)
        self._chain(name).rules.append((rule, comment))

    def _add_elements(self, name: str, written: str) -> None:
        fake_set = self._set(name)
        for element in written.split(", "):
            key, parsed = _element(element)
            for target in _targets(str(parsed)):
                self._chain(target)
            if (parsed is None or isinstance(parsed, Element)) != (fake_set.kind == "set"):
                raise NftRefused(f"{element} does not fit {fake_set.kind} {name}")
            if "flags interval" in fake_set.declaration and " . " not in fake_set.declaration:
                if any(_overlap(key, other) for other in fake_set.elements if other != key):
                    raise NftRefused(f"{name}: {key} overlaps another interval")
            if fake_set.elements.setdefault(key, parsed) != parsed:
                raise NftRefused(f"{name}: {key} exists with another value")

    def _delete_elements(self, name: str, written: str) -> None:
        fake_set = self._set(name)
        for key in written.split(", "):
            if _value(key) not in fake_set.elements:
                raise NftRefused(f"{name}: there is no {key}")
            del fake_set.elements[_value(key)]

    def _chain(self, name: str) -> FakeChain:
        chain = self._existing_table(name).chains.get(name)
        if chain is None:
            raise NftRefused(f"no chain {name}")
        return chain

    def _set(self, name: str) -> FakeSet:
        fake_set = self._existing_table(name).sets.get(name)
        if fake_set is None:
            raise NftRefused(f"no set {name}")
        return fake_set


def _overlap(one: str, other: str) -> bool:
    (first, last), (other_first, other_last) = _bounds(one), _bounds(other)
    return first <= other_last and other_first <= last


def _bounds(interval: str) -> tuple[int, int]:
    """Return the first and the last address of an interval."""
    first, _hyphen, last = interval.partition("-")
    network = ipaddress.ip_network(first)
    return int(network.network_address), int(ipaddress.ip_address(last) if last else network.broadcast_address)


def _targets(text: str) -> list[str]:
    return re.findall(r"\b(?:goto|jump) (\S+)", text)


def _element(text: str) -> tuple[Any, Any]:
    """Split an element into the key and the value that the library uses for them."""
    key, _colon, value = text.partition(" : ")
    timed = re.fullmatch(r"(.+) timeout (\d+)s expires (\d+)s", key)
    if timed:
        return _value(timed[1]), Timed(_value(value), int(timed[2]), int(timed[3]))
    limited = re.fullmatch(r"(\S+) (ct count over \d+|(?:counter )?limit rate over 1/week burst \d+ packets)", key)
    if limited:
        return _value(limited[1]), Element(limited[2])
    return _value(key), _value(value) if value else None


def _listed(elements: dict[Any, Any]) -> dict[Any, Any]:
    """Return elements as nft lists them: its JSON does not show limits of a rate."""
    return {
        key: None if isinstance(value, Element) and "limit rate" in value.statement else value
        for key, value in elements.items()
    }


def _size(declaration: str) -> int:
    size = re.search(r"\bsize (\d+);", declaration)
    return int(size[1]) if size else 0


def _value(text: str) -> Any:
    parts = [int(part, 0) if re.fullmatch(r"0x[0-9a-f]{8}|[0-9]+", part) else part for part in text.split(" . ")]
    return parts[0] if len(parts) == 1 else tuple(parts)


_OURS = "inet evenflow"
_STATEMENTS = [
    (re.compile(pattern), act)
    for pattern, act in (
        (rf'add table {_OURS} {{ comment "([^"]*)"; }}', FakeNft._add_table),
        (rf"delete table {_OURS}", FakeNft._delete_table),
        (rf"add (set|map) {_OURS} (\S+) {{ (.*) }}", FakeNft._add_set),
        (rf"delete (set|map) {_OURS} (\S+)", FakeNft._delete_set),
        (rf"add ct timeout {_OURS} (\S+) {{ (.*) }}", FakeNft._add_timeout),
        (rf"delete ct timeout {_OURS} (\S+)", FakeNft._delete_timeout),
        (rf"add chain {_OURS} (\S+)(?: {{ (.*) }})?", FakeNft._add_chain),
        (rf"flush chain {_OURS} (\S+)", FakeNft._flush_chain),
        (rf"delete chain {_OURS} (\S+)", FakeNft._delete_chain),
        (rf'add rule {_OURS} (\S+) (.*) comment "([^"]*)"', FakeNft._add_rule),
        (rf"add element {_OURS} (\S+) {{ (.+) }}", FakeNft._add_elements),
        (rf"delete element {_OURS} (\S+) {{ (.+) }}", FakeNft._delete_elements),
    )
]
