# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the files that restore the node at boot, on a real file system."""

from __future__ import annotations

import errno
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.address import Address
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import NodeError
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.desired_table import desired_table
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.parts import LISTENER_FILES, Part, parts
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.transaction import Transaction
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.boot_files import BootFiles
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.files import PendingFiles
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP, VIP6, backend, configuration, listener

WEB = listener("web", backend("198.19.0.1"))
API = listener("api", backend("198.19.0.1"), ports=["443"], scheduler="rr")
PARTS = ["0_static", "1_api", "1_web", "2_elements"]
FILE_OF_WEB = "1_11"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return the state directory of a node without any file."""
    return tmp_path / "state"


@pytest.fixture
def boot_files(state: Path) -> BootFiles:
    """Return the boot files of a node without any file."""
    return BootFiles(str(state))


def files_below(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_vips_are_written_only_if_they_change(boot_files: BootFiles, state: Path) -> None:
    for owned, text in (
        (
            (Address("lan", VIP6), Address("lan", VIP)),
            f"address replace {VIP}/32 dev lan\naddress replace {VIP6}/128 dev lan nodad\n",
        ),
        ((), ""),
    ):
        files = PendingFiles()
        boot_files.write_vips(files, owned)
        files.commit()
        inode = os.stat(state / "vips.batch").st_ino
        assert (state / "vips.batch").read_text(encoding="ascii") == text
        files = PendingFiles()
        boot_files.write_vips(files, list(reversed(owned)))
        files.commit()
        assert os.stat(state / "vips.batch").st_ino == inode


def test_a_full_file_system_changes_no_file(tmp_path: Path) -> None:
    """Row 49."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    try:
        boot_files, files = BootFiles(str(small)), PendingFiles()
        before = files_below(small)
        table = desired_table(configuration(*(listener(f"l{n}", backend("198.19.0.1")) for n in range(20))), Settings())
        with pytest.raises(NodeError, match=os.strerror(errno.ENOSPC)):
            boot_files.write_ruleset(files, parts(table))
        files.abandon()
        boot_files.remove_unused()
        assert files_below(small) == before
    finally:
        subprocess.run(["umount", str(small)], check=True)


class TestRuleset:
    def save_listeners(self, boot_files: BootFiles, *listeners: dict[str, Any]) -> None:
        """Write the boot ruleset of some listeners."""
        self.write(boot_files, parts(desired_table(configuration(*listeners), Settings())))

    def write(self, boot_files: BootFiles, ruleset: list[Part]) -> None:
        """Write a ruleset to the boot files."""
        files = PendingFiles()
        boot_files.write_ruleset(files, ruleset)
        files.commit()
        boot_files.remove_unused()

    @pytest.fixture
    def folder(self, state: Path) -> Path:
        """Return the folder whose ruleset is loaded at boot."""
        return state / "restore" / "current"

    def text(self, folder: Path) -> str:
        """Return the text of all parts in the order of loading."""
        return "".join(path.read_text("ascii") for path in sorted((folder / "parts").iterdir()))

    def inodes(self, folder: Path) -> dict[str, int]:
        """Return the inodes of the parts by file name."""
        return {path.name: path.stat().st_ino for path in (folder / "parts").iterdir()}

    def test_the_boot_ruleset_is_complete_and_in_order(self, boot_files: BootFiles, folder: Path) -> None:
        self.save_listeners(boot_files, WEB, API)
        lines = self.text(folder).splitlines(keepends=True)
        assert [line.split()[1] for line in lines if line.startswith("#")] == PARTS
        written = {part.name: part.write().text() for part in parts(desired_table(configuration(WEB, API), Settings()))}
        assert [line for line in lines if not line.startswith("#")] == "".join(
            written[name] for name in PARTS
        ).splitlines(keepends=True)
        main = [line for line in (folder / "main.nft").read_text("utf-8").splitlines() if not line.startswith("#")]
        assert main == [
            'add table inet evenflow { comment "evenflow.l4lb: changes by hand are undone"; }',
            "delete table inet evenflow",
            f'include "{folder}/parts/*.nft"',
        ]

    def test_the_files_of_unchanged_parts_are_reused(self, boot_files: BootFiles, folder: Path) -> None:
        self.save_listeners(boot_files, WEB, API)
        before = self.inodes(folder)
        self.save_listeners(boot_files, WEB, {**API, "backends": [backend("198.19.0.1"), backend("198.19.0.2")]})
        after = self.inodes(folder)
        same = [name for name in after if before.get(name) == after[name]]
        assert [name.split(".")[0] for name in sorted(same)] == ["0_static", FILE_OF_WEB]
        assert sorted(os.listdir(folder.parent)) == sorted(["current", os.readlink(folder)])

    def test_an_unchanged_ruleset_is_not_written(self, boot_files: BootFiles, folder: Path) -> None:
        self.save_listeners(boot_files, WEB)
        target = os.readlink(folder)
        self.save_listeners(boot_files, WEB)
        assert os.readlink(folder) == target

    def test_only_changed_parts_of_a_file_are_computed(self, boot_files: BootFiles, folder: Path) -> None:
        many = [listener(f"l{number}", backend("198.19.0.1")) for number in range(200)]
        self.save_listeners(boot_files, *many)
        assert len(self.inodes(folder)) <= LISTENER_FILES + 2
        many[7] = {**many[7], "backends": [backend("198.19.0.2")]}
        desired_parts = parts(desired_table(configuration(*many), Settings()))
        computed: list[str] = []

        def recorded(part: Part) -> Part:
            def write() -> Transaction:
                computed.append(part.name)
                return part.write()

            return replace(part, write=write)

        self.write(boot_files, [recorded(part) for part in desired_parts])
        assert sorted(computed) == ["1_l7", "2_elements"]
        again = [line for line in self.text(folder).splitlines() if not line.startswith("#")]
        assert sorted(again) == sorted("".join(part.write().text() for part in desired_parts).splitlines())

    def test_a_removed_listener_is_not_in_the_files(self, boot_files: BootFiles, folder: Path) -> None:
        self.save_listeners(boot_files, WEB, API)
        assert "l_web" in self.text(folder)
        self.save_listeners(boot_files, API)
        assert "web" not in self.text(folder)

    def test_the_old_ruleset_boots_until_the_commit(self, boot_files: BootFiles, state: Path) -> None:
        self.save_listeners(boot_files, WEB)
        before = files_below(state)
        files = PendingFiles()
        boot_files.write_ruleset(files, parts(desired_table(configuration(API), Settings())))
        assert {name: text for name, text in files_below(state).items() if name in before} == before
        files.abandon()
        boot_files.remove_unused()
        assert files_below(state) == before

    def test_missing_parts_are_written_again(self, boot_files: BootFiles, folder: Path) -> None:
        self.save_listeners(boot_files, WEB)
        for path in (folder / "parts").iterdir():
            path.unlink()
        (folder / "parts").rmdir()
        self.save_listeners(boot_files, WEB)
        assert len(self.inodes(folder)) == 3

    @pytest.mark.parametrize("damage", ["emptied", "truncated", "removed", "longer", "main"])
    def test_a_damaged_file_is_written_again(self, boot_files: BootFiles, folder: Path, damage: str) -> None:
        self.save_listeners(boot_files, WEB, API)
        whole = files_below(folder)
        assert boot_files.are_intact(())
        part = next((folder / "parts").glob(f"{FILE_OF_WEB}.*"))
        if damage == "removed":
            part.unlink()
        elif damage == "main":
            (folder / "main.nft").write_text("", encoding="ascii")
        else:
            text = part.read_text("ascii")
            part.write_text({"emptied": "", "truncated": text[:-9], "longer": f"{text}\n"}[damage], encoding="ascii")
        assert not boot_files.are_intact(())
        self.save_listeners(boot_files, WEB, API)
        assert files_below(folder) == whole
        assert boot_files.are_intact(())

    def test_damage_is_not_copied_to_the_next_ruleset(self, boot_files: BootFiles, folder: Path) -> None:
        both = [listener("web", backend("198.19.0.1")), *(listener(f"l{n}", backend("198.19.0.1")) for n in range(99))]
        self.save_listeners(boot_files, *both)
        for part in (folder / "parts").iterdir():
            part.write_text(part.read_text("ascii")[: -len("\n") - 4], encoding="ascii")
        both[0] = {**both[0], "backends": [backend("198.19.0.2")]}
        self.save_listeners(boot_files, *both)
        lines = [line for line in self.text(folder).splitlines() if not line.startswith("#")]
        desired_parts = parts(desired_table(configuration(*both), Settings()))
        assert sorted(lines) == sorted("".join(part.write().text() for part in desired_parts).splitlines())

    def test_a_damaged_vips_file_is_not_intact(self, boot_files: BootFiles, state: Path) -> None:
        self.save_listeners(boot_files, WEB)
        files = PendingFiles()
        boot_files.write_vips(files, [Address("lan", VIP)])
        files.commit()
        assert boot_files.are_intact([Address("lan", VIP)])
        (state / "vips.batch").write_text("", encoding="ascii")
        assert not boot_files.are_intact([Address("lan", VIP)])

    def test_leftovers_of_an_interrupted_run_are_removed(self, boot_files: BootFiles, folder: Path) -> None:
        self.save_listeners(boot_files, WEB)
        os.symlink("nowhere", folder.parent / "current.new")
        (folder.parent / "12ab").mkdir()
        self.save_listeners(boot_files, API)
        assert sorted(os.listdir(folder.parent)) == sorted(["current", os.readlink(folder)])
