#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Check that the port is open, by netcat. Arguments: host, port.
if ! nc -z -w 2 "$1" "$2" >/dev/null 2>&1; then
    exit 1
fi
exit 0
