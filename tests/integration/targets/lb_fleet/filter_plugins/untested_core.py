# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A filter that makes action plugins treat this ansible-core as untested, for the length of a task.

The arguments of a task are templated in the process that runs the task and ends with it.
"""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.evenflow.l4lb.plugins.plugin_utils import _ansible_core


class FilterModule:
    """The filter `with_untested_core`."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by name."""
        return {"with_untested_core": with_untested_core}


def with_untested_core(value: Any) -> Any:
    """Return the value unchanged, and replace the version of ansible-core."""
    _ansible_core.VERSION = "2.99.0"
    return value
