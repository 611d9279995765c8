# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may get a new flow."""

from __future__ import annotations

import pytest

from ansible_collections.evenflow.l4lb.plugins.module_utils._eligibility import accepts, eligible
from ansible_collections.evenflow.l4lb.plugins.module_utils._model import Backend
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, service

GOOD = Backend(**backend("198.19.0.1", weight=1))
WEIGHT_0 = Backend(**backend("198.19.0.2", weight=0))
DRAINED = Backend(**backend("198.19.0.3", admin_state="drained"))


def test_enabled_with_a_weight() -> None:
    assert eligible(service((WEIGHT_0, GOOD, DRAINED))) == (GOOD,)


@pytest.mark.parametrize(
    ("backends", "state", "expected"),
    [
        ((GOOD,), "enabled", True),
        ((GOOD,), "disabled", False),
        ((WEIGHT_0, DRAINED), "enabled", False),
        ((), "enabled", False),
    ],
)
def test_a_listener_accepts_what_somebody_can_take(backends: tuple[Backend, ...], state: str, expected: bool) -> None:
    assert accepts(service(backends, admin_state=state)) is expected
