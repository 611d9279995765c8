# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a test needs to run a part of the collection in a separate Python interpreter."""

from __future__ import annotations

import os
import sys


def python_path() -> str:
    """Return the PYTHONPATH with which a separate interpreter finds the collection and all that this one finds."""
    root = os.path.abspath(__file__).split(f"{os.sep}ansible_collections{os.sep}", maxsplit=1)[0]
    return os.pathsep.join([root, *filter(None, sys.path)])
