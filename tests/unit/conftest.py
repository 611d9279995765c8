# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of hypothesis for all unit tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "evenflow",
    # The same examples in every run, and nothing on disk: a failure is a change in the code, not luck.
    derandomize=True,
    database=None,
    # A busy machine is no failure.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=30,
)
settings.load_profile("evenflow")
