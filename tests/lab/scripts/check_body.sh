#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# The page says a word: host, path, word.
/usr/bin/curl -s -m 2 "http://$1$2" | grep -q "$3" || exit 1
