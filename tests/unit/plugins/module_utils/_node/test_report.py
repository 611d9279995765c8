# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the report about a node."""

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
    """Replace the kernel by counters by set, which a test fills; reading anything else fails."""
    counted: dict[str, dict[int, tuple[int, int]]] = {}
    monkeypatch.setattr(runner, "_PATH", "")
    monkeypatch.setattr(live_table, "read_counters", counted.__getitem__)
    return counted


def report_of(
    folder: Path, configured: Document = NODE, gather: tuple[str, ...] = (), names: Any = None, seed: int | None = None
) -> dict[str, Any]:
    """Return the report of a node with a configuration."""
    store = Store(str(folder))
    files = PendingFiles()
    store.write_configuration(files, Configuration.from_document(configured))
    files.commit()
    if seed is not None:
        (folder / "node.json").write_text(f'{{"hash_seed": {seed}}}', encoding="ascii")
    return report(NodeView(str(folder)), gather, names)


def test_the_report_without_optional_parts(tmp_path: Path) -> None:
    result = report_of(tmp_path)
    assert [entry["name"] for entry in result["listeners"]] == ["api", "off", "web"]
    assert result["listeners"][2] == {
        "name": "web",
        "backends": [
            {"name": "one", "address": ONE, "port": 0, "id": f"{MARKS['web', ONE, 0]:#010x}"},
            {"name": TWO, "address": TWO, "port": 81, "id": f"{MARKS['web', TWO, 81]:#010x}"},
        ],
    }
    assert result["fingerprint"] == fingerprint(NODE)
    assert {"hash_seed": 24301, "vip_mode": "none", "vip_interface": ""}.items() <= result["node"].items()


def test_the_configuration(tmp_path: Path) -> None:
    web = report_of(tmp_path, gather=("config",))["listeners"][2]
    assert {**web, "backends": [{**entry, "id": ""} for entry in web["backends"]]} == {
        **WEB,
        "backends": [{**entry, "id": ""} for entry in WEB["backends"]],
    }


def test_the_status_of_listeners_and_backends(tmp_path: Path) -> None:
    listeners = {entry["name"]: entry for entry in report_of(tmp_path, gather=("status",))["listeners"]}
    assert {name: entry["status"] for name, entry in listeners.items()} == {
        "web": "no_monitor",
        "api": "offline",
        "off": "disabled",
    }
    assert [entry["status"] for entry in listeners["api"]["backends"]] == ["drained", "no_monitor"]


def test_the_slot_tables(tmp_path: Path) -> None:
    listeners = {entry["name"]: entry for entry in report_of(tmp_path, gather=("tables",))["listeners"]}
    assert listeners["web"]["table"] == {"scheduler": "mh", "size": 1009, "worst_error_slots": 0.25}
    assert [entry["slots"] for entry in listeners["web"]["backends"]] == [757, 252]
    assert listeners["off"]["table"] == {"scheduler": "rr", "size": 1, "worst_error_slots": 0.0}
    assert listeners["api"]["table"] == {"scheduler": "mh", "size": 0, "worst_error_slots": 0.0}
    assert [entry["slots"] for entry in listeners["api"]["backends"]] == [0, 0]


def test_the_error_of_the_minimum_of_a_slot_is_reported(tmp_path: Path) -> None:
    """Row 54."""
    configured = document(listener("web", backend(ONE, weight=1), backend(TWO, weight=65535)))
    web = report_of(tmp_path, configured, ("tables",))["listeners"][0]
    assert [entry["slots"] for entry in web["backends"]] == [1, 1008]
    assert web["table"]["worst_error_slots"] == round(1 - 1009 / 65536, 6)


def test_the_counters(tmp_path: Path, no_kernel: dict[str, dict[int, tuple[int, int]]]) -> None:
    first, second = MARKS["web", ONE, 0], MARKS["web", TWO, 81]
    no_kernel["acct_new"] = {first: (5, 300), second: (1, 60)}
    no_kernel["acct_in"] = {first: (50, 4000)}
    no_kernel["acct_out"] = {first: (40, 90000), second: (2, 80), 1: (9, 9)}
    listeners = report_of(tmp_path, gather=("counters",), names=["web"])["listeners"]
    assert [entry["counters"] for entry in listeners[0]["backends"]] == [
        {"flows": 5, "packets_in": 50, "bytes_in": 4000, "packets_out": 40, "bytes_out": 90000},
        {"flows": 1, "packets_in": 0, "bytes_in": 0, "packets_out": 2, "bytes_out": 80},
    ]
    assert listeners[0]["counters"] == {
        "flows": 6,
        "packets_in": 50,
        "bytes_in": 4000,
        "packets_out": 42,
        "bytes_out": 90080,
        "refused": {},
    }


def test_refused_flows_are_counted_by_the_option(
    tmp_path: Path, no_kernel: dict[str, dict[int, tuple[int, int]]]
) -> None:
    limits = {"source_ranges": ["198.18.0.0/24"], "max_connections_per_client": {"limit": 1, "prefix": None}}
    no_kernel.update({name: {} for name in ("acct_new", "acct_in", "acct_out")}, refused_web={1: (7, 420), 3: (2, 80)})
    web = report_of(tmp_path, document({**WEB, **limits}), ("counters",))["listeners"][0]
    assert web["counters"]["refused"] == {"source_ranges": 7, "max_connections_per_client": 2}


@pytest.mark.parametrize(("names", "expected"), [(["web", "none"], ["web"]), ([], []), (None, ["api", "off", "web"])])
def test_the_report_on_selected_listeners(tmp_path: Path, names: Any, expected: list[str]) -> None:
    result = report_of(tmp_path, names=names)
    assert [entry["name"] for entry in result["listeners"]] == expected
    assert (result["fingerprint"], result["table_digest"]) == tuple(
        report_of(tmp_path)[name] for name in ("fingerprint", "table_digest")
    )


def test_a_report_writes_no_file(tmp_path: Path, no_kernel: dict[str, dict[int, tuple[int, int]]]) -> None:
    report_of(tmp_path)
    no_kernel.update(acct_new={}, acct_in={}, acct_out={})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    report(NodeView(str(tmp_path)), GATHER, None)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


class TestTableDigest:
    """The digest is equal on nodes that would send every flow to the same backend."""

    def digest(self, folder: Path, *listeners: dict[str, Any], seed: int = 24301) -> str:
        """Return the digest of a node with listeners."""
        return str(report_of(folder, document(*listeners), seed=seed)["table_digest"])

    @pytest.mark.parametrize(
        "other",
        [
            {**WEB, "description": "other"},
            {**WEB, "minimum_ring_size": 1009},
            {**WEB, "backends": [{**WEB["backends"][0], "name": "other"}, WEB["backends"][1]]},
        ],
    )
    def test_options_that_move_no_flow_keep_the_digest(self, tmp_path: Path, other: dict[str, Any]) -> None:
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
    def test_options_that_move_flows_change_the_digest(self, tmp_path: Path, other: dict[str, Any]) -> None:
        assert self.digest(tmp_path, WEB) != self.digest(tmp_path, other)

    def test_the_seed_changes_the_digest(self, tmp_path: Path) -> None:
        assert self.digest(tmp_path, WEB) != self.digest(tmp_path, WEB, seed=1)

    def test_the_seed_does_not_change_the_digest_of_round_robin(self, tmp_path: Path) -> None:
        assert self.digest(tmp_path, OFF) == self.digest(tmp_path, OFF, seed=1)

    def test_rr_ignores_weights(self, tmp_path: Path) -> None:
        heavier = {**OFF, "backends": [{**OFF["backends"][0], "weight": 5}]}
        assert self.digest(tmp_path, OFF) == self.digest(tmp_path, heavier)
