# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Observers of a node, which prove at their end that they have missed nothing: each sees an event that it caused."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import count
from tempfile import TemporaryFile
from types import TracebackType

from .nodes import Node
from .process import Background
from .waiting import wait_until

_numbers = count()


class ObserverEnded(Exception):
    """An observer ended or lost events, so its output is not complete."""


class Observer:
    """A program on a node that prints a line for each event, as a `with` block.

    The block begins when the program has seen an event that the observer caused. `finish` causes another one and waits
    until the program has seen that too, so it has seen everything before.
    """

    def __init__(self, node: Node, command: Sequence[str]) -> None:
        self._node = node
        self._command = list(command)
        self._output = TemporaryFile("w+", encoding="utf-8")
        self._process: Background | None = None

    def __enter__(self) -> Observer:
        self._process = self._node.start(self._command, output=self._output)
        marks: list[str] = []

        def has_begun() -> bool:
            # It is unknown when the program begins to listen, so an event may be too early.
            marks.append(self._cause())
            return any(self._has_seen(mark) for mark in marks)

        wait_until(has_begun, f"{' '.join(self._command)} sees an event")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def lines(self) -> list[str]:
        """Return the lines so far, without the observer's own events. Raise ObserverEnded if the program has ended."""
        return [line for line in self._complete_lines() if line and not self._is_own(line)]

    def finish(self) -> list[str]:
        """Return all lines of events before this call. Raise ObserverEnded unless the program saw them all."""
        mark = self._cause()
        wait_until(lambda: self._has_seen(mark), f"{' '.join(self._command)} sees the last event")
        lines = self.lines()
        self._end()
        return lines

    def _cause(self) -> str:
        """Cause an event and return a text that only the line of this event has."""
        raise NotImplementedError

    def _is_own(self, line: str) -> bool:
        """Return whether a line is about an event that an observer caused."""
        raise NotImplementedError

    def _has_seen(self, mark: str) -> bool:
        return any(mark in line for line in self._complete_lines())

    def _complete_lines(self) -> list[str]:
        assert self._process
        if self._process.poll() is not None:
            raise ObserverEnded(f"{' '.join(self._command)}: ended with {self._process.returncode}: {self._printed()}")
        return self._printed().split("\n")[:-1]

    def _printed(self) -> str:
        """Return the text of the file without moving the place where the program writes, which both share."""
        descriptor = self._output.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode("utf-8", "replace")

    def _end(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None


class TableWatch(Observer):
    """Changes of the load balancer's table on a node; a line has seconds since the epoch and the statement."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, ["python3", "-u", "/opt/lab/watch_table.py"])

    def _cause(self) -> str:
        name = f"watched{next(_numbers)}"
        self._node.run(["nft", f"add table inet {name}; delete table inet {name}"])
        return f"add table inet {name}"

    def _is_own(self, line: str) -> bool:
        return " table inet watched" in line


class Sniffer(Observer):
    """Packets that come in on a node's interface and match an expression, as tcpdump prints them.

    `beside` is a node on the same network, which sends the observer's own packets.
    """

    def __init__(self, node: Node, interface: str, expression: str, beside: Node) -> None:
        own = "ip and udp dst portrange 9000-9999"
        super().__init__(node, ["tcpdump", "-i", interface, "-nn", "-l", "-Q", "in", f"({expression}) or ({own})"])
        self._address = next(nic.v4 for nic in node.spec.nics if nic.network.name == interface)
        self._beside = beside

    def finish(self) -> list[str]:
        """Return all lines of events before this call. Raise ObserverEnded unless the program saw them all."""
        lines = super().finish()
        # tcpdump prints the number of lost packets when it ends.
        summary = wait_until(self._printed, "tcpdump ends", accepts=lambda text: "dropped by kernel" in text)
        if "\n0 packets dropped by kernel" not in summary:
            raise ObserverEnded(f"{' '.join(self._command)}: {summary[-300:]}")
        return lines

    def _cause(self) -> str:
        port = 9000 + next(_numbers) % 1000
        self._beside.run(["bash", "-c", f"echo >/dev/udp/{self._address}/{port}"])
        return f".{port}: UDP"

    def _is_own(self, line: str) -> bool:
        return line.startswith(("tcpdump: ", "listening on ")) or bool(re.search(r"\.9\d\d\d: UDP", line))
