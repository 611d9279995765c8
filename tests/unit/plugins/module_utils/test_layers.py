# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests that each package of the library imports only packages of lower layers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[4] / "plugins" / "module_utils"
LAYERS = ["_errors", "_config", "_state", "_schedule", "_system", "_nft", "_node", "_agent"]
"""The layers from the lowest to the highest. Other files of the library serve modules and are above all layers."""


def imported(file: Path) -> Iterator[str]:
    """Yield the packages and modules of the library that a file imports."""
    inside = file.relative_to(LIBRARY).parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            path = [*inside[: len(inside) - node.level], *(node.module or "").split(".")]
            yield from (path[0],) if path[0] else (alias.name for alias in node.names)


@pytest.mark.parametrize(
    "package", sorted(path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name[1] != "_")
)
def test_a_package_imports_only_lower_layers(package: str) -> None:
    layer = LAYERS.index(package)
    files = sorted((LIBRARY / package).rglob("*.py"))
    imports = {(file.name, name) for file in files for name in imported(file) if name != package}
    assert imports
    assert {(file, name) for file, name in imports if name not in LAYERS[:layer]} == set()
