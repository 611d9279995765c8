#!/usr/bin/env bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Check that the port is open. Arguments: host, port.
timeout 2 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null || exit 1
exit 0
