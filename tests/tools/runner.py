# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run steps of `./dev test` side by side as far as there is room, and report each when it ends.

Usage: runner.py [--check] [STEP...], or --list. With --check no step runs; it fails if a step does not exist or may not
run as this user.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tools.steps import STEPS, Step, choose, startable

STEP_SECONDS = 3600
# Time for a step that is interrupted to take its labs down.
END_SECONDS = 60
NOT_RUN = 77
TAIL_LINES = 60

_STEP_PROGRAM = Path(__file__).with_name("step.sh")


@dataclass(frozen=True)
class Outcome:
    """How a step ended. `verdict` is passed, failed or not run; `remark` is the reason if it did not pass."""

    step: Step
    verdict: str
    remark: str
    seconds: float


def main(arguments: Sequence[str]) -> int:
    """Run the named steps, or all, and return 0 if at least one passed and none failed, 2 for a wrong name, else 1."""
    names = [name for name in arguments if name not in ("--check", "--list")]
    if "--list" in arguments:
        for step in STEPS:
            remarks = [
                remark for remark, applies in (("root", step.root), ("only when named", step.named_only)) if applies
            ]
            print(f"{step.name:<15}{', '.join(remarks)}".rstrip())
        return 0
    try:
        steps = choose(names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if os.geteuid() and (privileged := [step.name for step in steps if step.root]):
        print(f"these steps need root: {' '.join(privileged)}; try: sudo ./dev test ...", file=sys.stderr)
        return 2
    if "--check" in arguments:
        return 0
    logs = Path(os.environ["EVENFLOW_CACHE"], "logs")
    for reason in logs.glob("*.reason"):
        reason.unlink()
    return asyncio.run(_run(steps, logs))


async def _run(steps: list[Step], logs: Path) -> int:
    main_task = asyncio.current_task()
    assert main_task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, main_task.cancel)
    began = time.monotonic()
    try:
        outcomes = await _schedule(steps, logs)
    except asyncio.CancelledError:
        print("ended before its end; what ran was ended too", flush=True)
        return 130
    return _summary(outcomes, time.monotonic() - began)


async def _schedule(steps: list[Step], logs: Path) -> list[Outcome]:
    """Run all steps and print each outcome when the step ends. If this task is cancelled, end the running steps."""
    cores = float(os.environ.get("EVENFLOW_CORES") or os.cpu_count() or 1)
    waiting, outcomes = list(steps), []
    running: dict[asyncio.Task[Outcome], Step] = {}
    try:
        while waiting or running:
            for step in startable(waiting, list(running.values()), cores):
                waiting.remove(step)
                running[asyncio.create_task(_step(step, logs))] = step
                print(f"{step.name:<15}begins", flush=True)
            done, _pending = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del running[task]
                outcomes.append(task.result())
                _report(task.result(), logs)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return sorted(outcomes, key=lambda outcome: steps.index(outcome.step))


async def _step(step: Step, logs: Path) -> Outcome:
    """Run one step, and end it if it takes too long or this task is cancelled."""
    began = time.monotonic()
    with open(logs / f"{step.name}.log", "wb") as log:
        process = await asyncio.create_subprocess_exec(
            _STEP_PROGRAM,
            step.name,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            status = await asyncio.wait_for(process.wait(), STEP_SECONDS)
            remark = f"status {status}"
        except asyncio.TimeoutError:
            remark = f"not over after {STEP_SECONDS} s"
            status = 1
        finally:
            await _end(process)
    seconds = time.monotonic() - began
    if status == 0:
        return Outcome(step, "passed", "", seconds)
    if status == NOT_RUN:
        reason = (logs / f"{step.name}.reason").read_text(encoding="utf-8").strip()
        return Outcome(step, "not run", reason, seconds)
    return Outcome(step, "failed", remark, seconds)


async def _end(process: Process) -> None:
    """End a process and its descendants: as Ctrl-C does, so that they can clean up, then by SIGTERM and SIGKILL."""
    if process.returncode is not None:
        return
    family = _family(process.pid)
    for number, seconds in ((signal.SIGINT, END_SECONDS), (signal.SIGTERM, 5)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), seconds)
            break
    # Signals to the group do not reach descendants in other sessions.
    for pid, start_time in family.items():
        if _start_time(pid) == start_time:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    await process.wait()


def _family(pid: int) -> dict[int, str]:
    """Return a process and its descendants, each with its start time, which identifies it if the id is used again."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    family, fresh = {}, [pid]
    while fresh:
        member = fresh.pop()
        family[member] = _start_time(member)
        fresh += parents.get(member, [])
    return family


def _start_time(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if fields else ""


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on, or none if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _report(outcome: Outcome, logs: Path) -> None:
    line = f"{outcome.step.name:<15}{outcome.seconds:5.0f} s  "
    log = logs / f"{outcome.step.name}.log"
    if outcome.verdict == "passed":
        line += "passed"
    elif outcome.verdict == "not run":
        line += f"could not run: {outcome.remark}"
    else:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        tail = [f"    {text}" for text in lines]
        line = "\n".join([f"{line}FAILED ({outcome.remark})", *tail, f"    whole output: {log}"])
    print(line, flush=True)


def _summary(outcomes: Sequence[Outcome], seconds: float) -> int:
    """Print the time and the verdict of each step and return the exit status."""

    def names(verdict: str) -> list[str]:
        return [outcome.step.name for outcome in outcomes if outcome.verdict == verdict]

    passed, failed = names("passed"), names("failed")
    print("\nstep           seconds")
    for outcome in outcomes:
        print(f"{outcome.step.name:<15}{outcome.seconds:7.0f}  {outcome.verdict}")
    print(f"{'in all':<15}{seconds:7.0f}  {_minutes(seconds)}; one after the other: {_minutes(_total(outcomes))}\n")
    print(f"ran:           {' '.join(passed + failed)}")
    print(f"failed:        {' '.join(failed) or 'none'}")
    for outcome in outcomes:
        if outcome.verdict == "not run":
            print(f"could not run: {outcome.step.name}: {outcome.remark}")
    if not names("not run"):
        print("could not run: none")
    print(f"{len(passed)} passed, {len(failed)} failed")
    return 0 if passed and not failed else 1


def _total(outcomes: Iterable[Outcome]) -> float:
    return sum(outcome.seconds for outcome in outcomes)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
