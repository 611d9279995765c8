# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A filter that makes action plugins believe that this ansible-core was not tested, for one task.

The arguments of a task are templated in the process that runs the task and ends with it.
"""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.evenflow.l4lb.plugins.plugin_utils import _ansible_core


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"with_untested_core": with_untested_core}


def with_untested_core(value: Any) -> Any:
    """Return the value unchanged."""
    _ansible_core.VERSION = "2.99.0"
    return value
