# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the tests that run on the lab."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import Lab, Node
from lab.fleet import Fleet
from lab.traffic import abandon_loads


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab, up. One that ran before the tests is kept, one that they brought up goes at their end."""
    running = Lab(say=print)
    brought_up = running.up()
    yield running
    if brought_up:
        running.down()


@pytest.fixture(scope="session")
def fleet(lab: Lab) -> Iterator[Fleet]:
    """The lab's load balancers, deployed by the role, without a listener at the start and at the end."""
    deployed = Fleet(lab)
    deployed.deploy([], lb_node_purge="all")
    yield deployed
    deployed.configure([])
    lab.route("both")


@pytest.fixture(autouse=True)
def no_load_left() -> Iterator[None]:
    """End the traffic that a test has left because it failed."""
    yield
    abandon_loads()


@pytest.fixture
def client(lab: Lab) -> Node:
    return lab.node("c1")


@pytest.fixture
def no_streams(lab: Lab) -> None:
    """The stream service without connections: those of a test that failed, or whose end it could not see, are gone."""
    for node in lab.nodes("backend"):
        node.run(["systemctl", "restart", "lab-stream"])
