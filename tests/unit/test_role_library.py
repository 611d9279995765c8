# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role copies every package of the library to a node."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_role_names_every_package() -> None:
    library = ROOT / "plugins" / "module_utils"
    packages = {str(path.parent.relative_to(library)) for path in library.rglob("*.py")}
    variables = yaml.safe_load((ROOT / "roles" / "lb_node" / "vars" / "main.yml").read_text(encoding="utf-8"))
    assert set(variables["_lb_node_library_packages"]) == packages
