# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests that every implemented row of docs/behaviour.md is named by a test, and that tests name no other rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ANCHOR = re.compile(r'id="row-(\d+)"')

IMPLEMENTED = frozenset(range(1, 62))

UNTESTED = frozenset({47, 48})
"""Rows whose behaviour needs two load balancers that share VIPs, which the collection does not set up yet."""

# `def test_row_30`, `def test_rows_28_29_failover`
IN_FUNCTION = re.compile(r"^ *def test_rows?((?:_\d+)+)", re.MULTILINE)
# "Row 2: …", "Rows 2, 50: …", "Row 8 (port 0): …", "Rows 28 and 29: …", "rows 17 and 19 to 21"
IN_TEXT = re.compile(r"\b[Rr]ows? (\d+(?:(?:,| and| to|, and) \d+)*)")
# Match only at the beginning of a docstring, a comment or a task's name, where a test names the rows that it covers.
AT_BEGINNING = re.compile(rf'(?:"""|# |name: "){IN_TEXT.pattern}[ :(]')


def files() -> Iterator[Path]:
    """Return all files that contain tests."""
    for folder in ("tests/unit", "tests/lab", "tests/kernels", "tests/integration/targets", "extensions"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yml") and path != Path(__file__).resolve() and "output" not in path.parts:
                yield path


def numbers(text: str) -> set[int]:
    """Return the row numbers in a list; of a range, return the first and the last."""
    return {int(number) for number in re.findall(r"\d+", text)}


def documented() -> set[int]:
    return {int(number) for number in ANCHOR.findall((ROOT / "docs" / "behaviour.md").read_text(encoding="utf-8"))}


def test_rows_are_numbered_without_a_gap() -> None:
    rows = documented()
    assert rows >= IMPLEMENTED
    assert rows == set(range(1, len(rows) + 1))


def test_every_row_has_a_test_that_names_it() -> None:
    named: set[int] = set()
    for path in files():
        text = path.read_text(encoding="utf-8")
        for pattern in (IN_FUNCTION, AT_BEGINNING) if path.suffix == ".py" else (AT_BEGINNING,):
            # A docstring at the beginning of a file belongs to the module and not to a test.
            named |= {
                row for match in pattern.finditer(text, text.find("from __future__")) for row in numbers(match[1])
            }
    assert sorted(IMPLEMENTED - UNTESTED - named) == []
    assert sorted(UNTESTED & named) == [], "tested now: take it out of UNTESTED"


def test_no_test_names_a_row_that_does_not_exist() -> None:
    rows = documented()
    unknown = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files()
        for pattern in (IN_FUNCTION, IN_TEXT)
        for match in pattern.finditer(path.read_text(encoding="utf-8"))
        if not numbers(match[1]) <= rows
    }
    assert sorted(unknown) == []
