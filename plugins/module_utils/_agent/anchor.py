# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table that only this process can delete, so that flows live on when somebody flushes all the others.

As long as it is there the kernel keeps translating what it has translated (measured on 6.18: without it a flush resets
every flow to an address of the node itself). Until our own table is back it drops new packets to the listeners, which
would reach the node's own stack: a client that is dropped tries again, one that is reset fails.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

from .._config.identity import ANCHOR, OURS
from .._config.model import Configuration
from .._errors import NodeError
from .._nft.objects import FAMILY
from .._nft.runner import nft_program
from .._nft.static_rules import dispatch_key
from .._nft.transaction import element_text

NAME = "evenflow_anchor"

_AT_ONCE = 2000
"""Elements in one line."""

_SETS = {
    name.format(family): declaration.format(address)
    for name, declaration in {
        "listeners{}": "type {} . inet_proto . inet_service;",
        "ranges{}": "type {} . inet_proto . inet_service; flags interval;",
        "allports{}": "type {} . inet_proto;",
        "anyproto{}": "type {};",
    }.items()
    for family, address in (("4", "ipv4_addr"), ("6", "ipv6_addr"))
}

_MATCHES = {
    "listeners": "{ip} daddr . meta l4proto . th dport",
    "ranges": "{ip} daddr . meta l4proto . th dport",
    "allports": "{ip} daddr . meta l4proto",
    "anyproto": "{ip} daddr",
}


class Anchor:
    """The table, held by an nft of its own for as long as this process lives."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._held: dict[str, set[Any]] = {}

    def hold(self, configuration: Configuration) -> None:
        """Hold the table for these listeners.

        :raises NodeError: nft does not run.
        """
        wanted: dict[str, set[Any]] = {name: set() for name in _SETS}
        for listener in configuration.listeners:
            for ports in listener.ports:
                name, key = dispatch_key(listener, ports)
                wanted[name].add(key)
        if not self._process or self._process.poll() is not None:
            self._start()
        for name, keys in wanted.items():
            self._say_elements("delete", name, self._held[name] - keys)
            self._say_elements("add", name, keys - self._held[name])
        self._held = wanted

    def errors(self) -> str:
        """Return what nft has said since the last time; it says something only if it refuses."""
        if not self._process or not self._process.stdout:
            return ""
        try:
            return os.read(self._process.stdout.fileno(), 65536).decode("utf-8", "replace").strip()
        except BlockingIOError:
            return ""

    def close(self) -> None:
        """Let go of the table."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> None:
        self.close()
        # In a session of its own, so that a signal to the agent's group does not take it away first.
        # The agent has no module's run_command, and the process stays.
        self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            [nft_program(), "-i"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Nowhere to write a history to.
            env={"HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        if self._process.stdout:
            os.set_blocking(self._process.stdout.fileno(), False)
        self._held = {name: set() for name in _SETS}
        statements = [f"add table {FAMILY} {NAME} {{ flags owner; }}"]
        statements += [f"add set {FAMILY} {NAME} {name} {{ {declaration} }}" for name, declaration in _SETS.items()]
        statements.append(f"add chain {FAMILY} {NAME} held")
        for name in _SETS:
            match = _MATCHES[name[:-1]].format(ip="ip6" if name[-1] == "6" else "ip")
            statements.append(f"add rule {FAMILY} {NAME} held {match} @{name} drop")
        nat = f"add chain {FAMILY} {NAME} nat {{ type nat hook prerouting priority 90; policy accept; }}"
        statements += [nat, f"add rule {FAMILY} {NAME} nat ct mark {ANCHOR:#010x} counter"]
        for hook in ("prerouting", "output"):
            chain = f"add chain {FAMILY} {NAME} late_{hook}"
            statements.append(f"{chain} {{ type filter hook {hook} priority -80; policy accept; }}")
            rule = f"ct state new ct mark & {OURS:#010x} == 0 jump held"
            statements.append(f"add rule {FAMILY} {NAME} late_{hook} {rule}")
        self._say("; ".join(statements))

    def _say_elements(self, verb: str, name: str, keys: set[Any]) -> None:
        found = sorted(element_text(key) for key in keys)
        for begin in range(0, len(found), _AT_ONCE):
            self._say(f"{verb} element {FAMILY} {NAME} {name} {{ {', '.join(found[begin : begin + _AT_ONCE])} }}")

    def _say(self, line: str) -> None:
        if not self._process or not self._process.stdin:
            raise NodeError("nft -i: does not run")
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except OSError as error:
            raise NodeError(f"nft -i: {error.strerror}") from error
