#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Check that the file that marks a maintenance does not exist. Argument: path.
[ ! -e "$1" ]
