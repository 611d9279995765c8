# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The service that makes the checks whose work a server decides, so that no server can keep the agent busy.

It has no privileges. For each connection of the agent it starts a process, which reads requests and writes answers. The
first line of the connection says how the process works: ``shared`` makes all checks in one event loop, each with a
budget of processor time; ``alone`` makes each in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import signal
import socket
import time
import traceback
from contextlib import suppress
from typing import Any

from . import check_http, http2, page, tls
from .budget import Costly
from .checks import probe
from .messages import MAX_LINE, Answer, Request

SOCKET = "/run/evenflow-checks.sock"

SHARED_BUDGET = 0.01
"""Seconds of processor time that a check may take beside others; a usual one takes a tenth of it."""

ALONE_BUDGET = 1.0
"""Seconds of processor time that a check may take alone; then the kernel ends it."""

_MAX_MEMORY = 1 << 28
_NICENESS = 10
_PAUSE_SECONDS = 0.1
_SD_LISTEN_FDS_START = 3


def serve(listening: socket.socket) -> None:
    """Serve each connection in a process of its own, which begins with all libraries loaded."""
    # The kernel removes processes that end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for library in (check_http, http2, page):
        library.prepare()
    gc.freeze()
    while True:
        try:
            connection, _address = listening.accept()
            with connection:
                if not os.fork():
                    listening.close()
                    _serve(connection)
        except OSError:
            # The node has run out of something. The agent sees the end of its connection, and makes another.
            traceback.print_exc()
            time.sleep(_PAUSE_SECONDS)


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
    except Exception:
        traceback.print_exc()
    finally:
        # Processes that make a check alone still have the connection; the agent is not to wait for them.
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        os._exit(0)


async def _serve_shared(connection: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_LINE)
    tasks: set[asyncio.Task[None]] = set()

    async def check(request: Request) -> None:
        delay = time.monotonic() - request.sent
        try:
            tls.prepare(request.target.check)
            result = await probe(request.target, SHARED_BUDGET, request.seconds)
            answer = Answer(request.number, result, delay=delay)
        except Costly:
            answer = Answer(request.number, is_costly=True, delay=delay)
        except Exception:
            traceback.print_exc()
            answer = Answer(request.number)
        writer.write(answer.line())

    while True:
        line = await reader.readline()
        if not line:
            return
        task = asyncio.ensure_future(check(Request.of_line(line)))
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
            if status:
                connection.sendall(Answer(number, signal=os.WTERMSIG(status)).line())

    signal.signal(signal.SIGCHLD, reap)
    os.nice(_NICENESS)
    for line in connection.makefile("rb"):
        request = Request.of_line(line)
        tls.prepare(request.target.check)
        # A process must not end before its number is known.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        try:
            process = os.fork()
            if not process:
                _check_alone(connection, request)
            numbers[process] = request.number
        except OSError:
            traceback.print_exc()
            connection.sendall(Answer(request.number).line())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _check_alone(connection: socket.socket, request: Request) -> None:
    """Make one check, then end the process: with status 0 if it has sent an answer."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_DATA, (_MAX_MEMORY, _MAX_MEMORY))
        signal.setitimer(signal.ITIMER_PROF, ALONE_BUDGET)
        connection.sendall(asyncio.run(_answer_alone(request)).line())
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


async def _answer_alone(request: Request) -> Answer:
    began = time.thread_time()
    result = await probe(request.target, seconds=request.seconds)
    return Answer(request.number, result, cost=time.thread_time() - began)


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
