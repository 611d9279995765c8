# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of running nft and reading its output; nft 1.0.6 printed the samples on Linux 6.18."""

from __future__ import annotations

import re
import socket
import stat
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import NodeError
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import live_table, runner
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft import transaction as transaction_module
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.limits import Bucket
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.objects import LiveChain
from ansible_collections.evenflow.l4lb.plugins.module_utils._nft.transaction import Kind, Statement, Transaction, Verb

SAMPLES = Path(__file__).parent / "fixtures"

Program = Callable[[str], Path]


@pytest.fixture
def nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Return a function that makes a program nft from shell text; each call records its arguments and input."""
    monkeypatch.setattr(runner, "_PATH", str(tmp_path))

    def make(text: str) -> Path:
        program = tmp_path / "nft"
        program.write_text(
            '#!/bin/sh\ncd "${0%/*}" || exit\nn=0\nwhile [ -e "call$n" ]; do n=$((n + 1)); done\n'
            f'{{ echo "$@"; /bin/cat; }} >"call$n"\n{text}\n',
            encoding="ascii",
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return tmp_path

    return make


def calls(folder: Path) -> list[str]:
    """Return the recorded arguments and input of each call."""
    return [path.read_text(encoding="ascii") for path in sorted(folder.glob("call*"))]


def transaction(*statements: str) -> Transaction:
    """Return the transaction of some statements."""
    pattern = re.compile(r"(\w+) (ct timeout|\w+) inet evenflow ?(\S*) ?(.*)")
    matches = [pattern.fullmatch(text) for text in statements]
    return Transaction(Statement(Verb(match[1]), Kind(match[2]), match[3], match[4]) for match in matches if match)


class TestTable:
    def test_read(self, nft: Program) -> None:
        folder = nft(f"exec /bin/cat {SAMPLES}/table.json")
        table = live_table.read_table()
        assert table is not None
        assert calls(folder) == ["-j list table inet evenflow\n"]
        assert table.chains == {
            "to_backend": LiveChain(("aa 1/2", "aa 2/2")),
            "refuse": LiveChain(("",)),
            "l_web": LiveChain(("bb 1/1", "")),
            "gate_in": LiveChain((), "type filter hook prerouting priority -110; policy accept;"),
        }
        assert {name: (each.kind, each.elements) for name, each in table.sets.items()} == {
            "listeners4": ("map", {("198.18.0.1", "tcp", 80): "goto l_web", ("198.18.0.1", "udp", 53): "drop"}),
            "listeners6": ("map", {("2001:db8::1", "tcp", 80): "goto l_web"}),
            "to4port": ("map", {0x80000001: ("198.18.1.1", 8080)}),
            "to4": ("map", {0x80000002: "198.18.1.2"}),
            "endpoints4": ("set", {("198.18.1.1", "tcp", 8080): None}),
            "vips6": ("set", {"2001:db8::1": None}),
            "acct_in": ("set", {0x80000001: None, 0x80000002: None}),
            "slots_web": ("map", {0: 0x80000001, 1: 0x80000002}),
        }

    def test_foreign_objects_in_the_table_are_read(self, nft: Program) -> None:
        """Objects of other programs only need to be removed, whatever elements they have."""
        nft(f"exec /bin/cat {SAMPLES}/foreign.json")
        table = live_table.read_table()
        assert table is not None
        assert {name: each.kind for name, each in table.sets.items()} == {
            "blocked": "set",
            "nets": "set",
            "timed": "set",
            "m": "map",
            "im": "map",
        }
        assert table.sets["m"].elements == {"198.18.9.1": 1}
        assert set(table.chains) == {"c", "d"}

    @pytest.mark.parametrize("flags", ['"dormant"', '["dormant"]', '"ipv4_addr"'])
    def test_a_dormant_table(self, nft: Program, flags: str) -> None:
        """For a dormant table nft 1.0.6 prints the name of a type."""
        folder = nft("exec /bin/cat table.json")
        text = (SAMPLES / "table.json").read_text(encoding="ascii")
        old = '"name": "evenflow", "handle"'
        assert text.count(old) == 1
        (folder / "table.json").write_text(text.replace(old, f'"name": "evenflow", "flags": {flags}, "handle"'))
        table = live_table.read_table()
        assert table is not None and table.is_dormant
        (folder / "table.json").write_text(text)
        table = live_table.read_table()
        assert table is not None and not table.is_dormant

    @pytest.mark.parametrize(
        "entry",
        [
            '{"map": {"name": "m", "elem": [[["a"], 1]]}}',
            '{"set": {"name": "s", "elem": [{"elem": {}}]}}',
            '{"rule": {"chain": "unknown"}}',
            "{}",
            '{"set": 5}',
        ],
    )
    def test_a_table_that_cannot_be_understood_must_be_replaced(self, nft: Program, entry: str) -> None:
        nft(f"echo '{{\"nftables\": [{entry}]}}'")
        table = live_table.read_table()
        assert table is not None and table.is_refused

    def test_a_missing_table(self, nft: Program) -> None:
        nft('echo "Error: No such file or directory" >&2; exit 1')
        assert live_table.read_table() is None

    def test_refused(self, nft: Program) -> None:
        nft('echo "Error: Operation not permitted" >&2; exit 1')
        expected = r"nft -j list table inet evenflow: Error: Operation not permitted \(exit code 1\)"
        with pytest.raises(NodeError, match=expected):
            live_table.read_table()

    def test_a_missing_program_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runner, "_PATH", str(tmp_path))
        with pytest.raises(NodeError, match="install the package nftables"):
            live_table.read_table()


class TestCounters:
    def test_read(self, nft: Program) -> None:
        text = (SAMPLES / "counters.json").read_text(encoding="ascii")
        folder = nft("exec /bin/cat counted.json")
        (folder / "counted.json").write_text(text.replace('"packets": 0, "bytes": 0', '"packets": 3, "bytes": 99', 1))
        assert live_table.read_counters("acct_in") == {0x80000001: (3, 99), 0x80000002: (0, 0)}
        assert calls(folder) == ["-j list set inet evenflow acct_in\n"]

    def test_empty_and_missing(self, nft: Program) -> None:
        nft("""echo '{"nftables": [{"metainfo": {}}, {"set": {"name": "acct_in"}}]}'""")
        assert live_table.read_counters("acct_in") == {}
        nft('echo "Error: No such file or directory" >&2; exit 1')
        assert live_table.read_counters("acct_in") == {}


class TestBuckets:
    LISTED = """table inet evenflow {
    set bucket {
        elements = { 0x80000001 counter packets 7 bytes 259 limit rate over 1/week burst 3 packets,
                 ipv6 counter packets 0 bytes 0 limit rate over 1/week burst 15000 packets }
    }
}"""

    def test_places_and_flows_that_asked(self, nft: Program) -> None:
        folder = nft("exec /bin/cat listed")
        (folder / "listed").write_text(self.LISTED)
        assert live_table.read_buckets(["bucket"]) == {
            ("bucket", 0x80000001): Bucket(3, 7),
            ("bucket", "ipv6"): Bucket(15000, 0),
        }
        assert calls(folder) == ["list set inet evenflow bucket\n"]

    def test_missing(self, nft: Program) -> None:
        nft('echo "Error: No such file or directory" >&2; exit 1')
        assert live_table.read_buckets(["bucket", "bucket_web"]) == {}


class TestApply:
    STATEMENTS = ("flush chain inet evenflow l_a", "delete chain inet evenflow l_a", "delete map inet evenflow slots_a")

    def test_the_transaction_is_the_input_of_a_single_run(self, nft: Program) -> None:
        folder = nft("exit 0")
        runner.apply(transaction(*self.STATEMENTS))
        assert calls(folder) == ["-f -\n" + "\n".join(self.STATEMENTS) + "\n"]

    def test_refused(self, nft: Program) -> None:
        folder = nft('echo "/dev/stdin:1:1: Error: File exists" >&2; exit 1')
        with pytest.raises(NodeError, match="File exists"):
            runner.apply(transaction(*self.STATEMENTS))
        assert len(calls(folder)) == 1

    def test_busy_deletions_run_in_a_second_transaction(self, nft: Program) -> None:
        folder = nft('[ $n -gt 0 ] || { echo "Error: Device or resource busy" >&2; exit 1; }')
        runner.apply(transaction(*self.STATEMENTS))
        assert calls(folder)[1:] == [
            f"-f -\n{self.STATEMENTS[0]}\n",
            f"-f -\n{self.STATEMENTS[1]}\n{self.STATEMENTS[2]}\n",
        ]

    @pytest.mark.parametrize("last", [1, 2])
    def test_a_refusal_after_a_busy_transaction(self, nft: Program, last: int) -> None:
        folder = nft(
            f'[ $n -eq 0 ] && {{ echo "Error: Device or resource busy" >&2; exit 1; }}\n'
            f'[ $n -lt {last} ] || {{ echo "Error: still" >&2; exit 1; }}'
        )
        with pytest.raises(NodeError, match="still"):
            runner.apply(transaction(*self.STATEMENTS))
        assert len(calls(folder)) == last + 1

    def test_busy_without_deletions_is_an_error(self, nft: Program) -> None:
        folder = nft('echo "Error: Device or resource busy" >&2; exit 1')
        with pytest.raises(NodeError, match="busy"):
            runner.apply(transaction(self.STATEMENTS[0]))
        assert len(calls(folder)) == 1


class TestHang:
    def test_an_nft_that_hangs_is_ended_with_an_error(self, nft: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runner, "SECONDS", 0.5)
        folder = nft("echo $$ >pid; exec /bin/sleep 1000")
        with pytest.raises(NodeError, match=r"nft -f -: no answer within 0\.5 s; it was ended"):
            runner.apply(transaction("flush chain inet evenflow l_a"))
        assert not Path("/proc", (folder / "pid").read_text().strip()).exists()


class TestBatches:
    @pytest.fixture
    def three(self, monkeypatch: pytest.MonkeyPatch) -> Transaction:
        """Return a transaction of three batches."""
        monkeypatch.setattr(transaction_module, "BATCH", 1)
        batches = Transaction()
        for name in ("a", "b", "c"):
            batches.flush_chain(name)
            batches.checkpoint()
        return batches

    def test_batches_run_one_after_the_other(self, nft: Program, three: Transaction) -> None:
        folder = nft("exit 0")
        assert runner.apply(three) == 3
        assert calls(folder) == [f"-f -\nflush chain inet evenflow {name}\n" for name in ("a", "b", "c")]

    def test_a_refused_later_batch_deletes_the_table(self, nft: Program, three: Transaction) -> None:
        folder = nft('[ $n -lt 2 ] || { echo "Error: File exists" >&2; exit 1; }')
        with pytest.raises(NodeError, match="File exists"):
            runner.apply(three)
        assert calls(folder)[-1] == "delete table inet evenflow\n"

    def test_a_refused_first_batch_deletes_nothing(self, nft: Program, three: Transaction) -> None:
        folder = nft('echo "Error: File exists" >&2; exit 1')
        with pytest.raises(NodeError, match="File exists"):
            runner.apply(three)
        assert len(calls(folder)) == 1


class Netlink:
    """A netlink socket that returns a prepared answer."""

    answer = b""

    def __init__(self, *_arguments: Any) -> None:
        self.sent = b""

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_error: Any) -> None:
        return None

    def settimeout(self, seconds: float) -> None:
        """Accept any time-out."""

    def bind(self, address: tuple[int, int]) -> None:
        """Accept any address."""

    def send(self, message: bytes) -> None:
        """Check the request."""
        assert message == bytes.fromhex("14000000100a0100010000000000000000000000")

    def recv(self, _size: int) -> bytes:
        """Return the answer."""
        return self.answer


class TestGeneration:
    @pytest.mark.parametrize(
        ("answer", "generation"),
        [
            ("300000000f0a000001000000f025000000000001080001000000000108000200000025f00c000300707974686f6e3300", 1),
            ("300000000f0a000001000000ef25000000000002080001000000000208000200000025ef0c000300707974686f6e3300", 2),
            # The attributes are in another order, and the first has padding.
            (
                "300000000f0a000001000000ef25000000000002090003007079746800000000080001000a0b0c0d08000200000025ef",
                0x0A0B0C0D,
            ),
        ],
    )
    def test_read(self, monkeypatch: pytest.MonkeyPatch, answer: str, generation: int) -> None:
        monkeypatch.setattr(socket, "socket", Netlink)
        monkeypatch.setattr(Netlink, "answer", bytes.fromhex(answer))
        assert runner.generation() == generation

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            ("280000000200000001000000fa0c0000ffffffff14000000100a0100010000000000000000000000", "not permitted"),
            ("1c0000000f0a000001000000ef2500000000000208000200000025ef", "does not hold an nftables generation"),
            ("140000000f0a000001000000ef25000000000002", "does not hold an nftables generation"),
        ],
    )
    def test_refused(self, monkeypatch: pytest.MonkeyPatch, answer: str, text: str) -> None:
        monkeypatch.setattr(socket, "socket", Netlink)
        monkeypatch.setattr(Netlink, "answer", bytes.fromhex(answer))
        with pytest.raises(NodeError, match=text):
            runner.generation()
