#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Check that the page exists. Arguments: host and path.
exec /usr/bin/curl --silent --fail --max-time 2 --output /dev/null "http://$1$2"
