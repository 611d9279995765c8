# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection costs, on this machine, in network namespaces of its own.

    modules      one lb_config task as a whole process
    engine       the plan and nft alone, and one change beside a bare one
    forwarding   a packet through a node with 10,000 listeners, beside one through a node with 1
    checks       what the agent's checks cost, beside HAProxy's
    drains       many drains at once, and one of a machine with very many flows

Without a name all of them run. They print what ran, against what, how far the figures spread, and what is expected.
"""

from __future__ import annotations

import argparse

from . import checks, drains, engine, forwarding, modules
from .machine import describe

BENCHMARKS = {"modules": modules, "engine": engine, "forwarding": forwarding, "checks": checks, "drains": drains}


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
