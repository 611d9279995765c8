#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# The database's own client says whether it takes connections, as mysqladmin ping does elsewhere.
exec pg_isready --quiet --timeout=2 --host="$EVENFLOW_ADDRESS" --port="$EVENFLOW_PORT"
