# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is told of a node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.document import Document, fingerprint
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.identity import backend_ids
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Configuration
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import live_table, runner
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.report import GATHER, report
from ansible_collections.evenflow.l4lb.plugins.module_utils._node.view import NodeView
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.files import PendingFiles
from ansible_collections.evenflow.l4lb.plugins.module_utils._system.store import Store
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, configuration, document, listener

ONE, TWO = "198.19.0.1", "198.19.0.2"
WEB = listener("web", backend(ONE, name="one", weight=3), backend(TWO, 81, weight=1))
API = listener("api", backend(ONE, admin_state="drained"), backend(TWO, weight=0), ports=["443"])
OFF = listener("off", backend(ONE), ports=["8080"], admin_state="disabled", scheduler="rr")
NODE = document(WEB, API, OFF)
MARKS = backend_ids(configuration(WEB, API, OFF))


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[int, tuple[int, int]]]:
    """Return the counters of a kernel, by set, for a test to fill; nothing else of a kernel is there."""
    counted: dict[str, dict[int, tuple[int, int]]] = {}
    monkeypatch.setattr(runner, "_PATH", "")
    monkeypatch.setattr(live_table, "read_counters", counted.__getitem__)
    return counted


def told(
    folder: Path, wanted: Document = NODE, gather: tuple[str, ...] = (), names: Any = None, seed: int | None = None
) -> dict[str, Any]:
    """Return the report of a node with a configuration."""
    store = Store(str(folder))
    files = PendingFiles()
    store.write_configuration(files, Configuration.from_document(wanted))
    files.commit()
    if seed is not None:
        (folder / "node.json").write_text(f'{{"hash_seed": {seed}}}', encoding="ascii")
    return report(NodeView(str(folder)), gather, names)


def test_what_is_always_told(tmp_path: Path) -> None:
    found = told(tmp_path)
    assert [one["name"] for one in found["listeners"]] == ["api", "off", "web"]
    assert found["listeners"][2] == {
        "name": "web",
        "backends": [
            {"name": "one", "address": ONE, "port": 0, "id": f"{MARKS['web', ONE, 0]:#010x}"},
            {"name": TWO, "address": TWO, "port": 81, "id": f"{MARKS['web', TWO, 81]:#010x}"},
        ],
    }
    assert found["fingerprint"] == fingerprint(NODE)
    assert {"hash_seed": 24301, "vip_mode": "none", "vip_interface": ""}.items() <= found["node"].items()


def test_configuration(tmp_path: Path) -> None:
    found = told(tmp_path, gather=("config",))["listeners"][2]
    assert {**found, "backends": [{**one, "id": ""} for one in found["backends"]]} == {
        **WEB,
        "backends": [{**one, "id": ""} for one in WEB["backends"]],
    }


def test_status(tmp_path: Path) -> None:
    found = {one["name"]: one for one in told(tmp_path, gather=("status",))["listeners"]}
    assert {name: one["status"] for name, one in found.items()} == {
        "web": "no_monitor",
        "api": "offline",
        "off": "disabled",
    }
    assert [one["status"] for one in found["api"]["backends"]] == ["drained", "no_monitor"]


def test_tables(tmp_path: Path) -> None:
    found = {one["name"]: one for one in told(tmp_path, gather=("tables",))["listeners"]}
    assert found["web"]["table"] == {"scheduler": "mh", "size": 1009, "worst_error_slots": 0.25}
    assert [one["slots"] for one in found["web"]["backends"]] == [757, 252]
    assert found["off"]["table"] == {"scheduler": "rr", "size": 1, "worst_error_slots": 0.0}
    assert found["api"]["table"] == {"scheduler": "mh", "size": 0, "worst_error_slots": 0.0}
    assert [one["slots"] for one in found["api"]["backends"]] == [0, 0]


def test_the_error_of_a_minimum_is_reported(tmp_path: Path) -> None:
    """Row 54."""
    wanted = document(listener("web", backend(ONE, weight=1), backend(TWO, weight=65535)))
    found = told(tmp_path, wanted, ("tables",))["listeners"][0]
    assert [one["slots"] for one in found["backends"]] == [1, 1008]
    assert found["table"]["worst_error_slots"] == round(1 - 1009 / 65536, 6)


def test_counters(tmp_path: Path, no_kernel: dict[str, dict[int, tuple[int, int]]]) -> None:
    one, two = MARKS["web", ONE, 0], MARKS["web", TWO, 81]
    no_kernel["acct_new"] = {one: (5, 300), two: (1, 60)}
    no_kernel["acct_in"] = {one: (50, 4000)}
    no_kernel["acct_out"] = {one: (40, 90000), two: (2, 80), 1: (9, 9)}
    found = told(tmp_path, gather=("counters",), names=["web"])["listeners"]
    assert [one["counters"] for one in found[0]["backends"]] == [
        {"flows": 5, "packets_in": 50, "bytes_in": 4000, "packets_out": 40, "bytes_out": 90000},
        {"flows": 1, "packets_in": 0, "bytes_in": 0, "packets_out": 2, "bytes_out": 80},
    ]
    assert found[0]["counters"] == {
        "flows": 6,
        "packets_in": 50,
        "bytes_in": 4000,
        "packets_out": 42,
        "bytes_out": 90080,
    }


@pytest.mark.parametrize(("names", "expected"), [(["web", "none"], ["web"]), ([], []), (None, ["api", "off", "web"])])
def test_some_listeners(tmp_path: Path, names: Any, expected: list[str]) -> None:
    found = told(tmp_path, names=names)
    assert [one["name"] for one in found["listeners"]] == expected
    assert (found["fingerprint"], found["table_digest"]) == tuple(
        told(tmp_path)[name] for name in ("fingerprint", "table_digest")
    )


def test_nothing_is_written(tmp_path: Path, no_kernel: dict[str, dict[int, tuple[int, int]]]) -> None:
    told(tmp_path)
    no_kernel.update(acct_new={}, acct_in={}, acct_out={})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    report(NodeView(str(tmp_path)), GATHER, None)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


class TestTableDigest:
    """Equal on nodes that would send every flow to the same backend."""

    def digest(self, folder: Path, *listeners: dict[str, Any], seed: int = 24301) -> str:
        """Return the digest of a node with listeners."""
        return str(told(folder, document(*listeners), seed=seed)["table_digest"])

    @pytest.mark.parametrize(
        "other",
        [
            {**WEB, "description": "other"},
            {**WEB, "minimum_ring_size": 1009},
            {**WEB, "backends": [{**WEB["backends"][0], "name": "other"}, WEB["backends"][1]]},
        ],
    )
    def test_what_moves_no_flow(self, tmp_path: Path, other: dict[str, Any]) -> None:
        assert self.digest(tmp_path, WEB) == self.digest(tmp_path, other)

    @pytest.mark.parametrize(
        "other",
        [
            {**WEB, "ports": ["80", "81"]},
            {**WEB, "address": "198.18.0.11"},
            {**WEB, "protocol": "udp"},
            {**WEB, "admin_state": "disabled"},
            {**WEB, "scheduler": "wrr"},
            {**WEB, "minimum_ring_size": 1010},
            {**WEB, "session_affinity": "client_ip"},
            {**WEB, "backends": WEB["backends"][:1]},
            {**WEB, "backends": [{**WEB["backends"][0], "weight": 4}, WEB["backends"][1]]},
            {**WEB, "backends": [{**WEB["backends"][0], "port": 82}, WEB["backends"][1]]},
        ],
    )
    def test_what_moves_flows(self, tmp_path: Path, other: dict[str, Any]) -> None:
        assert self.digest(tmp_path, WEB) != self.digest(tmp_path, other)

    def test_the_seed(self, tmp_path: Path) -> None:
        assert self.digest(tmp_path, WEB) != self.digest(tmp_path, WEB, seed=1)

    def test_the_seed_does_not_concern_counted_tables(self, tmp_path: Path) -> None:
        assert self.digest(tmp_path, OFF) == self.digest(tmp_path, OFF, seed=1)

    def test_rr_ignores_weights(self, tmp_path: Path) -> None:
        heavier = {**OFF, "backends": [{**OFF["backends"][0], "weight": 5}]}
        assert self.digest(tmp_path, OFF) == self.digest(tmp_path, heavier)
