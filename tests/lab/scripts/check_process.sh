#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Check that a process of this name runs on this machine.
pidof "$1" >/dev/null || exit 1
