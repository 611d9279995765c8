# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Serve long-lived TCP connections that a client can check byte by byte.

The server first sends `<id> <peer> <peer port> <own port>`. The client's first line is a command:
`echo`: send back every later byte; `push MS`: send numbered lines `%010d`, one every MS milliseconds.
Argument: the port to serve, on all addresses of both families.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from notify import notify_ready


async def main(port: int) -> None:
    """Serve until the service manager ends the process."""
    servers = [
        await asyncio.start_server(_serve, host, port, family=family, backlog=1024)
        for host, family in (("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6))
    ]
    notify_ready()
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    try:
        writer.write(f"{socket.gethostname()} {peer[0]} {peer[1]} {own[1]}\n".encode())
        command = (await reader.readline()).decode("ascii", "replace").split()
        if command == ["echo"]:
            await _echo(reader, writer)
        elif len(command) == 2 and command[0] == "push" and command[1].isdigit():
            await _push(writer, int(command[1]) / 1000)
    except OSError:
        # the client has closed the connection
        pass
    finally:
        writer.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def _push(writer: asyncio.StreamWriter, interval: float) -> None:
    number = 0
    while not writer.is_closing():
        writer.write(f"{number:010d}\n".encode())
        await writer.drain()
        number += 1
        await asyncio.sleep(interval)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
