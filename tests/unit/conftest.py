# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of hypothesis for all unit tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "evenflow",
    # Every run uses the same examples and stores nothing on disk, so that a new failure is due to a change in the code.
    derandomize=True,
    database=None,
    # A slow run on a busy machine is not a failure.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=30,
)
settings.load_profile("evenflow")
