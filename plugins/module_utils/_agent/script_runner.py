# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs check scripts, as the unprivileged user of its service: asked on a socket that only root may open.

The request is a line of JSON: ``command``, ``timeout`` in seconds, ``environment``. So is the answer: ``code`` and
``output``, or ``refused`` with the reason.
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
"""Characters of a script's output that are told."""

MAX_OUTPUT = 1 << 20
"""Bytes that a script may write before it is ended."""

_MAX_REQUEST = 1 << 20
_FIRST_PASSED = 3
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ScriptRefused(Exception):
    """A script is not run; the text says why."""


def check_script(path: str) -> None:
    """Refuse a program that others than root can change, as keepalived's script security does.

    :raises ScriptRefused: it, or a folder above it, can be written to by others, or it is not a program.
    """
    for place in dict.fromkeys(_places(path)):
        try:
            found = os.stat(place)
        except OSError as error:
            raise ScriptRefused(f"{place}: {error.strerror}") from error
        if found.st_uid != 0:
            raise ScriptRefused(f"{place} belongs to another user than root")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (
            found.st_gid == 0 and not found.st_mode & stat.S_IWOTH
        ):
            raise ScriptRefused(f"{place} can be written to by others than root")
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        raise ScriptRefused(f"{path} is not a program that may be run")


def _places(path: str) -> list[str]:
    """Return a path and all folders above it, as it is written and as it is without symbolic links."""
    found = []
    for one in (os.path.normpath(path), os.path.realpath(path)):
        while one != os.path.dirname(one):
            found.append(one)
            one = os.path.dirname(one)
        found.append(one)
    return found


async def run(command: list[str], timeout: float, environment: dict[str, str]) -> dict[str, Any]:
    """Run a program; at its end, or the end of its time, everything that it has started ends too."""
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
    output.begin()
    ends = [asyncio.ensure_future(process.wait()), asyncio.ensure_future(output.is_too_much.wait())]
    try:
        await asyncio.wait(ends, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if output.is_too_much.is_set():
            return {"refused": f"wrote more than {MAX_OUTPUT} bytes"}
        if process.returncode is None:
            return {"refused": f"timed out after {timeout:g} s"}
        output.read()
        return {"code": process.returncode, "output": _shown(output.beginning)}
    finally:
        _end(process.pid)
        output.close()
        await process.wait()
        for one in ends:
            one.cancel()


class _Output:
    """What a script writes. asyncio's own pipes would wait for children that hold the output open."""

    def __init__(self) -> None:
        self.beginning = b""
        self.is_too_much = asyncio.Event()
        self.write_end = -1
        self._length = 0
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)

    def begin(self) -> None:
        os.close(self.write_end)
        self.write_end = -1
        asyncio.get_running_loop().add_reader(self._read_end, self.read)

    def read(self) -> None:
        try:
            more = os.read(self._read_end, 65536)
        except BlockingIOError:
            return
        self._length += len(more)
        self.beginning = (self.beginning + more)[: OUTPUT * 4]
        if not more:
            asyncio.get_running_loop().remove_reader(self._read_end)
        elif self._length > MAX_OUTPUT:
            self.is_too_much.set()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._read_end)
        for descriptor in (self._read_end, self.write_end):
            if descriptor >= 0:
                os.close(descriptor)


def _shown(output: bytes) -> str:
    text = " ".join(output.decode("utf-8", "replace").split())
    return "".join(one if one.isprintable() else "?" for one in text)[:OUTPUT]


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        request = json.loads(await reader.readline())
        try:
            working = asyncio.ensure_future(run(request["command"], request["timeout"], request["environment"]))
            # Who asked may have gone: then nobody wants the script any more.
            gone = asyncio.ensure_future(reader.read())
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
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
    """Serve on the socket that systemd has passed."""
    passed = socket.socket(fileno=_FIRST_PASSED)
    server = await asyncio.start_unix_server(_serve, sock=passed, limit=_MAX_REQUEST)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
