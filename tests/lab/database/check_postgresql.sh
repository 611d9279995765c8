#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Check by the database's client that it accepts connections, as mysqladmin ping does for MySQL.
exec pg_isready --quiet --timeout=2 --host="$EVENFLOW_ADDRESS" --port="$EVENFLOW_PORT"
