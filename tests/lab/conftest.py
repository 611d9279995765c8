# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the tests that run on the lab, and the order of the tests when several labs share them.

With `pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder`, every worker has a separate lab and takes the
next file when it has finished a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import forget_flows, forget_removed
from lab.traffic import abandon_loads

# Seconds that a file takes on 2 cores. The longest files begin first, so that the labs finish together.
# A file that is not listed begins before the listed ones.
_SECONDS = {
    "test_absent.py": 180,
    "test_fake_nft.py": 30,
    "test_tally.py": 0,
    "test_rolling.py": 240,
    "test_rows_affinity.py": 200,
    "test_rows_fate.py": 200,
    "test_rows_health.py": 190,
    "test_rows_changes.py": 170,
    "test_rows_drain.py": 170,
    "test_rows_repair.py": 260,
    "test_rows_admission.py": 160,
    "test_rows_forward.py": 150,
    "test_rows_ports.py": 110,
    "test_rows_selection.py": 110,
    "test_rows_leaks.py": 170,
    "test_seed.py": 120,
    "test_rows_scripts.py": 100,
    "test_services.py": 150,
    "test_rows_shares.py": 80,
    "test_rows_limits.py": 70,
    "test_rows_accounts.py": 50,
    "test_rows_snat.py": 50,
}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that look at a lab as it comes up first, then the longest files; a file's tests keep their order."""
    deployed = {item.path for item in items if "fleet" in getattr(item, "fixturenames", ())}

    def rank(item: pytest.Item) -> tuple[bool, float]:
        return item.path in deployed, -_SECONDS.get(item.path.name, float("inf"))

    items.sort(key=rank)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Yield the lab, which is up. At the end take it down, unless it was up before the tests."""
    running = Lab(_lab_name(), say=print)
    brought_up = running.up()
    yield running
    if brought_up:
        running.down()


@pytest.fixture(scope="session")
def deployed(lab: Lab) -> Iterator[Fleet]:
    """Yield the lab's load balancers, deployed by the role."""
    fleet = Fleet(lab)
    fleet.deploy([], lb_node_purge="all")
    yield fleet
    fleet.configure([])
    lab.route("both")


@pytest.fixture(scope="module")
def fleet(deployed: Fleet, lab: Lab) -> Fleet:
    """Return the deployed load balancers without listeners, flows, drains or counters of the file before."""
    deployed.configure([])
    forget_flows(lab)
    for node in lab.nodes("lb"):
        forget_removed(deployed, node)
    return deployed


@pytest.fixture(autouse=True)
def no_load_left() -> Iterator[None]:
    """End the traffic that a failed test has left running."""
    yield
    abandon_loads()


@pytest.fixture
def client(lab: Lab) -> Node:
    return lab.node("c1")


@pytest.fixture
def no_streams(lab: Lab) -> None:
    """Restart the stream service, so that no connection of an earlier test is left."""
    for node in lab.nodes("backend"):
        node.run(["systemctl", "restart", "lab-stream"])


def _lab_name() -> str | None:
    """Return the name of this worker's lab, or None without workers, so that the environment names the lab."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    return f"{os.environ.get('EVENFLOW_LAB', 'evenflow')}-{worker}" if worker else None
