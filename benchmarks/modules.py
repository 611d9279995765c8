# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure one ``lb_config`` task with many listeners, as a whole process.

Each round begins with an empty namespace and configuration: first run, no-op, one weight changed, and back.
The output has minimum, median and maximum of the rounds, and processor time beside wall time, because wall time varies.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .listeners import many
from .machine import namespaces

MODULE = "ansible_collections.evenflow.l4lb.plugins.modules.lb_config"
STEPS = ("first run", "no-op", "one weight changed", "weight back")
BOUNDS = {"first run": 6.0, "no-op": 2.0, "one weight changed": 2.0, "weight back": 2.0}
"""Seconds of wall time that a step may take under wrr with 1,000 listeners of 10 backends."""


@dataclass
class Sample:
    """One run of the module: seconds, mebibytes (of the largest process, also nft), statements of the transaction."""

    wall: float
    processor: float
    memory: float
    statements: int


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listeners", type=int, default=1000)
    parser.add_argument("--backends", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--schedulers", default="wrr,mh")


def run(options: argparse.Namespace) -> None:
    """Run the benchmark and print it."""
    print(f"lb_config with {options.listeners} listeners of {options.backends} backends, {options.rounds} rounds")
    print(f"{'':<6}{'':<20}{'wall s: min':>12}{'median':>8}{'max':>8}{'cpu s':>8}{'MiB':>7}{'statements':>12}")
    for scheduler in options.schedulers.split(","):
        samples: dict[str, list[Sample]] = {step: [] for step in STEPS}
        for _round in range(options.rounds):
            with namespaces(1) as (namespace,), namespace.entered():
                for step, sample in _round_trip(scheduler, options).items():
                    samples[step].append(sample)
        for step in STEPS:
            print(_row(scheduler, step, samples[step], options))


def _round_trip(scheduler: str, options: argparse.Namespace) -> dict[str, Sample]:
    with tempfile.TemporaryDirectory() as directory:
        samples = {}
        for step, weight in zip(STEPS, (100, 100, 50, 100)):
            listeners = many(scheduler, options.listeners, options.backends, weight)
            samples[step] = _run(
                {"listeners": listeners, "config_dir": f"{directory}/etc"}, Path(directory, "args.json")
            )
        return samples


def _run(arguments: dict[str, Any], file: Path) -> Sample:
    file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}), encoding="utf-8")
    output = file.with_name("result.json")
    with output.open("wb") as stream:
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", MODULE, str(file)], stdout=stream)
        _pid, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    result = json.loads(output.read_text(encoding="utf-8"))
    if process.returncode:
        raise SystemExit(f"lb_config failed: {result.get('msg')}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, len(result["commands"]))


def _row(scheduler: str, step: str, samples: list[Sample], options: argparse.Namespace) -> str:
    walls = [sample.wall for sample in samples]
    median = statistics.median(walls)
    row = f"{scheduler:<6}{step:<20}{min(walls):>12.2f}{median:>8.2f}{max(walls):>8.2f}"
    row += f"{statistics.median(sample.processor for sample in samples):>8.2f}"
    row += f"{max(sample.memory for sample in samples):>7.0f}{samples[-1].statements:>12}"
    if scheduler == "wrr" and (options.listeners, options.backends) == (1000, 10):
        row += f"   {'within' if median <= BOUNDS[step] else 'ABOVE'} {BOUNDS[step]:g} s"
    return row
