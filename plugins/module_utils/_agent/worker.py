# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The service that makes the checks whose work a server decides, so that no server can keep the agent busy.

It has no privileges. For each connection of the agent it starts a process, which reads requests and writes answers as
lines: the request is a number, the time at which it was sent, and a target as JSON; the answer is JSON with the number.
The first line of the connection says how the process works: ``shared`` makes all checks in one event loop, each with a
budget of processor time; ``alone`` makes each in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import signal
import socket
import time
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from .._config.model import HealthCheck
from . import check_http, http2, tls
from .budget import Costly
from .checks import probe
from .target import Target

SOCKET = "/run/evenflow-checks.sock"

SHARED_BUDGET = 0.01
"""Seconds of processor time that a check may take beside others; a usual one takes a tenth of it."""

ALONE_BUDGET = 1.0
"""Seconds of processor time that a check may take alone; then the kernel ends it."""

MAX_LINE = 1 << 20
"""Maximum length in bytes of a request and of an answer."""

_MAX_MEMORY = 1 << 28
_NICENESS = 10
_SD_LISTEN_FDS_START = 3


@lru_cache(maxsize=16384)
def request_of(target: Target) -> str:
    """Return a target as JSON."""
    return json.dumps(asdict(target))


@lru_cache(maxsize=16384)
def _target_of(text: str) -> Target:
    fields = json.loads(text)
    lists = {name: tuple(fields["check"][name]) for name in ("status", "command")}
    return Target(**{**fields, "check": HealthCheck(**{**fields["check"], **lists})})


def serve(listening: socket.socket) -> None:
    """Serve each connection in a process of its own, which begins with all libraries loaded."""
    # The kernel removes processes that end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    check_http.prepare()
    http2.prepare()
    gc.freeze()
    while True:
        connection, _address = listening.accept()
        if not os.fork():
            listening.close()
            _serve(connection)
        connection.close()


def _serve(connection: socket.socket) -> None:
    """Serve one connection, then end the process."""
    try:
        requests = connection.makefile("rb", buffering=0)
        if requests.readline() == b"alone\n":
            _serve_alone(connection)
        else:
            asyncio.run(_serve_shared(connection))
    except OSError:
        # The agent has closed the connection.
        pass
    finally:
        os._exit(0)


async def _serve_shared(connection: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_LINE)
    tasks: set[asyncio.Task[None]] = set()

    async def check(line: bytes) -> None:
        number, sent, target = _parse(line)
        tls.prepare(target.check)
        writer.write(await _check(number, target, SHARED_BUDGET, delay=time.monotonic() - sent))

    while True:
        line = await reader.readline()
        if not line:
            return
        task = asyncio.ensure_future(check(line))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def _serve_alone(connection: socket.socket) -> None:
    numbers: dict[int, int] = {}

    def reap(*_arguments: Any) -> None:
        while numbers:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            number = numbers.pop(process)
            if os.WIFSIGNALED(status):
                connection.sendall(_answer(number, killed=os.WTERMSIG(status)))

    signal.signal(signal.SIGCHLD, reap)
    os.nice(_NICENESS)
    for line in connection.makefile("rb"):
        number, _sent, target = _parse(line)
        tls.prepare(target.check)
        # A process must not end before its number is known.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        process = os.fork()
        if not process:
            _check_alone(connection, number, target)
        numbers[process] = number
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _check_alone(connection: socket.socket, number: int, target: Target) -> None:
    """Make one check, then end the process."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_DATA, (_MAX_MEMORY, _MAX_MEMORY))
        signal.setitimer(signal.ITIMER_PROF, ALONE_BUDGET)
        began = time.process_time()
        answer = asyncio.run(_check(number, target, None))
        cost = time.process_time() - began
        connection.sendall(answer[:-2] + f', "cost": {cost}}}\n'.encode("ascii"))
    finally:
        os._exit(0)


async def _check(number: int, target: Target, budget: float | None, **fields: Any) -> bytes:
    try:
        result = await probe(target, budget)
    except Costly:
        return _answer(number, is_costly=True, **fields)
    return _answer(number, result=asdict(result), **fields)


def _parse(line: bytes) -> tuple[int, float, Target]:
    number, sent, text = line.decode("ascii").split(" ", 2)
    return int(number), float(sent), _target_of(text)


def _answer(number: int, **fields: Any) -> bytes:
    return json.dumps({"number": number, **fields}).encode("ascii") + b"\n"


def _listening(path: str) -> socket.socket:
    """Return a new socket at a path, or without one that of systemd."""
    if not path:
        return socket.socket(fileno=_SD_LISTEN_FDS_START)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    return listening


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="evenflow-checks", description="Makes checks for the agent.")
    parser.add_argument(
        "--socket", default="", metavar="PATH", help="where to listen; without it, where systemd listens"
    )
    serve(_listening(parser.parse_args().socket))
