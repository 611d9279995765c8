#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# A weight, misc_dynamic's way: 2 + what the page says, 1 if it says nothing.
WEIGHT=$(curl -s -f -m 2 "http://$1$2" | wc -c)
[ "$WEIGHT" -gt 0 ] || exit 1
exit $((WEIGHT % 100 + 2))
