# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many packets the kernel has dropped because its conntrack table was full.

A check whose first packet is dropped so ends with a time-out, as one of a dead server does.
"""

from __future__ import annotations

import time

STATISTICS = "/proc/net/stat/nf_conntrack"

_SAMPLE_SECONDS = 0.5

_samples: list[tuple[float, int]] = []


def before() -> int:
    """Return the number as it was at most half a second ago, for comparison with :func:`now`."""
    moment = time.monotonic()
    if not _samples or moment - _samples[0][0] > _SAMPLE_SECONDS:
        _samples[:] = [(moment, now())]
    return _samples[0][1]


def now() -> int:
    """Return the number of packets; 0 where the kernel does not count them."""
    try:
        with open(STATISTICS, encoding="ascii") as file:
            names = file.readline().split()
            # Numbers are hexadecimal; each processor has a line.
            return sum(int(line.split()[names.index("drop")], 16) for line in file)
    except (OSError, ValueError):
        return 0
