#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Check that the page contains a text. Arguments: host, path, text.
/usr/bin/curl -s -m 2 "http://$1$2" | grep -q "$3" || exit 1
