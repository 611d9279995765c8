# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The night test: six backends are restarted in their turns, and nobody notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab
from lab.fleet import Fleet
from lab.night import prepare, spend
from lab.traffic import failures, shares


@pytest.fixture
def large(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A lab of its own with six backends; down at the end whatever happened."""
    monkeypatch.delenv("EVENFLOW_LAB_BACKENDS", raising=False)
    other = Lab(f"{lab.name[:20]}-night", backends=6)
    other.up()
    yield other
    other.down()


def test_night(large: Lab, tmp_path: Path) -> None:
    """No request, datagram or stream fails, and each backend is idle when its services are restarted."""
    fleet = Fleet(large)
    fleet.deploy([], lb_node_purge="all")
    prepare(large, fleet)
    night = spend(large, fleet, tmp_path)
    names = [node.name for node in large.nodes("backend")]
    assert night.play.returncode == 0, night.play.stdout[-3000:]
    assert sorted(night.restarted) == sorted(night.drained) == names
    assert {name: count for name, (_time, count) in night.restarted.items()} == dict.fromkeys(names, 0)
    for found in (night.requests, night.datagrams, night.streams):
        assert set(shares(found)) == set(names)
        assert not failures(found), failures(found)[:5]
    assert len(night.requests) > 3000 and len(night.datagrams) > 3000 and len(night.streams) > 100
