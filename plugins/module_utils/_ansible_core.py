# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The private parts of ansible-core that modules use, and the versions with which they were tested.

The parts that action plugins use are in ``plugin_utils/_ansible_core.py``: this file is copied to nodes, which have
nothing of ansible-core but ``ansible.module_utils``.

=============================================  =======================================================================
private name                                   used for
=============================================  =======================================================================
``ansible.module_utils.basic._load_params``    the parameters before Ansible converts them, to report all errors in
                                               them; without it a module reports Ansible's message on the first error
=============================================  =======================================================================
"""

from __future__ import annotations

from typing import Any

try:
    from ansible.module_utils.basic import _load_params
except ImportError:
    _load_params = None

TESTED_CORES = ("2.19", "2.20", "2.21")
"""Versions of ansible-core with which the unit and integration tests of these uses pass."""


def load_written_parameters() -> dict[str, Any] | None:
    """Return a module's parameters as the user wrote them, or ``None`` if this ansible-core does not give them."""
    try:
        parameters = _load_params()
    except Exception:  # pylint: disable=broad-except
        # The caller is about to report an error, which this one must not replace.
        return None
    return parameters if isinstance(parameters, dict) else None
