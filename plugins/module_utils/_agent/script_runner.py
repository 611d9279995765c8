# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The service that runs check scripts as an unprivileged user. Only root may connect to its socket.

A request is a line of JSON with ``command``, ``timeout`` in seconds and ``environment``. The answer is a line of JSON
with ``code`` and ``output``, or with the reason in ``refused``; ``is_local`` is true where the reason is this node's.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import socket
import subprocess
import time
from typing import Any

from .script_path import ScriptRefused, check_script
from .script_slots import Slot, Slots, own_control_group

SOCKET = "/run/evenflow-scripts.sock"

OUTPUT = 200
"""Number of characters of a script's output that the answer holds."""

MAX_OUTPUT = 1 << 20
"""Maximum number of bytes that a script may write; one that writes more is ended."""

WAIT_SHARE = 0.5
"""The part of its time-out that a script may wait for others to end. It has the rest to run."""

_EXHAUSTED = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that say that the node has run out of something."""

_MAX_REQUEST = 1 << 20
_MAX_CHARACTER_BYTES = 4
_SD_LISTEN_FDS_START = 3
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ScriptRunner:
    """Runs scripts, each in a slot. Create it in the event loop that uses it."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the request of one connection."""
        try:
            request = json.loads(await reader.readline())
            running = self._run(request["command"], request["timeout"], request["environment"])
            working = asyncio.ensure_future(running)
            # If the agent closes the connection, it no longer needs the result.
            closed = asyncio.ensure_future(reader.read())
            await asyncio.wait({working, closed}, return_when=asyncio.FIRST_COMPLETED)
            closed.cancel()
            if not working.done():
                working.cancel()
                return
            writer.write(json.dumps(working.result()).encode("utf-8") + b"\n")
            await writer.drain()
        except (ValueError, KeyError, TypeError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _run(self, command: list[str], timeout: float, environment: dict[str, str]) -> dict[str, Any]:
        """Run a program and return the answer."""
        try:
            check_script(command[0])
            patience = timeout * WAIT_SHARE
            began = time.monotonic()
            slot = await self._slots.take(patience)
            if slot is None:
                return {"refused": f"waited {patience:g} s for other scripts to end", "is_local": True}
            try:
                return await run(slot, command, timeout - (time.monotonic() - began), environment)
            finally:
                self._slots.give_back(slot)
        except ScriptRefused as refused:
            return {"refused": str(refused)}
        except OSError as error:
            return {"refused": f"{command[0]}: {error.strerror}", "is_local": error.errno in _EXHAUSTED}
        except subprocess.SubprocessError:
            return {"refused": f"{command[0]}: it cannot be moved to a control group of its own", "is_local": True}


async def run(slot: Slot, command: list[str], timeout: float, environment: dict[str, str]) -> dict[str, Any]:
    """Run a program in a slot and return the answer. When it ends or its time is over, all its processes are ended."""
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
            preexec_fn=slot.enter,
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
        for end in ends:
            end.cancel()
        slot.kill(process.pid)
        output.close()
        await process.wait()


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


async def main() -> None:
    """Answer requests on the socket that systemd passes."""
    listening = socket.socket(fileno=_SD_LISTEN_FDS_START)
    runner = ScriptRunner(Slots(own_control_group()))
    server = await asyncio.start_unix_server(runner.serve, sock=listening, limit=_MAX_REQUEST)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="<4>%(message)s")
    asyncio.run(main())
