# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the engine alone: the plan, which decides what to change, and nft, which changes it.

The cases are the first load, a plan without changes, one weight changed beside a bare `nft -f` that changes one
element, and one listener added. `plan` is the pure function alone, given the configuration and the live table; the live
table comes from the configuration that was applied last, or from the kernel if another program has changed nftables.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import live_table, runner
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.desired_table import desired_table
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.plan import Live, Plan, plan
from ansible_collections.evenflow.l4lb.plugins.modules.lb_config import build

from .listeners import many
from .machine import namespaces
from .ratio import ratio

SETTINGS = Settings(hash_seed=24301)
FIRST_LOAD, NO_OP, LISTENER_ADDED, WEIGHT_RATIO = 3.0, 0.5, 0.1, 1.5
"""Expected with wrr and 1,000 listeners of 10 backends: seconds, and the ratio to the time of a bare change."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listeners", type=int, default=1000)
    parser.add_argument("--backends", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--schedulers", default="wrr,mh")


def run(options: argparse.Namespace) -> None:
    """Run the benchmark and print it."""
    print(f"{options.listeners} listeners of {options.backends} backends, {options.rounds} rounds; seconds")
    print(f"{'':<6}{'':<36}{'min':>8}{'median':>8}{'max':>8}")
    for scheduler in options.schedulers.split(","):
        with namespaces(1) as (namespace,), namespace.entered():
            # Run in a separate process, so that the peak memory is that of this scheduler.
            child = multiprocessing.get_context("fork").Process(target=_Engine(scheduler, options).measure)
            child.start()
            child.join()
            if child.exitcode:
                raise SystemExit(f"the measurement of {scheduler} ended with {child.exitcode}")


class _Engine:
    def __init__(self, scheduler: str, options: argparse.Namespace) -> None:
        self._scheduler, self._options = scheduler, options
        self._has_bounds = scheduler == "wrr" and (options.listeners, options.backends) == (1000, 10)

    def measure(self) -> None:
        before, lighter = self._document(), self._document(weight=50)
        self._first_load(before)
        self._no_op(before)
        self._weight(before, lighter)
        self._listener_added(before)

    def _document(self, weight: int = 100, more: int = 0) -> Document:
        options = self._options
        items = many(self._scheduler, options.listeners + more, options.backends, weight)
        return build({"listeners": items})[0]({})

    def _first_load(self, document: Document) -> None:
        planned, applied = [], []
        for number in range(self._options.rounds):
            if number:
                subprocess.run(["nft", "delete", "table", "inet", "evenflow"], check=True)
            seconds, loading = _timed(_plan, document, Live())
            planned.append(seconds)
            applied.append(_timed(runner.apply, loading.transaction)[0])
        batches = len(loading.transaction.batches())
        self._row("first load: plan", planned)
        self._row(f"first load: nft, {batches} batch{'es' * (batches > 1)}", applied)
        self._row("first load", [sum(pair) for pair in zip(planned, applied)], FIRST_LOAD)
        own, nft = (
            resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        print(f"{self._scheduler:<6}first load: peak memory {own:.0f} MiB, of nft {nft:.0f} MiB", flush=True)

    def _no_op(self, document: Document) -> None:
        planned, remembered, read = [], [], []
        for _round in range(max(5, self._options.rounds)):
            seconds, table = _timed(_table, document)
            remembered.append(seconds)
            seconds, changes = _timed(_plan, document, Live(table))
            planned.append(seconds)
            assert not changes
        for _round in range(self._options.rounds):
            seconds, table = _timed(live_table.read_table)
            read.append(seconds)
            assert not _plan(document, Live(table))
        self._row("live table, as it was applied", remembered)
        self._row("live table, from the kernel", read)
        self._row("no-op: plan", planned, NO_OP)

    def _weight(self, before: Document, after: Document) -> None:
        there, back = (
            _plan(desired, Live(_table(applied))).transaction.text()
            for desired, applied in ((after, before), (before, after))
        )
        mark = min(_table(before).sets["acct_new"].elements)
        bare = f"delete element inet evenflow acct_new {{ {mark} }}\nadd element inet evenflow acct_new {{ {mark} }}\n"
        changed: list[float] = []
        compared: list[float] = []
        for number in range(self._options.pairs):
            jobs = [(changed, back if number % 2 else there), (compared, bare)]
            for seconds, text in jobs if number % 4 < 2 else reversed(jobs):
                seconds.append(_timed(_nft, text)[0])
        if self._options.pairs % 2:
            _nft(back)
        self._row(f"one weight: nft, {len(there.splitlines())} statements", changed)
        self._row("one element, bare: nft", compared)
        measured = ratio(changed, compared)
        self._print(f"one weight / one element: {measured}", measured.median <= WEIGHT_RATIO, f"{WEIGHT_RATIO} times")

    def _listener_added(self, before: Document) -> None:
        after = self._document(more=1)
        planned, applied = [], []
        for _round in range(max(5, self._options.rounds)):
            seconds, adding = _timed(_plan, after, Live(_table(before)))
            planned.append(seconds)
            applied.append(_timed(runner.apply, adding.transaction)[0])
            runner.apply(_plan(before, Live(_table(after))).transaction)
        self._row("one listener added: plan", planned)
        self._row("one listener added: nft", applied, LISTENER_ADDED)

    def _row(self, name: str, seconds: list[float], bound: float | None = None) -> None:
        middle = statistics.median(seconds)
        row = f"{name:<36}{min(seconds):>8.3f}{middle:>8.3f}{max(seconds):>8.3f}"
        if bound is None:
            print(f"{self._scheduler:<6}{row}", flush=True)
        else:
            self._print(row, middle <= bound, f"{bound:g} s")

    def _print(self, text: str, is_within: bool, bound: str) -> None:
        verdict = f"   {'within' if is_within else 'ABOVE'} {bound}" if self._has_bounds else ""
        print(f"{self._scheduler:<6}{text}{verdict}", flush=True)


def _plan(document: Document, live: Live) -> Plan:
    return plan(Configuration.from_document(document), SETTINGS, live)


def _table(document: Document) -> Any:
    return desired_table(Configuration.from_document(document), SETTINGS).as_live()


def _nft(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def _timed(job: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    result = job(*arguments)
    return time.perf_counter() - began, result
