# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The service that runs check scripts as an unprivileged user. Only root may connect to its socket.

A request is a line of JSON with ``command``, ``timeout`` in seconds and ``environment``. The answer is a line of JSON
with ``code`` and ``output``, or with the reason in ``refused``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
from typing import Any

SOCKET = "/run/evenflow-scripts.sock"

OUTPUT = 200
"""Number of characters of a script's output that the answer holds."""

MAX_OUTPUT = 1 << 20
"""Maximum number of bytes that a script may write; one that writes more is ended."""

_MAX_REQUEST = 1 << 20
_MAX_CHARACTER_BYTES = 4
_SD_LISTEN_FDS_START = 3
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ScriptRefused(Exception):
    """Raised if a script is not run; the text is the reason."""


def check_script(path: str) -> None:
    """Refuse a program that users other than root can change, as keepalived's script security does.

    :raises ScriptRefused: it or a directory above it is writable by others, or it is not an executable file.
    """
    for place in dict.fromkeys(_places(path)):
        try:
            status = os.stat(place)
        except OSError as error:
            raise ScriptRefused(f"{place}: {error.strerror}") from error
        if status.st_uid != 0:
            raise ScriptRefused(f"{place} is not owned by root")
        writable_by = stat.S_IWOTH if status.st_gid == 0 else stat.S_IWGRP | stat.S_IWOTH
        if status.st_mode & writable_by:
            raise ScriptRefused(f"{place} is writable by users other than root")
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        raise ScriptRefused(f"{path} is not an executable file")


def _places(path: str) -> list[str]:
    """Return a path and all directories above it, with symbolic links and with these resolved."""
    places = []
    for place in (os.path.normpath(path), os.path.realpath(path)):
        while place != os.path.dirname(place):
            places.append(place)
            place = os.path.dirname(place)
        places.append(place)
    return places


async def run(command: list[str], timeout: float, environment: dict[str, str]) -> dict[str, Any]:
    """Run a program and return the answer. When it ends or its time is over, its child processes are ended too."""
    check_script(command[0])
    output = _Output()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output.write_end,
            stderr=output.write_end,
            env={"PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": "/", **environment},
            cwd="/",
            start_new_session=True,
        )
    except BaseException:
        output.close()
        raise
    output.start_reading()
    ends = [asyncio.ensure_future(process.wait()), asyncio.ensure_future(output.is_too_much.wait())]
    try:
        await asyncio.wait(ends, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if output.is_too_much.is_set():
            return {"refused": f"wrote more than {MAX_OUTPUT} bytes"}
        if process.returncode is None:
            return {"refused": f"timed out after {timeout:g} s"}
        output.read()
        return {"code": process.returncode, "output": _printable(output.beginning)}
    finally:
        _kill_group(process.pid)
        output.close()
        await process.wait()
        for end in ends:
            end.cancel()


class _Output:
    """The output of a script. asyncio's pipes would wait for child processes that keep the output open."""

    def __init__(self) -> None:
        self.beginning = b""
        self.is_too_much = asyncio.Event()
        self.write_end = -1
        self._length = 0
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)

    def start_reading(self) -> None:
        """Read from now on; the script holds the other end."""
        os.close(self.write_end)
        self.write_end = -1
        asyncio.get_running_loop().add_reader(self._read_end, self.read)

    def read(self) -> None:
        """Read what has been written so far."""
        try:
            received = os.read(self._read_end, 65536)
        except BlockingIOError:
            return
        self._length += len(received)
        self.beginning = (self.beginning + received)[: OUTPUT * _MAX_CHARACTER_BYTES]
        if not received:
            asyncio.get_running_loop().remove_reader(self._read_end)
        elif self._length > MAX_OUTPUT:
            self.is_too_much.set()

    def close(self) -> None:
        """Stop reading and close both ends."""
        asyncio.get_running_loop().remove_reader(self._read_end)
        for descriptor in (self._read_end, self.write_end):
            if descriptor >= 0:
                os.close(descriptor)


def _printable(output: bytes) -> str:
    text = " ".join(output.decode("utf-8", "replace").split())
    return "".join(character if character.isprintable() else "?" for character in text)[:OUTPUT]


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the request of one connection."""
    try:
        request = json.loads(await reader.readline())
        try:
            working = asyncio.ensure_future(run(request["command"], request["timeout"], request["environment"]))
            # If the agent closes the connection, it no longer needs the result.
            closed = asyncio.ensure_future(reader.read())
            await asyncio.wait({working, closed}, return_when=asyncio.FIRST_COMPLETED)
            closed.cancel()
            if not working.done():
                working.cancel()
                return
            answer = working.result()
        except ScriptRefused as refused:
            answer = {"refused": str(refused)}
        except OSError as error:
            answer = {"refused": f"{request['command'][0]}: {error.strerror}"}
        writer.write(json.dumps(answer).encode("utf-8") + b"\n")
        await writer.drain()
    except (ValueError, KeyError, TypeError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    """Answer requests on the socket that systemd passes."""
    listening = socket.socket(fileno=_SD_LISTEN_FDS_START)
    server = await asyncio.start_unix_server(serve, sock=listening, limit=_MAX_REQUEST)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
