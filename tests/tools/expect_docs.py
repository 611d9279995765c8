# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fail unless the JSON of ansible-doc on standard input documents exactly the names given as arguments."""

from __future__ import annotations

import json
import sys

documented = set(json.load(sys.stdin))
if not sys.argv[1:] or documented != set(sys.argv[1:]):
    raise SystemExit(f"documented: {sorted(documented)}, expected: {sorted(sys.argv[1:])}")
print(f"documented: {', '.join(sorted(documented))}")
