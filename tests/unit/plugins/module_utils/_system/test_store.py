# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the node's files, on a real file system."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.address import Address
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import NodeError
from ansible_collections.evenflow.l4lb.plugins.module_utils._system import lock
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.files import PendingFiles
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.store import Store
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP, VIP6, backend, document, listener

WEB = listener("web", backend("198.19.0.1"))
API = listener("api", backend("198.19.0.1"), ports=["443"], scheduler="rr")
OLD, NEW = document(WEB), document(WEB, API)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return the store of a node without any file."""
    return Store(str(tmp_path / "etc"))


def save(store: Store, configured: Document) -> None:
    """Write a configuration to the store."""
    files = PendingFiles()
    store.write_configuration(files, Configuration.from_document(configured))
    files.commit()


def write(path: str, content: str | bytes) -> None:
    """Write a file as another program would."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))


def files_below(folder: str) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


class TestPlaces:
    @pytest.mark.parametrize("folder", ["/etc/evenflow", "/etc/evenflow/"])
    def test_the_usual_directory(self, folder: str) -> None:
        usual = Store(folder)
        assert (usual.state_dir, usual.run_dir) == ("/var/lib/evenflow", "/run/evenflow")
        assert os.path.normpath(usual.listeners_file) == "/etc/evenflow/listeners.json"

    def test_another_directory(self, tmp_path: Path) -> None:
        other = Store(str(tmp_path))
        assert (other.state_dir, other.run_dir) == (str(tmp_path / "state"), str(tmp_path / "run"))


class TestConfiguration:
    def test_a_missing_file_is_an_empty_configuration(self, store: Store) -> None:
        assert store.configuration() == {}

    def test_there_and_back(self, store: Store) -> None:
        configured = document(listener("web", backend("2001:db8::1"), address=VIP6, description='é "quoted" {x}'))
        save(store, configured)
        assert store.configuration() == configured

    def test_the_previous_version_is_kept(self, store: Store) -> None:
        save(store, OLD)
        first = Path(store.listeners_file).read_bytes()
        assert os.listdir(store.config_dir) == ["listeners.json"]
        save(store, NEW)
        assert Path(f"{store.listeners_file}.previous").read_bytes() == first
        assert store.configuration() == NEW
        assert sorted(os.listdir(store.config_dir)) == ["listeners.json", "listeners.json.previous"]

    def test_other_users_cannot_read_the_configuration(self, store: Store) -> None:
        save(store, OLD)
        save(store, NEW)
        for name in os.listdir(store.config_dir):
            assert os.stat(os.path.join(store.config_dir, name)).st_mode & 0o027 == 0

    def test_the_old_configuration_stays_until_the_commit(self, store: Store) -> None:
        save(store, OLD)
        files = PendingFiles()
        store.write_configuration(files, Configuration.from_document(NEW))
        assert store.configuration() == OLD
        files.abandon()
        assert os.listdir(store.config_dir) == ["listeners.json"]
        assert store.configuration() == OLD

    def test_abandoning_after_the_commit_does_nothing(self, store: Store) -> None:
        files = PendingFiles()
        store.write_configuration(files, Configuration.from_document(NEW))
        files.commit()
        files.abandon()
        assert store.configuration() == NEW

    def test_a_reader_never_sees_a_partial_file(self, store: Store) -> None:
        versions = [document(WEB), document(*(listener(f"l{number}") for number in range(200)))]
        save(store, versions[0])
        stop = threading.Event()
        seen: list[Any] = []

        def read() -> None:
            while not stop.is_set():
                try:
                    seen.append(len(store.configuration()))
                except NodeError as error:
                    seen.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(60):
            save(store, versions[number % 2])
        stop.set()
        reader.join()
        assert set(seen) <= {1, 200}
        assert seen

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{",
            '{"format": 1, "listeners": {"web": {"na',
            "null",
            "[]",
            "{}",
            '{"format": 1}',
            '{"format": 1, "listeners": []}',
            '{"listeners": {}}',
            '{"format": 2, "listeners": {}}',
            '{"format": 0, "listeners": {}}',
            '{"format": "1", "listeners": {}}',
            '{"format": 1, "listeners": {"web": 5}}',
            '{"format": 1, "listeners": {"web": {}}}',
            '{"format": 1, "listeners": {"web": {"name": "web", "backends": [{}]}}}',
            b"\xff\xfe\x00",
            b"\x00" * 4096,
        ],
    )
    def test_an_unreadable_configuration_is_refused_and_not_changed(self, store: Store, content: str | bytes) -> None:
        """Row 49."""
        write(store.listeners_file, content)
        before = files_below(store.config_dir)
        with pytest.raises(NodeError) as error:
            store.configuration()
        assert store.listeners_file in str(error.value)
        assert files_below(store.config_dir) == before

    def test_the_error_for_a_newer_format_names_a_newer_version(self, store: Store) -> None:
        """Row 49."""
        write(store.listeners_file, '{"format": 2, "listeners": {}}')
        with pytest.raises(NodeError, match="format 2 is not 1, the one this version reads.*newer version"):
            store.configuration()

    def test_the_error_names_the_remedy(self, store: Store) -> None:
        write(store.listeners_file, "{")
        with pytest.raises(NodeError, match="not JSON .*restore it from listeners.json.previous"):
            store.configuration()

    def test_a_directory_instead_of_the_file(self, store: Store) -> None:
        """Row 49."""
        os.makedirs(store.listeners_file)
        with pytest.raises(NodeError, match="listeners.json: Is a directory"):
            store.configuration()


class TestFullDisk:
    """Row 49: a full disk is noticed before any file is replaced."""

    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Callable[[str], Store]]:
        """Return a function that mounts a file system with some options and returns a store on it."""
        folder = tmp_path / "small"
        folder.mkdir()

        def make(options: str) -> Store:
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
            return Store(str(folder))

        yield make
        if os.path.ismount(folder):
            subprocess.run(["umount", str(folder)], check=True)

    @staticmethod
    def big(kibibytes: int) -> Document:
        """Return a configuration whose file has about the given size."""
        return document(*(listener(f"l{number}", description="x" * 700) for number in range(kibibytes)))

    def test_no_room_for_the_new_file(self, store: Store) -> None:
        save(store, OLD)
        before = files_below(store.config_dir)
        os.symlink("/dev/full", f"{store.listeners_file}.new")
        files = PendingFiles()
        with pytest.raises(NodeError, match=f"listeners.json.new: {os.strerror(errno.ENOSPC)}"):
            store.write_configuration(files, Configuration.from_document(NEW))
        files.abandon()
        assert files_below(store.config_dir) == before
        assert os.listdir(store.config_dir) == ["listeners.json"]

    def test_a_file_system_without_room(self, small: Callable[[str], Store]) -> None:
        store = small("size=256k")
        save(store, self.big(100))
        before = files_below(store.config_dir)
        files = PendingFiles()
        with pytest.raises(NodeError, match=f"listeners.json.new: {os.strerror(errno.ENOSPC)}"):
            store.write_configuration(files, Configuration.from_document(self.big(300)))
        files.abandon()
        assert files_below(store.config_dir) == before

    def test_a_file_system_without_inodes(self, small: Callable[[str], Store]) -> None:
        store = small("size=1m,nr_inodes=2")
        save(store, OLD)
        before = files_below(store.config_dir)
        files = PendingFiles()
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            store.write_configuration(files, Configuration.from_document(NEW))
        files.abandon()
        assert files_below(store.config_dir) == before

    def test_a_commit_needs_no_further_space(self, small: Callable[[str], Store]) -> None:
        """A commit happens after the kernel has changed, so it must not fail for lack of space."""
        store = small("size=360k")
        save(store, self.big(100))
        # There is space for another file of this size, but not for two.
        assert 360 * 1024 / 3 < os.stat(store.listeners_file).st_size < 360 * 1024 / 2.2
        before = store.configuration()
        files = PendingFiles()
        try:
            store.write_configuration(files, Configuration.from_document(self.big(101)))
        except NodeError:
            files.abandon()
            assert store.configuration() == before
        else:
            files.commit()
            assert store.configuration() == self.big(101)


class TestSettings:
    def test_defaults(self, store: Store) -> None:
        assert store.settings() == Settings(hash_seed=24301, vip_mode="none", vip_interface="")

    @pytest.mark.parametrize(
        ("written", "settings"),
        [
            ({}, Settings()),
            ({"hash_seed": 0}, Settings(hash_seed=0)),
            ({"hash_seed": 4294967295}, Settings(hash_seed=4294967295)),
            ({"vip_mode": "address", "vip_interface": "lo"}, Settings(24301, "address", "lo")),
            ({"vip_interface": "lo"}, Settings(vip_interface="lo")),
        ],
    )
    def test_valid_settings_are_read(self, store: Store, written: dict[str, Any], settings: Settings) -> None:
        write(os.path.join(store.config_dir, "node.json"), json.dumps(written))
        assert store.settings() == settings

    @pytest.mark.parametrize(
        "content",
        [
            "{",
            "[]",
            "5",
            '{"colour": "red"}',
            '{"hash_seed": -1}',
            '{"hash_seed": 4294967296}',
            '{"hash_seed": "1"}',
            '{"hash_seed": true}',
            '{"hash_seed": 1.5}',
            '{"hash_seed": null}',
            '{"vip_mode": "vrrp"}',
            '{"vip_mode": null}',
            '{"vip_mode": ["none"]}',
            '{"vip_mode": "address"}',
            '{"vip_mode": "address", "vip_interface": ""}',
            '{"vip_mode": "address", "vip_interface": 7}',
        ],
    )
    def test_invalid_settings_are_refused(self, store: Store, content: str) -> None:
        write(os.path.join(store.config_dir, "node.json"), content)
        with pytest.raises(NodeError, match="node.json: "):
            store.settings()


class TestLock:
    def test_the_lock_has_a_single_holder(self, store: Store) -> None:
        inside: list[str] = []

        def other() -> None:
            with Store(store.config_dir).lock():
                inside.append("other")

        thread = threading.Thread(target=other)
        with store.lock():
            thread.start()
            time.sleep(0.15)
            inside.append("first")
        thread.join()
        assert inside == ["first", "other"]

    def test_waiting_for_the_lock_has_a_timeout(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lock, "LOCK_TIMEOUT", 0.1)
        with store.lock():
            with pytest.raises(NodeError, match="lock: another program has held the lock for 0.1 s"):
                with Store(store.config_dir).lock():
                    pytest.fail("two hold the lock")

    def test_the_lock_is_free_after_an_error(self, store: Store) -> None:
        with pytest.raises(NodeError, match="made: No such file or directory"):
            with store.lock():
                open(os.path.join(store.config_dir, "never", "made"), encoding="utf-8").close()
        with store.lock():
            pass

    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "^No space left on device$"),
            (OSError(errno.EPERM, os.strerror(errno.EPERM), "/etc/x"), "^/etc/x: Operation not permitted$"),
        ],
    )
    def test_an_error_of_the_body_does_not_name_the_lock(self, store: Store, error: OSError, text: str) -> None:
        with pytest.raises(NodeError, match=text):
            with store.lock():
                raise error

    def test_a_file_instead_of_the_run_directory(self, store: Store) -> None:
        write(store.run_dir, "")
        with pytest.raises(NodeError, match="run: "):
            with store.lock():
                pytest.fail("there is no lock")


class TestRunFiles:
    def test_there_and_back(self, store: Store) -> None:
        assert store.read_run("applied.json") is None
        store.write_run("applied.json", {"generation": 7})
        assert store.read_run("applied.json") == {"generation": 7}
        assert os.listdir(store.run_dir) == ["applied.json"]

    def test_a_damaged_file_is_read_as_missing(self, store: Store) -> None:
        write(os.path.join(store.run_dir, "applied.json"), "{")
        assert store.read_run("applied.json") is None


class TestVips:
    OURS = (Address("lan", VIP6), Address("lan", VIP))

    def test_there_and_back(self, store: Store) -> None:
        assert store.vips() == []
        for ours in (self.OURS, ()):
            store.save_vips(ours)
            assert set(store.vips()) == set(ours)
            assert os.listdir(store.state_dir) == ["vips.json"]
