#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# A process of this name runs on this machine.
pidof "$1" >/dev/null || exit 1
