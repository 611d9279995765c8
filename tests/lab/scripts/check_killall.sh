#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# The same by signal 0: who may not send it knows that there is one.
PID=$(pidof -s "$1") || exit 1
[ -d "/proc/$PID" ]
