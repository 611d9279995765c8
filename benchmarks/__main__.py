# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what the collection costs on this machine, in separate network namespaces.

    modules      one lb_config task, measured as a whole process
    engine       the plan and nft alone, and one weight change beside a bare nft command
    forwarding   a packet through a node with 10,000 listeners, beside a packet through a node with 1
    limits       a new flow under a limit, beside one without, by the number of counted flows
    checks       the cost of the agent's checks, beside HAProxy's
    drains       many drains at once, and the drain of a machine with very many flows

Without a name all of them run. Each prints what it measured, what it compared with, the spread and the expected value.
"""

from __future__ import annotations

import argparse

from . import checks, drains, engine, forwarding, limits, modules
from .machine import describe

BENCHMARKS = {
    "modules": modules,
    "engine": engine,
    "forwarding": forwarding,
    "limits": limits,
    "checks": checks,
    "drains": drains,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="./dev bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = parser.add_subparsers(dest="name", metavar="NAME")
    for name, benchmark in BENCHMARKS.items():
        benchmark.add_options(names.add_parser(name))
    chosen = parser.parse_args()
    print(describe())
    for name in [chosen.name] if chosen.name else list(BENCHMARKS):
        options = chosen if chosen.name else parser.parse_args([name])
        print(f"\n{name}", flush=True)
        BENCHMARKS[name].run(options)


main()
