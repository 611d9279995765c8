# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client's traffic: start `load.py` on a node and read the record of every flow."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from tempfile import TemporaryFile
from typing import Literal

from .nodes import Node
from .waiting import PATIENCE, wait_until

Mode = Literal["http", "udp", "stream", "dns"]
Flow = tuple[Literal["tcp", "udp"], str, int, str, int]

_PROGRAM = ("python3", "/opt/lab/load.py")


@dataclass(frozen=True)
class Record:
    """The result of one flow; times are in seconds. `kind`: http, udp, tcp (by tuple), stream, stream-open."""

    t: float
    kind: str
    target: str
    ok: bool
    backend: str | None
    peer: str | None
    peer_port: int | None
    source: str | None
    sport: int | None
    error: str | None
    seconds: float
    bytes: int | None


def run_load(node: Node, mode: Mode, targets: Sequence[str], **options: float | int | str | bool) -> list[Record]:
    """Run traffic to its end. Options are those of load.py, e.g. rate=200, seconds=10, count=600, fixed=True.

    A target is `address:port` or `[address]:port`. Failed flows have records too. Raise CommandFailed if the program
    itself fails.
    """
    limit = 120 + float(options.get("seconds", 60))
    return parse(node.run(_arguments(mode, targets, options), timeout=limit).stdout)


class LoadEnded(Exception):
    """Traffic without an end had ended before `finish`, so that it did not observe everything."""


class Load:
    """Running traffic. Its records go to a file, because a pipe that is not read would stop it."""

    def __init__(self, node: Node, arguments: Sequence[str], *, is_endless: bool) -> None:
        self.is_endless = is_endless
        self._output = TemporaryFile("w+", encoding="utf-8")
        self._process = node.start(arguments, stdin=is_endless, output=self._output)
        _running.add(self)

    def records(self) -> list[Record]:
        """Return the records so far."""
        return parse(self._printed().rpartition("\n")[0])

    def expect_running(self) -> None:
        """Raise LoadEnded unless the traffic still runs."""
        if self._process.poll() is not None:
            raise LoadEnded(f"ended with {self._process.returncode}: {self._printed()[-2000:]}")

    def end(self, timeout: float) -> list[Record]:
        """End endless traffic, or wait for the end of other traffic, and return all records."""
        if self.is_endless:
            self.expect_running()
            assert self._process.stdin
            self._process.stdin.close()
        self._process.wait(timeout)
        _running.discard(self)
        if self._process.returncode:
            raise LoadEnded(f"ended with {self._process.returncode}: {self._printed()[-2000:]}")
        return parse(self._printed())

    def abandon(self) -> None:
        """End the traffic at once; its records do not matter."""
        self._process.kill()
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
        _running.discard(self)

    def _printed(self) -> str:
        """Return the text of the file without moving the place where the process writes, which both share."""
        descriptor = self._output.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode("utf-8", "replace")


_running: set[Load] = set()


def start_load(node: Node, mode: Mode, targets: Sequence[str], **options: float | int | str | bool) -> Load:
    """Start traffic and return at once; give the result to `finish`.

    With the option `seconds` the traffic ends after that time. Without it the traffic runs until `finish`, however long
    the test takes.
    """
    is_endless = "seconds" not in options
    return Load(node, _arguments(mode, targets, {**options, "until-eof": is_endless}), is_endless=is_endless)


def finish(load: Load, *, least: int = 0, timeout: float = 300) -> list[Record]:
    """Return the records of started traffic after its end.

    Endless traffic is ended here, after at least `least` records. Raise LoadEnded if it had ended before, and
    subprocess.TimeoutExpired if it does not end within `timeout` seconds.
    """
    if least:
        wait_for_records(load, lambda records: len(records) >= least, f"{least} records")
    return load.end(timeout)


def wait_for_records(
    load: Load, accepts: Callable[[list[Record]], object], what: str, *, seconds: float = PATIENCE
) -> list[Record]:
    """Return the records of running traffic when `accepts` accepts them. Raise LoadEnded if it ends before."""

    def look() -> list[Record]:
        load.expect_running()
        return load.records()

    return wait_until(look, what, accepts=accepts, seconds=seconds)


def wait_for_answers(load: Load, count: int, chosen: Callable[[Record], bool] = lambda record: True) -> None:
    """Wait until there are `count` more records of the chosen flows than now."""
    before = sum(map(chosen, load.records()))
    wait_for_records(load, lambda records: sum(map(chosen, records)) >= before + count, f"{count} more records")


def abandon_loads() -> None:
    """End all traffic that a failed test has left running."""
    for load in list(_running):
        load.abandon()


def run_tuples(node: Node, flows: Iterable[Flow], concurrency: int = 32) -> list[Record]:
    """Send flows (protocol, source, source port, destination, destination port) and return a record of each."""
    text = "".join(" ".join(map(str, flow)) + "\n" for flow in flows)
    return parse(node.run([*_PROGRAM, "tuples", "--concurrency", str(concurrency)], input=text, timeout=600).stdout)


def parse(output: str) -> list[Record]:
    """Return the records in the program's output. Raise ValueError on a line that is not a record."""
    names = [field.name for field in fields(Record)]
    records = []
    for line in output.splitlines():
        stored = json.loads(line)
        records.append(Record(**{name: stored[name] for name in names}))
    return records


def failures(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if not record.ok]


def shares(records: Iterable[Record]) -> Counter[str]:
    """Return the number of successful flows of each backend."""
    return Counter(record.backend for record in records if record.ok and record.backend)


def _arguments(mode: Mode, targets: Sequence[str], options: dict[str, float | int | str | bool]) -> list[str]:
    arguments = [*_PROGRAM, mode]
    for target in targets:
        arguments += ["--target", target]
    for name, value in options.items():
        if value is True:
            arguments.append(f"--{name}")
        elif value is not False:
            arguments += [f"--{name}", str(value)]
    return arguments
