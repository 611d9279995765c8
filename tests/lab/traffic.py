# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client's traffic: start `load.py` on a node, read what became of every flow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from tempfile import TemporaryFile
from typing import IO, Literal

from .nodes import Node
from .process import Background

Mode = Literal["http", "udp", "stream", "dns"]
Flow = tuple[Literal["tcp", "udp"], str, int, str, int]

_PROGRAM = ("python3", "/opt/lab/load.py")


@dataclass(frozen=True)
class Record:
    """What became of one flow; times in seconds. `kind`: http, udp, tcp (by tuple), stream, stream-open."""

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

    A target is `address:port` or `[address]:port`. CommandFailed if the program itself fails; failed flows are records.
    """
    limit = 120 + float(options.get("seconds", 60))
    return parse(node.run(_arguments(mode, targets, options), timeout=limit).stdout)


@dataclass(frozen=True)
class Load:
    """Traffic that runs. Its records go to a file: a pipe that nobody empties would stop it."""

    process: Background
    output: IO[str]


def start_load(node: Node, mode: Mode, targets: Sequence[str], **options: float | int | str | bool) -> Load:
    """Start traffic and return at once; give the result to `finish`."""
    output = TemporaryFile("w+", encoding="utf-8")
    return Load(node.start(_arguments(mode, targets, options), output=output), output)


def finish(load: Load, timeout: float = 120) -> list[Record]:
    """Wait for started traffic to end and return its records. subprocess.TimeoutExpired after `timeout` seconds."""
    load.process.wait(timeout)
    with load.output:
        load.output.seek(0)
        return parse(load.output.read())


def run_tuples(node: Node, flows: Iterable[Flow], concurrency: int = 32) -> list[Record]:
    """Send flows of given (protocol, source, source port, destination, destination port), one record each."""
    text = "".join(" ".join(map(str, flow)) + "\n" for flow in flows)
    return parse(node.run([*_PROGRAM, "tuples", "--concurrency", str(concurrency)], input=text, timeout=600).stdout)


def parse(output: str) -> list[Record]:
    """Records from the program's output. ValueError on a line that is none."""
    names = [field.name for field in fields(Record)]
    records = []
    for line in output.splitlines():
        stored = json.loads(line)
        records.append(Record(**{name: stored[name] for name in names}))
    return records


def failures(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if not record.ok]


def shares(records: Iterable[Record]) -> Counter[str]:
    """How many good flows each backend had."""
    return Counter(record.backend for record in records if record.ok and record.backend)


def _arguments(mode: Mode, targets: Sequence[str], options: dict[str, float | int | str | bool]) -> list[str]:
    words = [*_PROGRAM, mode]
    for target in targets:
        words += ["--target", target]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not False:
            words += [f"--{name}", str(value)]
    return words
