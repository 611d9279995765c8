# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may get a new flow. Everything that asks this asks here."""

from __future__ import annotations

from ._model import Backend, Listener


def eligible(listener: Listener) -> tuple[Backend, ...]:
    """Return the backends among which the scheduler may choose, in the listener's order."""
    return tuple(backend for backend in listener.backends if backend.admin_state == "enabled" and backend.share > 0)


def accepts(listener: Listener) -> bool:
    """Tell whether the listener takes new flows; if not, they are rejected."""
    return listener.admin_state == "enabled" and bool(eligible(listener))
