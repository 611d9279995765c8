# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table that only this process can delete, so that flows survive when another program flushes all other tables.

While it exists the kernel keeps translating the packets of established flows (measured on 6.18: without it a flush
resets every flow to an address of the node itself). Until the table of the listeners is back, the anchor drops new and
invalid packets to them, which would reach the node's own stack: a client whose packet is dropped sends it again, but a
client whose connection is reset fails.

The anchor drops before the chains of the other table reject what no listener serves: a packet that has passed the hook
for NAT just before the table is back, and those chains just after, must not be rejected.

The nft process may be slow, or hang: nothing here waits for it. Each change is followed by a question that nft answers
without the kernel, so that a missing answer shows that it hangs.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import suppress
from typing import Any, Callable

from .._config.identity import ANCHOR, OURS
from .._config.model import Configuration
from .._nft.objects import FAMILY
from .._nft.runner import nft_program
from .._nft.static_rules import dispatch_key
from .._nft.transaction import element_text

NAME = "evenflow_anchor"

ANSWER_SECONDS = 30.0
"""How long nft may take for a change of the table before it is ended and started again."""

_END_SECONDS = 5.0
"""How long to wait for the end of a process that has been killed."""

_QUESTION = "describe mark"
_ANSWER = b"meta expression, datatype mark "

_ELEMENTS_PER_LINE = 2000

_PRIORITY = -95
"""After the chains that translate, and before those that reject what no listener serves."""

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
    """The anchor table, owned by an nft process that runs for as long as this process does. Use it in an event loop.

    :ivar failed: called with the reason when the table is not as it should be. :meth:`hold` builds it anew.
    """

    def __init__(self) -> None:
        self.failed: Callable[[str], None] = lambda reason: None
        self._process: subprocess.Popen[bytes] | None = None
        self._elements: dict[str, set[Any]] = {}
        self._unsent = bytearray()
        self._received = b""
        self._errors: list[str] = []
        self._has_failed = False
        self._awaited = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_current(self) -> bool:
        """Whether nft has carried out all changes without an error."""
        return self._process is not None and not self._awaited and not self._has_failed

    def hold(self, configuration: Configuration) -> None:
        """Begin to create the table or to bring it to these listeners.

        :raises NodeError: nft cannot be started.
        """
        elements: dict[str, set[Any]] = {name: set() for name in _SETS}
        for listener in configuration.listeners:
            for ports in listener.ports:
                name, key = dispatch_key(listener, ports)
                elements[name].add(key)
        lines = []
        if self._process is None or self._has_failed:
            self._start()
            lines += _creation()
        for name, keys in elements.items():
            lines += _changes("delete", name, self._elements[name] - keys)
            lines += _changes("add", name, keys - self._elements[name])
        self._elements = elements
        if lines:
            self._send(lines)

    def close(self) -> None:
        """End nft, with which the kernel deletes the table."""
        if self._timer:
            self._timer.cancel()
        if self._process:
            loop = asyncio.get_running_loop()
            for pipe in filter(None, (self._process.stdin, self._process.stdout)):
                loop.remove_reader(pipe.fileno())
                loop.remove_writer(pipe.fileno())
                pipe.close()
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
            self._process = None

    def _start(self) -> None:
        self.close()
        # The session keeps signals for the agent's process group away from nft, which has to end last.
        # A module's run_command is not available here, and it would wait for the process to end.
        self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            [nft_program(), "-i"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # This keeps nft from writing a history.
            env={"HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        self._elements = {name: set() for name in _SETS}
        self._unsent, self._received, self._errors = bytearray(), b"", []
        self._has_failed, self._awaited = False, 0
        if self._process.stdin and self._process.stdout:
            os.set_blocking(self._process.stdin.fileno(), False)
            os.set_blocking(self._process.stdout.fileno(), False)
            asyncio.get_running_loop().add_reader(self._process.stdout.fileno(), self._read)

    def _send(self, lines: list[str]) -> None:
        self._unsent += "".join(f"{line}\n" for line in [*lines, _QUESTION]).encode("ascii")
        self._awaited += 1
        if self._awaited == 1:
            self._wait_for_answer()
        self._write()

    def _write(self) -> None:
        if not self._process or not self._process.stdin:
            return
        loop, descriptor = asyncio.get_running_loop(), self._process.stdin.fileno()
        loop.remove_writer(descriptor)
        try:
            while self._unsent:
                del self._unsent[: os.write(descriptor, self._unsent)]
        except BlockingIOError:
            loop.add_writer(descriptor, self._write)
        except OSError as error:
            self._fail(f"nft -i: {error.strerror}")

    def _read(self) -> None:
        if not self._process or not self._process.stdout:
            return
        try:
            received = os.read(self._process.stdout.fileno(), 65536)
        except BlockingIOError:
            return
        if not received:
            self._fail(" ".join([*self._errors, "nft -i has ended"]))
            return
        *lines, self._received = (self._received + received).split(b"\n")
        for line in lines:
            if line.startswith(_ANSWER):
                self._answered()
            else:
                self._errors.append(line.decode("utf-8", "replace").strip())

    def _answered(self) -> None:
        self._awaited -= 1
        self._wait_for_answer()
        if self._errors:
            # The table still keeps the kernel's hooks, until it is built anew.
            reason, self._errors, self._has_failed = " ".join(self._errors), [], True
            self.failed(f"nft -i: {reason}")

    def _wait_for_answer(self) -> None:
        """Expect the next answer within :data:`ANSWER_SECONDS` from now."""
        if self._timer:
            self._timer.cancel()
        if self._awaited:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(ANSWER_SECONDS, self._fail, f"nft -i: no answer within {ANSWER_SECONDS:g} s")

    def _fail(self, reason: str) -> None:
        self.close()
        self.failed(reason)


def _creation() -> list[str]:
    """Return the lines that create the table without elements."""
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
        statements.append(f"{chain} {{ type filter hook {hook} priority {_PRIORITY}; policy accept; }}")
        # Invalid packets carry no mark, so they have a rule of their own.
        for selected in ("ct state invalid", f"ct state new ct mark & {OURS:#010x} == 0"):
            statements.append(f"add rule {FAMILY} {NAME} late_{hook} {selected} jump held")
    return ["; ".join(statements)]


def _changes(verb: str, name: str, keys: set[Any]) -> list[str]:
    texts = sorted(element_text(key) for key in keys)
    return [
        f"{verb} element {FAMILY} {NAME} {name} {{ {', '.join(texts[begin : begin + _ELEMENTS_PER_LINE])} }}"
        for begin in range(0, len(texts), _ELEMENTS_PER_LINE)
    ]
