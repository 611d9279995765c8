# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backends are restarted one after the other, and no flow fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab import Lab
from lab.fleet import Fleet
from lab.night import DATABASE_CHECK, Night, common_services, database_and_dns, maintain, prepare
from lab.traffic import failures, shares


@contextmanager
def _lab(name: str, backends: int, packages: tuple[str, ...] = (), **variables: Any) -> Iterator[tuple[Lab, Fleet]]:
    """Yield a separate lab and its fleet, and take the lab down at the end."""
    lab = Lab(f"{os.environ.get('EVENFLOW_LAB', 'evenflow')[:20]}-{name}", backends=backends, packages=packages)
    try:
        lab.up()
        fleet = Fleet(lab)
        fleet.deploy([], lb_node_purge="all", **variables)
        yield lab, fleet
    finally:
        lab.down()


@pytest.fixture(autouse=True)
def no_other_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENFLOW_LAB_BACKENDS", raising=False)


def _check(lab: Lab, night: Night) -> None:
    """Check that every backend was restarted in its turn without connections, and that no flow failed."""
    names = [node.name for node in lab.nodes("backend")]
    assert night.play.returncode == 0, night.play.stdout[-3000:]
    assert sorted(night.restarted) == sorted(night.drained) == names
    assert {name: count for name, (_time, count) in night.restarted.items()} == dict.fromkeys(names, 0)
    for kind, flows in night.flows.items():
        print(f"{kind}: {len(flows)}, failed: {len(failures(flows))}")
        assert not failures(flows), failures(flows)[:5]


def test_night(tmp_path: Path) -> None:
    """Six backends: no request, datagram or stream fails."""
    with _lab("night", 6) as (lab, fleet):
        setting = common_services(lab)
        prepare(lab, fleet, setting)
        least = {"HTTP requests": 3000, "UDP datagrams": 3000, "TCP streams": 100}
        night = maintain(lab, fleet, tmp_path, setting, least)
        _check(lab, night)
        for kind, count in least.items():
            assert len(night.flows[kind]) >= count
            assert set(shares(night.flows[kind])) == {node.name for node in lab.nodes("backend")}


def test_night_of_a_database_and_dns(tmp_path: Path) -> None:
    """PostgreSQL with a client that reconnects for every transaction, and a DNS server: nothing fails."""
    scripts = {"lb_node_health_scripts": [str(DATABASE_CHECK)]}
    with _lab("db", 3, ("postgresql", "dnsmasq-base"), **scripts) as (lab, fleet):
        setting = database_and_dns(lab)
        prepare(lab, fleet, setting)
        night = maintain(lab, fleet, tmp_path, setting, dict.fromkeys(setting.traffic, 1000))
        _check(lab, night)
        assert all(len(flows) >= 1000 for flows in night.flows.values())
        assert set(shares(night.flows["DNS queries"])) == {"b1", "b2", "b3"}
