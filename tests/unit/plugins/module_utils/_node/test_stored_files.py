# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of stored files with a single changed value: it is refused with its path, or the content is valid."""

from __future__ import annotations

import copy
import ipaddress
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.address import Address
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.edit import with_listeners
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.identity import backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import NodeError
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.plan import Live, plan
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.node import Node
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.effective import effective
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.fate import BackendFate, Fate
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import Health, HealthState
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.runtime import Drain, DrainCause, Runtime
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.runtime_json import (
    FORMAT,
    HEALTH,
    LASTING,
    SINCE_BOOT,
    checked_sections,
    sections_as_json,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.transition import Event, transition
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.files import PendingFiles
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.store import Store
from ansible_collections.evenflow.l4lb.tests.unit.factories import VIP, VIP6, backend, check, document, listener
from ansible_collections.evenflow.l4lb.tests.unit.fake_machine import Machine, put

B1, B2, B3, V6 = "198.19.0.1", "198.19.0.2", "198.19.0.3", "2001:db8:1::1"
WEB = listener(
    "web",
    backend(B1, 8080, name="b1", admin_state="drained"),
    backend(B2, 8080, name="b2", failover=True, weight=7, max_connections=5),
    health_check=check("http", host="example.com", status=["200", "301-302"], dynamic_weight=True),
    ports=["80", "443"],
    slow_start_sec=30,
    failover_policy={
        "failover_ratio": 0.5,
        "drop_traffic_if_unhealthy": True,
        "disable_connection_drain_on_failover": False,
    },
)
DNS = listener("dns", backend(V6), address=VIP6, protocol="udp", ports=["53"], idle_timeout_sec=60)
LOG = {"enable": True, "sample_rate": 0.5}
LC = listener("lc", backend(B1), backend(B3), ports=["8000-8999"], scheduler="lc", log_config=LOG)
NODE = document(DNS, LC, WEB)
OLD = {**listener("old", backend(B3)), "ports": ["81"]}
IDS = {key[1]: mark for key, mark in backend_ids(Configuration.from_document(document(LC))).items()}
RUNTIME = Runtime(
    shares={"lc": {IDS[B1]: 100, IDS[B3]: 156}},
    uncounted={"web": 3, f"{IDS[B1]:#010x}": 2},
    dealt={"web": "some", f"{IDS[B1]:#010x}": "none"},
    health={
        f"web/{B1}/8080": Health(HealthState.HEALTHY, 1000.5, 0, "status 200", 5),
        f"web/{B2}/8080": Health(HealthState.UNHEALTHY, 1001.0, 1, "refused"),
    },
    drains={
        f"web/{B1}/8080": Drain(1000.0, 1300.0, DrainCause.DRAINED),
        f"web/{B2}/8080": Drain(1000.0, None, DrainCause.POOL_LEFT),
        f"old/{B3}/0": Drain(1000.0, 1300.0, DrainCause.REMOVED, OLD),
        f"old/{B2}/0": Drain(1000.0, 1300.0, DrainCause.GONE, {**OLD, "backends": [backend(B2)]}),
    },
    expired=frozenset({f"web/{B1}/8080"}),
    failed_over=frozenset({"web"}),
    joined={f"web/{B2}/8080": 1000.0},
    ramps={f"web/{B2}/8080": 4},
    ending={IDS[B1]: 1002.0},
    completed_fates={IDS[B3]: BackendFate(Fate.END, Fate.MOVE)},
)
SETTINGS = {
    "hash_seed": 7,
    "vip_mode": "address",
    "vip_interface": "lan",
    "vip_dedicated": None,
    "forward_policy": "vips",
    "log_group": 5,
}
SECTIONS = LASTING + SINCE_BOOT + HEALTH
OTHERS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 65536, 2**31, 2**32, 2**63, 10**30, 10**400, 1.5, -0.5, 1e300),
    *(float("nan"), float("inf"), "", "0", "all", "x" * 5000, "\0", "\ud800", "../x", "web", B1, VIP6, "0.0.0.0"),
    *([], [None], [[]], {}, {"x": 1}, {"": None}),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return the store of a node that has every kind of file."""
    store, files = Store(str(tmp_path / "etc")), PendingFiles()
    store.write_configuration(files, Configuration.from_document(NODE))
    files.commit()
    store.save_runtime(RUNTIME, Runtime())
    store.save_vips([Address("lan", VIP), Address("lan", VIP6)])
    Path(store.config_dir, "node.json").write_text(json.dumps(SETTINGS), encoding="ascii")
    return store


def one_value_edits(content: Any, others: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the path of each value of a JSON document, with a copy in which only this value differs."""

    def changed(path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
        result = copy.deepcopy(content)
        place = result
        for key in path[:-1]:
            place = place[key]
        change(place, path[-1])
        return result

    def put_value(value: Any, place: Any, key: Any) -> None:
        place[key] = value

    def remove(place: Any, key: Any) -> None:
        del place[key]

    def rename(place: Any, key: Any) -> None:
        place[f"{key}x"] = place.pop(key)

    def walk(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
        if path:
            for other in others:
                if type(other) is not type(value) or other != value:
                    yield path, changed(path, partial(put_value, other))
            yield path, changed(path, remove)
        if isinstance(value, dict):
            for key in value:
                yield (*path, key), changed((*path, key), rename)
                yield from walk(value[key], (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from walk(item, (*path, index))

    yield from walk(content, ())
    for other in others:
        yield (), other


def each_edit_written(path: str, others: tuple[Any, ...] = OTHERS) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """For each value of a file, write the file with this value changed, and yield its path and the content."""
    original = Path(path).read_text("utf-8")
    for place, content in one_value_edits(json.loads(original), others):
        Path(path).write_text(json.dumps(content), encoding="ascii")
        yield place, content
    Path(path).write_text(original, encoding="utf-8")


def assert_usable(desired: Document, runtime: Runtime) -> None:
    """Fail if no plan can be made from what was read."""
    configuration = Configuration.from_document(desired)
    after = transition(runtime, Event(configuration, configuration, 1100.0), dict)
    json.dumps(after.visible_in_kernel)
    assert plan(effective(configuration, after), Settings(), Live(), after)


def test_configuration(store: Store) -> None:
    assert store.configuration() == NODE
    refused = accepted = 0
    for place, _content in each_edit_written(store.listeners_file):
        try:
            read = store.configuration()
        except NodeError as error:
            assert str(error).startswith(f"{store.listeners_file}: ")
            refused += 1
        else:
            again = put(*read.values())({})
            assert again == read, place
            assert json.dumps(again, sort_keys=True) == json.dumps(read, sort_keys=True), place
            assert_usable(read, Runtime())
            accepted += 1
    print(f"listeners.json: {refused + accepted} one-value edits: {refused} refused, {accepted} valid")
    assert refused > 3000
    assert store.configuration() == NODE


@pytest.mark.parametrize("name", ["runtime.json", "health.json", "since_boot.json"])
def test_runtime(store: Store, name: str) -> None:
    path = os.path.join(store.run_dir if name == "since_boot.json" else store.state_dir, name)
    assert store.read_runtime() == (RUNTIME, [])
    refused = rejected = accepted = 0
    seen = {repr(RUNTIME)}
    for place, _content in each_edit_written(path):
        try:
            runtime, texts = store.read_runtime()
        except NodeError as error:
            assert str(error).startswith(f"{path}: format ")
            assert place[:1] in ((), ("format",))
            refused += 1
            continue
        assert all(text.startswith(f"{path}: ") for text in texts)
        if repr(runtime) not in seen:
            seen.add(repr(runtime))
            assert_usable(NODE, runtime)
            sections = sections_as_json(runtime, SECTIONS)
            assert checked_sections({"format": FORMAT, **sections}, SECTIONS) == (vars(runtime), []), place
        if place and place[0] in RUNTIME.__dataclass_fields__:
            # All other sections, and all other records of the same section, are unchanged.
            for field in RUNTIME.__dataclass_fields__:
                before, after = getattr(RUNTIME, field), getattr(runtime, field)
                if field == place[0] and len(place) > 1 and isinstance(before, (dict, frozenset)):
                    lost = {str(key) for key in before} - {str(key) for key in after}
                    # A list has no keys, so the lost record may be any of its names.
                    assert len(lost) <= 1 if isinstance(before, frozenset) else lost <= {str(place[1])}, (place, lost)
                elif field != place[0] and {field, place[0]} != {"joined", "ramps"}:
                    assert before == after, place
        if texts:
            rejected += 1
        else:
            accepted += 1
    print(
        f"{name}: {refused + rejected + accepted} one-value edits: {refused} refused, {rejected} rejected a record, "
        f"{accepted} valid"
    )
    assert rejected > 300
    assert refused > 20


def test_vips(store: Store) -> None:
    path = os.path.join(store.state_dir, "vips.json")
    refused = accepted = 0
    for place, _content in each_edit_written(path):
        try:
            read = store.vips()
        except NodeError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
        else:
            for vip in read:
                assert str(ipaddress.ip_address(vip.address)) == vip.address, place
                assert 1 <= len(vip.interface) <= 15 and vip.interface.isprintable(), place
            accepted += 1
    print(f"vips.json: {refused + accepted} one-value edits: {refused} refused, {accepted} valid")
    assert refused > 100


def test_settings(store: Store) -> None:
    path = os.path.join(store.config_dir, "node.json")
    refused = accepted = 0
    for place, _content in each_edit_written(path):
        try:
            read = store.settings()
        except NodeError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
        else:
            # A truth value is an int to isinstance.
            assert {type(read.hash_seed), type(read.log_group)} == {int} and 0 <= read.hash_seed < 2**32, place
            assert read.vip_mode in ("none", "address") and isinstance(read.vip_interface, str), place
            assert read.vip_dedicated in (None, True, False), place
            assert len(read.vip_interface) <= 15 and read.vip_interface.isprintable(), place
            accepted += 1
    print(f"node.json: {refused + accepted} one-value edits: {refused} refused, {accepted} valid")
    assert refused > 100


@pytest.mark.parametrize("name", ["applied.json", "unfinished.json"])
def test_records_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever these records contain, the kernel gets the table of the configuration."""
    machine = Machine(tmp_path / "etc")
    machine.install(monkeypatch)
    web = listener("web", backend(B1))
    machine.node.change(put(web))
    path = str(machine.folder / "run" / name)
    if name == "unfinished.json":
        note = {"destinations": [[VIP, "tcp", 80, 80]], "addresses": [["lan", VIP]]}
        Path(path).write_text(json.dumps(note), encoding="ascii")
    count = 0
    for _place, content in each_edit_written(path, (None, 1, "x", [], {})):
        if count % 2:
            machine.nft.run("add element inet evenflow vips4 { 198.18.0.99 }")
        Path(path).write_text(json.dumps(content), encoding="ascii")
        machine.node.change(put(web))
        machine.assert_holds(document(web))
        count += 1
    print(f"{name}: {count} one-value edits, none of them matters")
    assert count > 60


def test_files_that_are_not_json(store: Store) -> None:
    for path in ("listeners.json", "node.json", "state/vips.json"):
        for text in (b"", b"{", b"\xff\xfe", b"\0" * 4096, b"[" * 100000):
            full = Path(store.config_dir, path)
            original = full.read_bytes()
            full.write_bytes(text)
            with pytest.raises(NodeError, match=f"{full}: not JSON"):
                {"listeners.json": store.configuration, "node.json": store.settings}.get(path, store.vips)()
            full.write_bytes(original)
    for path in ("state/runtime.json", "state/health.json", "run/since_boot.json"):
        full = Path(store.config_dir, path)
        original = full.read_bytes()
        full.write_bytes(original[:-9])
        runtime, texts = store.read_runtime()
        assert len(texts) == 1 and texts[0].startswith(f"{full}: not JSON")
        assert runtime != RUNTIME
        full.write_bytes(original)
    assert store.read_runtime() == (RUNTIME, [])


def test_format_2_of_the_runtime_state_is_migrated(store: Store) -> None:
    """Format 2 has the health beside the drains; what is written afterwards replaces it."""
    sections = sections_as_json(RUNTIME, LASTING + HEALTH)
    Path(store.state_dir, "runtime.json").write_text(json.dumps({"format": 2, **sections}), encoding="ascii")
    Path(store.state_dir, "health.json").unlink()
    assert store.read_runtime() == (RUNTIME, [])
    healed = replace(RUNTIME, health={f"web/{B2}/8080": Health(HealthState.HEALTHY, 1002.0)})
    store.save_runtime(healed, RUNTIME)
    assert store.read_runtime() == (healed, [])


def test_format_1_of_the_runtime_state_is_migrated(store: Store) -> None:
    """Format 1 has no format number, uses lists for records and has other names for three sections."""
    old = {
        "health": {
            f"web/{B1}/8080": ["healthy", 1000.5, 0, "status 200", 5],
            f"web/{B2}/8080": ["unhealthy", 1001.0, 1, "refused", None],
        },
        "drains": {
            f"web/{B1}/8080": [1000.0, 1300.0, "drained", None],
            f"web/{B2}/8080": [1000.0, None, "pool left", None],
            f"old/{B3}/0": [1000.0, 1300.0, "removed", OLD],
            f"old/{B2}/0": [1000.0, 1300.0, "gone", {**OLD, "backends": [backend(B2)]}],
        },
        "past": [f"web/{B1}/8080"],
        "standby": ["web"],
        "joined": {f"web/{B2}/8080": 1000.0},
        "ramps": {f"web/{B2}/8080": 4},
        "settled": {str(IDS[B3]): ["end", "move"]},
    }
    since_boot = {
        "shares": {"lc": {str(IDS[B1]): 100, str(IDS[B3]): 156}},
        "uncounted": {"web": 3, f"{IDS[B1]:#010x}": 2},
        "ending": {str(IDS[B1]): 1002.0},
    }
    Path(store.state_dir, "runtime.json").write_text(json.dumps(old), encoding="ascii")
    Path(store.run_dir, "since_boot.json").write_text(json.dumps(since_boot), encoding="ascii")
    Path(store.state_dir, "health.json").unlink()
    assert store.read_runtime() == (replace(RUNTIME, dealt={}), [])


def test_a_damaged_health_record_is_reported_and_no_drain_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path / "etc")
    machine.install(monkeypatch)
    web = listener("web", backend(B1, admin_state="drained"), backend(B2), health_check=check())
    machine.node.change(put(web))
    machine.node.reconcile({f"web/{B2}/0": Health(HealthState.HEALTHY, 5.0)}, save=True)
    before = machine.view.runtime()
    path = machine.folder / "state" / "health.json"
    damaged = json.loads(path.read_text("utf-8"))
    damaged["health"][f"web/{B2}/0"]["state"] = "dead"
    path.write_text(json.dumps(damaged), encoding="ascii")
    outcome = machine.node.change(put(web))
    assert len(outcome.rejected) == 1
    assert f"{path}: health: 'web/{B2}/0': 'dead' is not one of initial, healthy, unhealthy" in outcome.rejected[0]
    assert outcome.runtime_after.drains == before.drains
    assert outcome.runtime_after.health[f"web/{B2}/0"].state == HealthState.INITIAL
    assert not machine.node.change(put(web)).rejected


def test_a_newer_format_of_the_runtime_state_stops_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 49: the live table is unchanged and no file is overwritten."""
    machine = Machine(tmp_path / "etc")
    machine.install(monkeypatch)
    machine.node.change(put(listener("web", backend(B1, admin_state="drained"))))
    path = machine.folder / "state" / "runtime.json"
    path.write_text(path.read_text("utf-8").replace('"format": 3', '"format": 4'), encoding="ascii")
    files, held = machine.files(), machine.nft.read_table()
    with pytest.raises(NodeError, match="runtime.json: format 4 is not 3, the one this version reads; was it written"):
        Node(str(machine.folder)).change(put(listener("web", backend(B1), backend(B2))))
    assert (machine.files(), machine.nft.read_table()) == (files, held)


def test_a_file_that_was_edited_by_hand_is_read_in_canonical_form(store: Store) -> None:
    content = json.loads(Path(store.listeners_file).read_text("utf-8"))
    content["listeners"]["web"]["backends"][0]["weight"] = "3"
    content["listeners"]["web"]["backends"].reverse()
    Path(store.listeners_file).write_text(json.dumps(content), encoding="ascii")
    read = store.configuration()
    assert read["web"]["backends"][0]["weight"] == 3
    assert with_listeners({}, list(read.values()), replaced=True) == read
    content["listeners"]["dns"].update(address=VIP, protocol="tcp", ports=["443"])
    Path(store.listeners_file).write_text(json.dumps(content), encoding="ascii")
    with pytest.raises(NodeError, match="listeners.json: .*backend .*is not IPv4.*; .*443/tcp on .* is served by"):
        store.configuration()
