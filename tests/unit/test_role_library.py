# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the role's list of library packages and of the script that installs them on a node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_role_names_every_package() -> None:
    library = ROOT / "plugins" / "module_utils"
    packages = {str(path.parent.relative_to(library)) for path in library.rglob("*.py")}
    variables = yaml.safe_load((ROOT / "roles" / "lb_node" / "vars" / "main.yml").read_text(encoding="utf-8"))
    assert set(variables["_lb_node_library_packages"]) == packages


def install(folder: Path, *arguments: str) -> str:
    """Install a package of one file and return what the role's script prints."""
    request = {"folder": str(folder), "package": "evenflow_l4lb", "files": {"x.py": "X = 1\n"}}
    script = ROOT / "roles" / "lb_node" / "files" / "install_library.py"
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, input=json.dumps(request), text=True, capture_output=True, check=True).stdout


def test_installation_works_after_an_interrupted_one(tmp_path: Path) -> None:
    (tmp_path / "current.new").symlink_to("nowhere")
    assert install(tmp_path) == "changed\n"
    assert (tmp_path / "current" / "evenflow_l4lb" / "x.py").read_text(encoding="ascii") == "X = 1\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["current", (tmp_path / "current").readlink().name]
    )
    assert install(tmp_path) == "same\n"
