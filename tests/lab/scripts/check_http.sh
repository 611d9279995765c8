#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# The page is there: host and path.
exec /usr/bin/curl --silent --fail --max-time 2 --output /dev/null "http://$1$2"
