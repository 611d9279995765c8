#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Check that the host answers.
ping -c 1 -W 2 "$1" >/dev/null 2>&1
