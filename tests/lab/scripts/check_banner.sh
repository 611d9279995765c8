#!/bin/sh
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Check that the server's first line has a certain beginning. Arguments: host, port, text to send, beginning.
exec python3 -c '
import socket
import sys

host, port, text, beginning = sys.argv[1:5]
with socket.create_connection((host, int(port)), timeout=2) as connection:
    connection.sendall(text.encode() + b"\n")
    line = connection.makefile().readline()
sys.exit(0 if line.startswith(beginning) else 1)
' "$@"
