#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Return a weight as misc_dynamic does: 2 + the length of the page modulo 100, or 1 without a page.
WEIGHT=$(curl -s -f -m 2 "http://$1$2" | wc -c)
[ "$WEIGHT" -gt 0 ] || exit 1
exit $((WEIGHT % 100 + 2))
