# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table that only this process can delete, so that flows survive when another program flushes all other tables.

While it exists the kernel keeps translating the packets of established flows (measured on 6.18: without it a flush
resets every flow to an address of the node itself). Until the table of the listeners is back, the anchor drops new
packets to them, which would reach the node's own stack: a client whose packet is dropped sends it again, but a client
whose connection is reset fails.
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

_ELEMENTS_PER_LINE = 2000

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
    """The anchor table, owned by an nft process that runs for as long as this process does."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._elements: dict[str, set[Any]] = {}

    def hold(self, configuration: Configuration) -> None:
        """Create the table or bring it to these listeners.

        :raises NodeError: nft cannot be started or has ended.
        """
        elements: dict[str, set[Any]] = {name: set() for name in _SETS}
        for listener in configuration.listeners:
            for ports in listener.ports:
                name, key = dispatch_key(listener, ports)
                elements[name].add(key)
        if not self._process or self._process.poll() is not None:
            self._start()
        for name, keys in elements.items():
            self._change_elements("delete", name, self._elements[name] - keys)
            self._change_elements("add", name, keys - self._elements[name])
        self._elements = elements

    def errors(self) -> str:
        """Return what nft has written since the last call. It writes only errors."""
        if not self._process or not self._process.stdout:
            return ""
        try:
            return os.read(self._process.stdout.fileno(), 65536).decode("utf-8", "replace").strip()
        except BlockingIOError:
            return ""

    def close(self) -> None:
        """End nft, with which the kernel deletes the table."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> None:
        self.close()
        # The session keeps signals for the agent's process group away from nft, which has to end last.
        # A module's run_command is not available here, and it would wait for the process to end.
        self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            [nft_program(), "-i"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # This keeps nft from writing a history.
            env={"HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        if self._process.stdout:
            os.set_blocking(self._process.stdout.fileno(), False)
        self._elements = {name: set() for name in _SETS}
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
        self._send("; ".join(statements))

    def _change_elements(self, verb: str, name: str, keys: set[Any]) -> None:
        texts = sorted(element_text(key) for key in keys)
        for begin in range(0, len(texts), _ELEMENTS_PER_LINE):
            elements = ", ".join(texts[begin : begin + _ELEMENTS_PER_LINE])
            self._send(f"{verb} element {FAMILY} {NAME} {name} {{ {elements} }}")

    def _send(self, line: str) -> None:
        if not self._process or not self._process.stdin:
            raise NodeError("nft -i: it is not running")
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except OSError as error:
            raise NodeError(f"nft -i: {error.strerror}") from error
