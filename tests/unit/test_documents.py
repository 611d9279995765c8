# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the documents: links have a target, and every row that a test names is in the behaviour document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *ROOT.glob("roles/*/README.md"),
]
LAST_ROW = 66


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_has_a_target(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _hash, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


def test_every_row_has_its_anchor() -> None:
    rows = [int(number) for number in re.findall(r'<a id="row-(\d+)"></a>\1 ', _behaviour())]
    assert rows == list(range(1, LAST_ROW + 1))


def test_tests_name_rows_that_exist() -> None:
    named = {
        number
        for file in ROOT.glob("tests/**/test_*.py")
        for name in re.findall(r"def test_rows?((?:_\d+)+)", file.read_text(encoding="utf-8"))
        for number in name.strip("_").split("_")
    }
    assert len(named) > 30
    assert {number for number in named if f'<a id="row-{number}"></a>' not in _behaviour()} == set()


def _behaviour() -> str:
    return (ROOT / "docs" / "behaviour.md").read_text(encoding="utf-8")


def _anchors(file: Path) -> set[str]:
    """Return the anchors of a Markdown file: the explicit ones and those of the headings."""
    text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))
