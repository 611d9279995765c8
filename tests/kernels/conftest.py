# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the tests in a virtual machine. The lab's tests that run there use fixtures of these names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite(
    *("lab.rows", "lab.test_rows_affinity", "lab.test_rows_changes", "lab.test_rows_leaks"),
    *("lab.test_rows_limits", "lab.test_rows_selection"),
)

from lab import Lab, Node  # noqa: E402
from lab.conftest import no_load_left, no_streams  # noqa: E402
from lab.fleet import Fleet  # noqa: E402
from lab.rows import forget_flows  # noqa: E402

from .namespaces import DirectFleet, NamespaceLab  # noqa: E402

__all__ = ["no_load_left", "no_streams"]


@pytest.fixture(scope="session")
def lab() -> Lab:
    """Return the lab of this machine; it ends with the machine."""
    running = NamespaceLab()
    running.up()
    running.route("lb1")
    return running


@pytest.fixture(scope="session")
def deployed(lab: Lab) -> Fleet:
    return DirectFleet(lab)


@pytest.fixture
def fleet(deployed: Fleet, lab: Lab) -> Iterator[Fleet]:
    """Yield the load balancer without flows of earlier tests."""
    forget_flows(lab)
    yield deployed


@pytest.fixture
def client(lab: Lab) -> Node:
    return lab.node("c1")
