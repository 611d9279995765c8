# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of where checks are made, with the real service on a socket of the test's own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent import pool, worker
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.pool import Pool
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.target import Target
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import CheckResult
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, check, configuration, listener

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = CheckResult(True, "status 200")
WIDE = b"[" + b"{}," * 300_000 + b"0]"


@dataclass(frozen=True)
class Service:
    """The service that checks: the path of its socket, and its process."""

    path: str
    pid: int


@pytest.fixture(name="service")
def _service(tmp_path: Path) -> Iterator[Service]:
    """Run the service that checks."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        program = (
            f"import socket; from {worker.__name__} import serve; serve(socket.socket(fileno={listening.fileno()}))"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen([sys.executable, "-c", program], pass_fds=[listening.fileno()], env=environment)
    yield Service(path, process.pid)
    process.kill()
    process.wait()


def page(body: bytes = b"") -> Serve:
    """Return a server that answers each request with a page."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    return serve


def with_pool(path: str, work: Callable[[Pool], Awaitable[None]]) -> None:
    """Run a coroutine that gets a pool."""

    async def main() -> None:
        checks = Pool(path)
        try:
            await work(checks)
        finally:
            checks.close()

    asyncio.run(main())


async def target_of(serve: Serve, kind: str = "http", **options: Any) -> Target:
    """Start a server on the loopback address and return a target for it, with time enough on a busy machine."""
    options = {"timeout_sec": 60, **options}
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    web = configuration(listener("web", backend("198.19.0.1"), health_check=check(kind, **options))).listeners[0]
    assert web.health_check
    return replace(Target.of(web, web.backends[0], web.health_check), key=str(port), address="127.0.0.1", port=port)


def processes_of(service: Service) -> list[int]:
    """Return the processes that the service has started."""
    children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text(encoding="ascii")
    return [int(child) for child in children.split()]


def test_many_checks_share_processes(service: Service) -> None:
    async def work(checks: Pool) -> None:
        targets = [await target_of(page()) for _number in range(40)]
        assert await asyncio.gather(*map(checks.check, targets)) == [OK] * 40
        assert not checks.costly

    with_pool(service.path, work)


def test_a_costly_check_is_made_alone(service: Service) -> None:
    """It has the same result there, and shares a process again after enough cheap ones."""
    bodies = [WIDE]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await page(bodies[0])(reader, writer)

    async def work(checks: Pool) -> None:
        target = await target_of(serve, json_query="length(@) == `300001`")
        assert await checks.check(target) == OK
        assert list(checks.costly) == [target.probe]
        assert await checks.check(target) == OK
        bodies[0] = b"[]"
        for _number in range(pool.CHEAP_CHECKS):
            assert checks.costly
            assert (await checks.check(target)).message == "json_query gives false, expected true"
        assert not checks.costly

    with_pool(service.path, work)


def test_a_check_that_never_ends_is_ended(service: Service) -> None:
    """Only the process that makes it ends."""

    async def work(checks: Pool) -> None:
        # Each step of this expression visits all elements.
        query = "[?" + "||".join(["[*].a.b.c"] * 100) + "]"
        target = await target_of(page(WIDE), json_query=query, timeout_sec=60)
        seen = await checks.check(target)
        assert seen == CheckResult(False, f"took more than {worker.ALONE_BUDGET:g} s of processor time")
        assert await checks.check(await target_of(page())) == OK

    with_pool(service.path, work)


def test_more_costly_checks_than_may_run_at_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait for each other, but not longer than their time-out."""
    monkeypatch.setattr(pool, "MAX_ALONE", 1)

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def work(checks: Pool) -> None:
        targets = [await target_of(page(WIDE), json_query="length(@) == `300001`") for _number in range(5)]
        assert await asyncio.gather(*map(checks.check, targets)) == [OK] * 5
        slow, waiting = await target_of(never, timeout_sec=3), await target_of(page(), timeout_sec=1)
        checks.costly.update({slow.probe: 0, waiting.probe: 0})
        results = await asyncio.gather(*map(checks.check, (slow, waiting)))
        assert results == [
            CheckResult(False, "timed out after 3 s"),
            CheckResult(None, "not checked: waited 0.5 s for other costly checks to end"),
        ]

    with_pool(service.path, work)


def test_a_process_that_ends_leaves_no_result(service: Service) -> None:
    """The next checks of its targets are made alone, because one of them may be the cause."""

    async def work(checks: Pool) -> None:
        is_asked, is_cured = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            is_asked.set()
            await is_cured.wait()
            await page()(reader, writer)

        target = await target_of(serve)
        running = asyncio.ensure_future(checks.check(target))
        await is_asked.wait()
        (process,) = processes_of(service)
        os.kill(process, signal.SIGKILL)
        assert await running == CheckResult(None, "not checked: the process for checks has ended")
        assert checks.suspects == {target.probe}
        assert await checks.check(await target_of(page())) == OK
        is_cured.set()
        assert await checks.check(target) == OK
        assert not checks.suspects and not checks.costly

    with_pool(service.path, work)


def test_a_costly_last_step(service: Service) -> None:
    """An expression is applied after all else, and can look at each element of a short body many times."""

    async def work(checks: Pool) -> None:
        body = b"[" + b"0," * 15_000 + b"0]"
        target = await target_of(page(body), json_query="length([?@ == `0`]) == `15001`")
        assert await checks.check(target) == OK
        assert list(checks.costly) == [target.probe]

    with_pool(service.path, work)


@pytest.mark.parametrize(
    "answer",
    [
        b"no JSON",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"number": 1, "result": {"success": 7, "message": "", "weight": null}}',
    ],
)
def test_a_process_that_a_server_has_taken_over(tmp_path: Path, answer: bytes) -> None:
    """Its connection is given up at once, and its checks have no result."""
    path = str(tmp_path / "socket")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await reader.readline()
        writer.write(answer + b"\n")
        await reader.read()

    async def main() -> None:
        server = await asyncio.start_unix_server(serve, path)
        checks = Pool(path)
        result = await checks.check(await target_of(page()))
        assert result == CheckResult(None, "not checked: the process for checks has ended")
        checks.close()
        server.close()

    asyncio.run(main())


def test_no_service(tmp_path: Path) -> None:
    async def work(checks: Pool) -> None:
        message = "not checked: evenflow-checks.socket: No such file or directory; does the service run?"
        assert await checks.check(await target_of(page())) == CheckResult(None, message)
        assert await checks.check(await target_of(page(), "tcp")) == CheckResult(True, "connected")

    with_pool(str(tmp_path / "none"), work)


def test_a_missing_file_of_certificates_is_a_result(service: Service) -> None:
    """The file is read before the check."""

    async def work(checks: Pool) -> None:
        target = await target_of(page(), "https", ca_file="/nonexistent.pem")
        assert await checks.check(target) == CheckResult(False, "ca_file /nonexistent.pem: No such file or directory")

    with_pool(service.path, work)
