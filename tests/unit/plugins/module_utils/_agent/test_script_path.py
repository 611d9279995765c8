# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests that programs which users other than root can change are not run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.script_path import ScriptRefused, check_script

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of root")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder with a program, to which only root can write."""
    folder = Path("/var/lib") / f"evenflow-test-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        script = folder / "check"
        script.write_text("#!/bin/sh\nexit 0\n")
        script.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


@needs_root
@pytest.mark.parametrize(("what", "mode"), [("script", 0o777), ("script", 0o757), ("folder", 0o777)])
def test_a_path_that_others_can_write_to_is_refused(folder: Path, what: str, mode: int) -> None:
    script = folder / "check"
    check_script(str(script))
    place = script if what == "script" else folder
    place.chmod(mode)
    with pytest.raises(ScriptRefused) as refused:
        check_script(str(script))
    assert str(refused.value) == f"{place} is writable by users other than root"


@needs_root
def test_every_hop_of_links_is_checked(folder: Path) -> None:
    """Both ends are root's alone, but others can replace the link between them."""
    shared = folder / "shared"
    shared.mkdir()
    (shared / "middle").symlink_to(folder / "check")
    (folder / "good").symlink_to("shared/middle")
    check_script(str(folder / "good"))
    shared.chmod(0o777)
    with pytest.raises(ScriptRefused) as refused:
        check_script(str(folder / "good"))
    assert str(refused.value) == f"{shared} is writable by users other than root"


@needs_root
def test_links_in_the_middle_of_a_path(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "check").rename(folder / "real" / "check")
    (folder / "link").symlink_to("real")
    (folder / "around").symlink_to("link/../real/./check")
    check_script(str(folder / "link" / "check"))
    check_script(str(folder / "around"))
    os.lchown(folder / "link", 1, 1)
    for name in ("link/check", "around"):
        with pytest.raises(ScriptRefused) as refused:
            check_script(str(folder / name))
        assert str(refused.value) == f"{folder}/link is not owned by root"


@needs_root
def test_a_circle_of_links(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    with pytest.raises(ScriptRefused, match="Too many levels of symbolic links"):
        check_script(str(folder / "a"))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nowhere/check", "/nowhere: No such file or directory"),
        ("/etc", "/etc is not an executable file"),
        ("/etc/passwd", "/etc/passwd is not an executable file"),
        ("bin/true", "bin/true is not an absolute path"),
    ],
)
def test_a_path_that_is_not_a_program_is_refused(path: str, reason: str) -> None:
    with pytest.raises(ScriptRefused) as refused:
        check_script(path)
    assert str(refused.value) == reason


def test_the_programs_of_the_distribution_are_accepted() -> None:
    check_script("/bin/sh")
