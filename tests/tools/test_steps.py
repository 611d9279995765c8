# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test which steps run, when each begins, and how each ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools import runner
from tools.steps import STEPS, Step, choose, startable

COMPUTES, OTHER = Step("computes"), Step("other")
WAITS, MORE = Step("waits", cores=0.5), Step("more", cores=0.5)
ALONE = Step("alone", alone=True)


@pytest.mark.parametrize(
    ("waiting", "running", "cores", "expected"),
    [
        ([COMPUTES, OTHER, WAITS], [], 2, [COMPUTES, OTHER]),
        ([COMPUTES, WAITS, OTHER, MORE], [], 2, [COMPUTES, WAITS, MORE]),
        ([OTHER, WAITS], [COMPUTES, MORE], 2, [WAITS]),
        # On a machine with one core steps run one after the other.
        ([Step("wide", cores=2), OTHER], [], 1, [Step("wide", cores=2)]),
        ([OTHER], [WAITS], 1, []),
        # A step that runs alone waits for all others, and the next step that runs alone waits for it.
        ([COMPUTES, ALONE], [], 2, [COMPUTES]),
        ([ALONE], [COMPUTES], 8, []),
        ([Step("two labs", labs=2), Step("a lab", labs=1)], [], 8, [Step("two labs", labs=2), Step("a lab", labs=1)]),
        ([Step("a lab", labs=1), OTHER], [Step("three labs", labs=3)], 8, [OTHER]),
        ([ALONE, Step("alone too", alone=True)], [], 8, [ALONE]),
        ([Step("alone too", alone=True)], [ALONE], 8, []),
    ],
)
def test_steps_begin_where_they_fit(
    waiting: list[Step], running: list[Step], cores: float, expected: list[Step]
) -> None:
    assert startable(waiting, running, cores) == expected


def test_all_steps_end() -> None:
    """Every step begins, whatever the number of cores."""
    for cores in (1, 2, 4, 64):
        waiting = list(STEPS)
        while waiting:
            begun = startable(waiting, [], cores)
            assert begun
            waiting = [step for step in waiting if step not in begun]


def test_names_choose() -> None:
    assert [step.name for step in choose(["units", "lab"])] == ["lab", "units"]
    assert not any(step.named_only for step in choose([]))
    assert [step.name for step in choose(["night"])] == ["night"]
    with pytest.raises(ValueError, match="no step is called nothing; there are: lab "):
        choose(["units", "nothing"])


def test_every_step_has_a_function() -> None:
    text = Path(runner.__file__).with_name("step.sh").read_text(encoding="utf-8")
    for step in STEPS:
        assert step.name.startswith("core-") or f"\nstep_{step.name.replace('-', '_')}() {{" in text, step.name


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return a program that replaces step.sh and runs the file of the step's name."""
    (tmp_path / "logs").mkdir()
    path = tmp_path / "step.sh"
    path.write_text(f'#!/bin/bash\nsource "{tmp_path}/$1"\n', encoding="utf-8")
    path.chmod(0o755)
    for step in STEPS:
        (tmp_path / step.name).write_text("echo fine", encoding="utf-8")
    return path


def _start(program: Path, *names: str) -> subprocess.Popen[str]:
    script = (
        "import os, sys; from pathlib import Path; from tools import runner; os.geteuid = lambda: 0; "
        "runner._STEP_PROGRAM = Path(sys.argv[1]); sys.exit(runner.main(sys.argv[2:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, str(program), *names],
        env={**os.environ, "EVENFLOW_CACHE": str(program.parent), "EVENFLOW_CORES": "2"},
        cwd=Path(runner.__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_outcomes_are_counted(program: Path) -> None:
    (program.parent / "docs").write_text("echo what is wrong; exit 3", encoding="utf-8")
    (program.parent / "core-2.20").write_text(
        'echo "no such Python" >"$EVENFLOW_CACHE/logs/core-2.20.reason"; exit 77', encoding="utf-8"
    )
    done = _start(program)
    printed = done.communicate(timeout=60)[0]
    assert done.returncode == 1
    lines = printed.splitlines()
    count = sum(not step.named_only for step in STEPS)
    assert lines[-1] == f"{count - 2} passed, 1 failed"
    assert lines[-2] == "could not run: core-2.20: no such Python"
    assert lines[-3] == "failed:        docs"
    assert "    what is wrong" in lines and sum(" FAILED (status 3)" in line for line in lines) == 1
    assert lines.index("lab-quiet      begins") > max(lines.index(f"{name:<15}begins") for name in ("lab", "molecule"))


def test_nothing_passed_is_a_failure(program: Path) -> None:
    (program.parent / "docs").write_text(
        'echo "not here" >"$EVENFLOW_CACHE/logs/docs.reason"; exit 77', encoding="utf-8"
    )
    done = _start(program, "docs")
    assert done.communicate(timeout=60)[0].splitlines()[-1] == "0 passed, 0 failed"
    assert done.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_runs(program: Path, number: signal.Signals) -> None:
    """A step has time to clean up, processes in other sessions are ended too, and no further step begins."""
    folder = program.parent
    text = f"trap 'echo cleaned >{folder}/$1.end' EXIT; setsid sleep 4711 & echo $! >{folder}/$1.pid; sleep 4711"
    for name in ("docs", "lint"):
        (folder / name).write_text(text, encoding="utf-8")
    running = _start(program, "docs", "lint", "units")
    pids = [folder / f"{name}.pid" for name in ("docs", "lint")]
    while not all(path.exists() and path.read_text(encoding="utf-8").strip() for path in pids):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(number)
    assert "ended before its end" in running.communicate(timeout=60)[0]
    assert running.returncode == 130
    for path in pids:
        assert path.with_suffix(".end").read_text(encoding="utf-8") == "cleaned\n"
        _wait_for_end(int(path.read_text(encoding="utf-8")))
    assert not (folder / "logs" / "units.log").exists()


def _wait_for_end(pid: int) -> None:
    """Wait until a process has ended, even if its parent has not read its exit status yet."""
    deadline = time.monotonic() + 30
    while (fields := runner._stat(pid)) and fields[0] != "Z":
        assert time.monotonic() < deadline, f"process {pid} runs"
        time.sleep(0.05)
