#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Check that a process of this name runs, also if this user may not send it a signal.
PID=$(pidof -s "$1") || exit 1
[ -d "/proc/$PID" ]
