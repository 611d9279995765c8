# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the fates of flows against each cell of the table in section 2 of the behaviour document."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Backend, FailoverPolicy
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.eligibility import select
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.fate import BackendFate, Fate, fates
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, service

LETTERS = {"K": Fate.KEEP, "D": Fate.MOVE, "E": Fate.END}

COLUMNS: dict[str, dict[str, Any]] = {
    "TCP-p": {"protocol": "tcp"},
    "TCP-n": {"protocol": "tcp", "connection_persistence_on_unhealthy_backends": "never_persist"},
    "TCP always": {"protocol": "tcp", "connection_persistence_on_unhealthy_backends": "always_persist"},
    "UDP": {"protocol": "udp"},
    "UDP always": {"protocol": "udp", "connection_persistence_on_unhealthy_backends": "always_persist"},
}

HEALTHY: dict[str, Any] = {"health": "healthy"}
UNHEALTHY: dict[str, Any] = {"health": "unhealthy"}
DROP = FailoverPolicy(0.0, True, False)
NOT_DRAINED = FailoverPolicy(0.0, False, True)

# By row: options of the backend, options of the other backend, options of the listener, and the cells.
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "unhealthy, others healthy": (UNHEALTHY, HEALTHY, {}, "KDKDK"),
    "all unhealthy, fail open": (UNHEALTHY, UNHEALTHY, {}, "KKKKK"),
    "all unhealthy, drop": (UNHEALTHY, UNHEALTHY, {"failover_policy": DROP}, "KEKEK"),
    "recovers": (HEALTHY, HEALTHY, {}, "KKKKK"),
    "weight 0": ({"weight": 0, **HEALTHY}, HEALTHY, {}, "KKKKK"),
    "scaler 0": ({"capacity_scaler": 0.0, **HEALTHY}, HEALTHY, {}, "KKKKK"),
    "drained, before": ({"admin_state": "drained", **HEALTHY}, HEALTHY, {}, "KKKKK"),
    "drained, past": ({"admin_state": "drained", "is_drain_expired": True, **HEALTHY}, HEALTHY, {}, "EEEDD"),
    "drained, unhealthy": ({"admin_state": "drained", **UNHEALTHY}, HEALTHY, {}, "KDKDK"),
    "disabled": ({"admin_state": "disabled", **HEALTHY}, HEALTHY, {}, "EEEDD"),
    "failover": (HEALTHY, {"failover": True, **HEALTHY}, {"ratio": 1.0}, "KKKKK"),
    "failover, past": ({"is_drain_expired": True, **HEALTHY}, {"failover": True, **HEALTHY}, {"ratio": 1.0}, "EKKDK"),
    "failback": ({"failover": True, **HEALTHY}, HEALTHY, {}, "KKKKK"),
    "failback, past": ({"failover": True, "is_drain_expired": True, **HEALTHY}, HEALTHY, {}, "EKKDK"),
    "failover, no drain": ({"failover": True, **HEALTHY}, HEALTHY, {"failover_policy": NOT_DRAINED}, "EEE"),
}


def _fate(row: str, column: str) -> BackendFate:
    first_options, second_options, options, _cells = ROWS[row]
    options = dict(options)
    first = Backend(**backend("198.19.0.1"))
    unhealthy: tuple[Backend, ...] = ()
    if "ratio" in options:
        options["failover_policy"] = FailoverPolicy(options.pop("ratio"), False, False)
        unhealthy = (Backend(**backend("198.19.0.3"), health="unhealthy"),)
    backends = (first._replace(**first_options), first._replace(address="198.19.0.2", **second_options), *unhealthy)
    concerned = service(backends, **COLUMNS[column], **options)
    return fates(concerned, select(concerned))[0]


CELLS = [(row, column, cell) for row, entry in ROWS.items() for column, cell in zip(COLUMNS, entry[3])]


@pytest.mark.parametrize(("row", "column", "cell"), CELLS)
def test_row_30_a_cell_of_the_table(row: str, column: str, cell: str) -> None:
    assert _fate(row, column) == BackendFate(LETTERS[cell], LETTERS[cell])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tracking_mode": "per_session", "session_affinity": "client_ip_port_proto"}, "keep"),
        ({"tracking_mode": "per_session"}, "keep"),
        ({"tracking_mode": "per_session", "session_affinity": "client_ip"}, "move"),
        ({"session_affinity": "client_ip"}, "keep"),
        ({"protocol": "sctp"}, "keep"),
        ({"protocol": "sctp", "connection_persistence_on_unhealthy_backends": "never_persist"}, "move"),
    ],
)
def test_streams_that_persist(options: dict[str, Any], expected: str) -> None:
    assert _unhealthy(**options).stream == expected


def test_a_listener_for_all_protocols() -> None:
    """A listener for all protocols keeps streams and moves the rest."""
    assert _unhealthy(protocol="any") == BackendFate(Fate.KEEP, Fate.MOVE)


def test_a_removed_backend_is_treated_as_draining() -> None:
    gone = Backend(**backend("198.19.0.9"), is_leaving=True, is_drain_expired=True)
    concerned = service((Backend(**backend("198.19.0.1")), gone))
    assert fates(concerned, select(concerned)) == (BackendFate(), BackendFate(Fate.END, Fate.END))


def _unhealthy(**options: Any) -> BackendFate:
    backends = (Backend(**backend("198.19.0.1"), **UNHEALTHY), Backend(**backend("198.19.0.2"), **HEALTHY))
    concerned = service(backends, **options)
    return fates(concerned, select(concerned))[0]
