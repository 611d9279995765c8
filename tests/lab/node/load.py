# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Traffic of the lab's client, limited in count and time; each line of the output is a record, a JSON object.

With --until-eof the traffic continues until standard input ends, without a limit in time. SIGTERM ends it as well. In
both cases every flow has a record, and a held connection exchanges a last message to prove that it is alive.

http    a new connection for every request
udp     a new socket for every datagram, or with --fixed as many sockets per target as --concurrency, used in turn
tuples  flows on standard input, one per line: `tcp|udp SOURCE SOURCE_PORT DESTINATION DESTINATION_PORT`
dns     a new socket for every query of who.night.test, whose text record names the backend
stream  held TCP connections to the stream server, every byte checked

Keys: t (seconds since the epoch, at the start), kind, target, ok, backend, peer and peer_port (as the backend saw
them), source, sport (the source port), error (null when ok), seconds; stream has bytes too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any

MAX_SECONDS = 3600.0
MAX_COUNT = 2_000_000


@dataclass(frozen=True)
class Target:
    """An address and a port, of either family."""

    host: str
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass
class Record:
    """The result of one flow."""

    t: float
    kind: str
    target: str
    ok: bool = False
    backend: str | None = None
    peer: str | None = None
    peer_port: int | None = None
    source: str | None = None
    sport: int | None = None
    error: str | None = None
    seconds: float = 0.0
    bytes: int | None = None

    def answered(self, fields: list[str]) -> None:
        """Store the backend's name and the peer from the answer of a backend."""
        self.backend, self.peer, self.peer_port = fields[0], fields[1], int(fields[2])


class WrongAnswer(Exception):
    """An answer came, but not the expected one."""


class End:
    """The end of the traffic: after a number of seconds, or earlier by a signal or at the end of standard input."""

    def __init__(self, seconds: float, until_eof: bool) -> None:
        self._event = asyncio.Event()
        self._time = float("inf") if until_eof else time.monotonic() + seconds
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._event.set)
        if until_eof:
            loop.add_reader(sys.stdin, self._read)

    def _read(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin)
            self._event.set()

    def is_due(self, when: float = 0.0) -> bool:
        """Return whether the end has come, or will have come at a time of the monotonic clock."""
        return self._event.is_set() or max(when, time.monotonic()) >= self._time

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not past the end."""
        try:
            await asyncio.wait_for(self._event.wait(), min(seconds, self._time - time.monotonic()))
        except (asyncio.TimeoutError, TimeoutError):
            pass


def main() -> None:
    """Send the traffic that the command line asks for."""
    options = _parser().parse_args()
    options.timeout *= float(os.environ.get("EVENFLOW_SLOWNESS", "1"))
    jobs: dict[str, Callable[[argparse.Namespace], Coroutine[Any, Any, None]]] = {
        "http": _http,
        "udp": _udp,
        "tuples": _tuples,
        "stream": _stream,
        "dns": _dns,
    }
    asyncio.run(jobs[options.mode](options))


async def _http(options: argparse.Namespace) -> None:
    async def send(target: Target, _worker: int) -> None:
        await _recorded(
            Record(time.time(), "http", str(target)), options.timeout, lambda record: _get(record, target, options.path)
        )

    await _spread(options, send)


async def _udp(options: argparse.Namespace) -> None:
    kept: dict[tuple[int, Target], tuple[socket.socket, asyncio.Lock]] = {}
    last_ports: deque[int] = deque(maxlen=1000)

    async def send(target: Target, number: int) -> None:
        if not options.fixed:
            with _unused(target.family, last_ports) as sock:
                await ask(sock, target)
            return
        if (number, target) not in kept:
            kept[number, target] = _socket(target.family, socket.SOCK_DGRAM), asyncio.Lock()
        sock, lock = kept[number, target]
        async with lock:
            await ask(sock, target)

    async def ask(sock: socket.socket, target: Target) -> None:
        await _recorded(
            Record(time.time(), "udp", str(target)),
            options.timeout,
            lambda record: _ask(record, sock, target, options.size),
        )

    await _spread(options, send)


async def _dns(options: argparse.Namespace) -> None:
    async def send(target: Target, _number: int) -> None:
        with _socket(target.family, socket.SOCK_DGRAM) as sock:
            await _recorded(
                Record(time.time(), "dns", str(target)), options.timeout, lambda record: _resolve(record, sock, target)
            )

    await _spread(options, send)


async def _tuples(options: argparse.Namespace) -> None:
    flows = [line.split() for line in sys.stdin if line.strip()][:MAX_COUNT]
    waiting = iter(flows)

    async def send(protocol: str, source: str, sport: int, target: Target) -> None:
        await _recorded(
            Record(time.time(), protocol, str(target)),
            options.timeout,
            lambda record: _from_tuple(record, target, protocol, source, sport),
        )

    async def worker() -> None:
        for protocol, source, sport, host, port in waiting:
            await send(protocol, source, int(sport), Target(host, int(port)))

    await asyncio.gather(*(worker() for _number in range(options.concurrency)))


async def _stream(options: argparse.Namespace) -> None:
    end = End(options.seconds, options.until_eof)
    # Each step of a stream has a separate timeout.
    limit = None if options.until_eof else options.seconds + 2 * options.timeout

    async def hold(target: Target) -> None:
        record = Record(time.time(), "stream", str(target), bytes=0)
        await _recorded(record, limit, lambda record: _hold(record, target, options, end))

    await asyncio.gather(*(hold(options.target[number % len(options.target)]) for number in range(options.count)))


async def _spread(options: argparse.Namespace, send: Callable[[Target, int], Awaitable[None]]) -> None:
    """Call `send` for the targets in turn, at the rate of the options, until count or time is reached.

    The second argument of `send` is the number of the round, modulo the concurrency.
    """
    turns = Turns(options.rate, options.count, End(options.seconds, options.until_eof))

    async def worker() -> None:
        async for turn in turns.each():
            round_number, place = divmod(turn, len(options.target))
            await send(options.target[place], round_number % options.concurrency)

    await asyncio.gather(*(worker() for _number in range(options.concurrency)))


class Turns:
    """Numbers 0, 1, 2 … that all workers share, each handed out at its time."""

    def __init__(self, rate: float, count: int, end: End) -> None:
        self._rate, self._count, self._end = rate, count, end
        self._began = time.monotonic()
        self._next = 0

    async def each(self) -> AsyncIterator[int]:
        while self._next < self._count:
            turn = self._next
            due = self._began + (turn / self._rate if self._rate else 0)
            if self._end.is_due(due):
                return
            self._next += 1
            pause = due - time.monotonic()
            if pause > 0:
                await self._end.sleep(pause)
                if self._end.is_due():
                    return
            yield turn


async def _recorded(record: Record, timeout: float | None, job: Callable[[Record], Awaitable[None]]) -> None:
    """Run one job, put its outcome into the record and print it."""
    began = time.monotonic()
    try:
        await asyncio.wait_for(job(record), timeout)
        record.ok = True
    except (asyncio.TimeoutError, TimeoutError):
        record.error = "timeout"
    except OSError as error:
        # asyncio's text for a refused connection differs and has the address in it
        record.error = os.strerror(error.errno) if error.errno else type(error).__name__
    except (WrongAnswer, ValueError, IndexError, asyncio.IncompleteReadError) as error:
        record.error = f"wrong answer: {error}"
    record.seconds = round(time.monotonic() - began, 6)
    _print(asdict(record))


async def _get(record: Record, target: Target, path: str) -> None:
    sock = _socket(target.family, socket.SOCK_STREAM)
    with sock:
        await _connect(record, sock, target)
        await _request(record, sock, target, path)


async def _request(record: Record, sock: socket.socket, target: Target, path: str) -> None:
    """Make one HTTP/1.1 request on a connected socket, read the whole answer and check its length.

    The client closes first. A connection that a backend closes first stays in its TIME_WAIT state for a minute. The
    backend would then answer a new flow from the same port, even to another VIP, with an old ACK, and the flow's SYN
    would be sent again.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, f"GET {path} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    received = bytearray()
    while b"\r\n\r\n" not in received:
        received += await _received(sock, "head")
    head, _separator, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    if lines[0].split()[1] != "200":
        raise WrongAnswer(lines[0])
    fields = {key.lower(): value.strip() for key, _colon, value in (line.partition(":") for line in lines[1:])}
    length = int(fields.get("content-length", "none"))
    while len(body) < length:
        body += await _received(sock, f"{length} bytes")
    if len(body) > length:
        raise WrongAnswer(f"{len(body)} bytes of {length}")
    record.answered(fields["x-answer"].split() if "x-answer" in fields else body.decode("latin-1").split())


async def _received(sock: socket.socket, due: str) -> bytes:
    chunk = await asyncio.get_running_loop().sock_recv(sock, 262144)
    if not chunk:
        raise WrongAnswer(f"connection closed before the end of the {due}")
    return chunk


async def _ask(record: Record, sock: socket.socket, target: Target, size: int) -> None:
    """Send one datagram and read its answer, matched by a number, so that late answers of others are ignored."""
    loop = asyncio.get_running_loop()
    await _connect(record, sock, target)
    payload = f"{time.monotonic_ns()}-{record.sport}".encode().ljust(size, b".")
    await loop.sock_sendall(sock, payload)
    while True:
        answer = await loop.sock_recv(sock, 65535)
        fields = answer.split(b" ", 4)
        if len(fields) == 5 and fields[4] == payload:
            record.answered([field.decode() for field in fields])
            return


async def _resolve(record: Record, sock: socket.socket, target: Target) -> None:
    import dns.message

    loop = asyncio.get_running_loop()
    await _connect(record, sock, target)
    query = dns.message.make_query("who.night.test", "TXT")
    await loop.sock_sendall(sock, query.to_wire())
    answer = dns.message.from_wire(await loop.sock_recv(sock, 65535))
    if not query.is_response(answer) or not answer.answer:
        raise WrongAnswer(answer.to_text())
    record.backend = answer.answer[0][0].strings[0].decode()


async def _from_tuple(record: Record, target: Target, protocol: str, source: str, sport: int) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    sock = _socket(target.family, kind)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((source, sport))
        if protocol == "tcp":
            # close by a reset, so that the same tuple can be used again at once
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await _connect(record, sock, target)
            await _request(record, sock, target, "/")
        else:
            await _ask(record, sock, target, 0)


async def _hold(record: Record, target: Target, options: argparse.Namespace, end: End) -> None:
    """Hold one connection until the end and check every received byte."""
    sock = _socket(target.family, socket.SOCK_STREAM)
    await asyncio.wait_for(_connect(record, sock, target), options.timeout)
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        record.answered((await asyncio.wait_for(reader.readline(), options.timeout)).decode().split())
        _print({**asdict(record), "kind": "stream-open", "ok": True})
        if options.push:
            await _listen(record, reader, writer, options, end)
        else:
            await _echo(record, reader, writer, options, end)
    finally:
        writer.close()


async def _echo(
    record: Record, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, options: argparse.Namespace, end: End
) -> None:
    writer.write(b"echo\n")
    record.bytes = number = 0
    is_last = False
    while not is_last:
        is_last = end.is_due()
        sent = f"{record.sport}.{number}.".encode()
        sent = (sent * (options.size // len(sent) + 1))[: max(options.size, 1)]
        writer.write(sent)
        received = await asyncio.wait_for(reader.readexactly(len(sent)), options.timeout)
        if received != sent:
            raise WrongAnswer(f"other bytes after {record.bytes}")
        record.bytes += len(received)
        number += 1
        if not is_last:
            await end.sleep(options.interval)


async def _listen(
    record: Record, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, options: argparse.Namespace, end: End
) -> None:
    writer.write(f"push {max(1, round(options.interval * 1000))}\n".encode())
    record.bytes = number = 0
    is_last = False
    while not is_last:
        is_last = end.is_due()
        received = await asyncio.wait_for(reader.readexactly(11), options.timeout)
        if received != f"{number:010d}\n".encode():
            raise WrongAnswer(f"other bytes after {record.bytes}")
        record.bytes += len(received)
        number += 1


async def _connect(record: Record, sock: socket.socket, target: Target) -> None:
    await asyncio.get_running_loop().sock_connect(sock, (target.host, target.port))
    record.source, record.sport = sock.getsockname()[:2]


def _socket(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    return sock


def _unused(family: socket.AddressFamily, last_ports: deque[int]) -> socket.socket:
    """Return a UDP socket with a source port that is none of the last ones, and add the port to these.

    A datagram from the port of a flow that conntrack still has would continue that flow.
    """
    while True:
        sock = _socket(family, socket.SOCK_DGRAM)
        sock.bind(("", 0))
        port = sock.getsockname()[1]
        if port not in last_ports:
            last_ports.append(port)
            return sock
        sock.close()


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _target(text: str) -> Target:
    host, _colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"not ADDRESS:PORT or [ADDRESS]:PORT: {text}")
    return Target(host, int(port))


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"0 < seconds <= {MAX_SECONDS:g}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 < value <= MAX_COUNT:
        raise argparse.ArgumentTypeError(f"1 to {MAX_COUNT}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    for mode in ("http", "udp", "dns"):
        command = modes.add_parser(mode)
        command.add_argument("--target", type=_target, action="append", required=True, help="repeatable, used in turn")
        command.add_argument("--rate", type=float, default=0.0, help="flows per second over all targets; 0: no pacing")
        command.add_argument("--count", type=_count, default=MAX_COUNT)
        command.add_argument("--seconds", type=_seconds, default=60.0)
        command.add_argument("--until-eof", action="store_true", help="go on until standard input ends")
        command.add_argument("--concurrency", type=_count, default=64)
        command.add_argument("--timeout", type=_seconds, default=5.0)
        if mode == "http":
            command.add_argument("--path", default="/")
        if mode == "udp":
            command.add_argument("--fixed", action="store_true", help="keep the sockets and so the source ports")
            command.add_argument("--size", type=int, default=0, help="minimum payload in bytes")
    tuples = modes.add_parser("tuples")
    tuples.add_argument("--concurrency", type=_count, default=32)
    tuples.add_argument("--timeout", type=_seconds, default=5.0)
    stream = modes.add_parser("stream")
    stream.add_argument("--target", type=_target, action="append", required=True)
    stream.add_argument("--count", type=_count, default=10, help="connections")
    stream.add_argument("--seconds", type=_seconds, default=10.0)
    stream.add_argument("--until-eof", action="store_true", help="go on until standard input ends")
    stream.add_argument("--timeout", type=_seconds, default=5.0, help="for the connection, and for every answer")
    stream.add_argument("--interval", type=float, default=0.1, help="seconds between messages")
    stream.add_argument("--size", type=int, default=64, help="size of a message in bytes")
    stream.add_argument("--push", action="store_true", help="only the server sends")
    return parser


if __name__ == "__main__":
    main()
