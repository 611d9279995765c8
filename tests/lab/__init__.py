# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real Debian nodes in containers, connected by separate networks."""

from __future__ import annotations

from .lab import Lab
from .nodes import Node
from .process import Background, CommandFailed, Result
from .store import LabError

__all__ = ["Background", "CommandFailed", "Lab", "LabError", "Node", "Result"]
