# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers of every bad kind for health checks, and of good ones.

The program prints a list of its servers as JSON: name, type and options of the check, port. It opens their ports when a
line comes from standard input, and ends with that. The good ones print at the end what they have seen of each check, by
port: a list of the time of its begin and its length, in seconds.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Answers = Callable[[bytes], list[bytes]]

SECONDS = 20
"""How long a server serves a connection."""

FIRST_PORT = 20000

LONG_NAME = "a." * 120 + "example"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ZEROS = b"[" + b"0," * 10_000 + b"0]"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Return a frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def page(body: bytes) -> bytes:
    """Return an HTTP response."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def flood(part: bytes, head: bytes = b"") -> Serve:
    """Return a server that repeats some data for as long as the client reads."""
    block = part * max(1, 16384 // len(part))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(head)
        while True:
            writer.write(block)
            await writer.drain()

    return serve


def seldom(serve: Serve) -> Serve:
    """Return a server that serves like another at each eighth connection, and gives a short page else."""
    turns = itertools.cycle([serve] + [once(page(b"[]"))] * 7)

    async def serve_in_turn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next(turns)(reader, writer)

    return serve_in_turn


def drip(data: bytes, seconds: float) -> Serve:
    """Return a server that sends data byte by byte."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(seconds)

    return serve


def once(data: bytes) -> Serve:
    """Return a server that sends data and keeps the connection until the client closes it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(data)
        await writer.drain()
        await reader.read()

    return serve


async def garbled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send garbage below TLS."""
    await reader.read(4096)
    os.write(writer.get_extra_info("socket").fileno(), b"garbage" * 2000)
    await asyncio.sleep(30)


def over_http2(answer: Callable[[h2.connection.H2Connection, int], None]) -> Serve:
    """Return a server that answers each request over HTTP/2; `answer` gets the connection and the stream."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        speaker = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        speaker.initiate_connection()
        while True:
            writer.write(speaker.data_to_send())
            received = await reader.read(65536)
            if not received:
                return
            for event in speaker.receive_data(received):
                if isinstance(event, h2.events.StreamEnded):
                    answer(speaker, event.stream_id)

    return serve


def serving(speaker: h2.connection.H2Connection, stream: int) -> None:
    """Answer a gRPC health check: SERVING."""
    speaker.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
    speaker.send_data(stream, b"\0\0\0\0\2\x08\1")
    speaker.send_headers(stream, [("grpc-status", "0")], end_stream=True)


def small_page(speaker: h2.connection.H2Connection, stream: int) -> None:
    """Answer with a page."""
    speaker.send_headers(stream, [(":status", "200")])
    speaker.send_data(stream, b"ok", end_stream=True)


def records(length: int, *, has_right_id: bool = True, count: int = 1) -> Answers:
    """Return a DNS server whose answers consist of names that point to a long name."""

    def answers(request: bytes) -> list[bytes]:
        record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\0"
        number = (length - 300) // len(record)
        head = request[:2] if has_right_id else bytes([request[0] ^ 1, request[1]])
        head += b"\x80\0\0\1" + number.to_bytes(2, "big") + b"\0\0\0\0"
        return [head + request[12:] + record * number] * count

    return answers


def address_record(request: bytes) -> list[bytes]:
    """Answer a query with an address."""
    return [request[:2] + b"\x80\0\0\1\0\1\0\0\0\0" + request[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\1\2\3\4"]


@dataclass(frozen=True)
class Kind:
    """A kind of server: its name, the check that it is made for, and what it does (Serve, or Answers for dns)."""

    name: str
    type: str
    options: dict[str, Any]
    serve: Any


BAD = [
    Kind("http endless interim", "http", {}, flood(b"HTTP/1.1 100 Continue\r\n\r\n")),
    Kind("http one-byte chunks", "http", {"json_query": "ok"}, flood(b"1\r\nx\r\n", CHUNKED)),
    Kind("http one-byte chunks, prefix", "http", {"response": "x" * 1000}, flood(b"1\r\nx\r\n", CHUNKED)),
    Kind("http chunk extensions", "http", {"response": "x" * 9}, flood(b"1;" + b"e" * 8000 + b"\r\ny\r\n", CHUNKED)),
    Kind("http many headers", "http", {}, flood(b"a:b\r\n", b"HTTP/1.1 200 OK\r\n")),
    Kind("http endless header", "http", {}, flood(b"a", b"HTTP/1.1 200 OK\r\na: ")),
    Kind("http dripping header", "http", {}, drip(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 9999, 0.001)),
    Kind("http endless body", "http", {"json_query": "ok"}, flood(b"x", b"HTTP/1.1 200 OK\r\n\r\n")),
    Kind("http deep JSON", "http", {"json_query": "ok"}, once(page(b"[" * 100_000))),
    Kind("http wide JSON", "http", {"json_query": "[*].a.b.c | [0]"}, once(page(b"[" + b"{}," * 340_000 + b"0]"))),
    Kind("http infinite JSON", "http", {"json_query": "ceil(@) == `1`"}, once(page(b"Infinity"))),
    Kind("http garbage", "http", {}, flood(bytes(range(256)))),
    Kind("http silence", "http", {}, once(b"")),
    Kind("https garbage", "https", {"tls_verify": False}, garbled),
    Kind("https one-byte records", "https", {"tls_verify": False}, drip(CHUNKED + b"1\r\nx\r\n" * 9999, 0)),
    Kind(
        "https wide JSON",
        "https",
        {"tls_verify": False, "json_query": "[*].a.b.c | [0]"},
        once(page(b"[" + b"{}," * 340_000 + b"0]")),
    ),
    Kind("https large key exchange", "https", {"tls_verify": False}, once(page(b"ok"))),
    Kind("http costly expression", "http", {"json_query": "[?@ == `1`] || [?@ == `2`]"}, once(page(ZEROS))),
    Kind("http seldom costly", "http", {"json_query": "[?@ == `1`] || [?@ == `2`]"}, seldom(once(page(ZEROS)))),
    Kind("grpc PING", "grpc", {}, flood(frame(6, bytes(8)), SETTINGS)),
    Kind("grpc SETTINGS", "grpc", {}, flood(frame(4), SETTINGS)),
    Kind("grpc large SETTINGS", "grpc", {}, flood(frame(4, b"\0\4\0\0\xff\xff" * 2000), SETTINGS)),
    Kind("grpc WINDOW_UPDATE", "grpc", {}, flood(frame(8, b"\0\0\0\1"), SETTINGS)),
    Kind("grpc PRIORITY", "grpc", {}, flood(frame(2, bytes(5), stream=1), SETTINGS)),
    Kind("grpc empty DATA", "grpc", {}, flood(frame(0, stream=1), SETTINGS + frame(1, b"\x88", flags=4, stream=1))),
    Kind(
        "grpc headers of one byte", "grpc", {}, flood(frame(1, b"\x88" + b"\x90" * 16000, flags=4, stream=1), SETTINGS)
    ),
    Kind("grpc CONTINUATION", "grpc", {}, flood(frame(9, b"\x90" * 1000, stream=1), SETTINGS + frame(1, stream=1))),
    Kind("grpc GOAWAY", "grpc", {}, once(SETTINGS + frame(7, bytes(8)))),
    Kind("tcp dripping", "tcp", {"request": "a", "response": "x" * 1000}, drip(b"x" * 9999, 0)),
    Kind("dns 4 kB", "dns", {"query": LONG_NAME}, records(4000)),
    Kind("dns 16 kB", "dns", {"query": LONG_NAME}, records(16_000)),
    Kind("dns 64 kB", "dns", {"query": LONG_NAME}, records(65_000)),
    Kind("dns wrong id", "dns", {"query": LONG_NAME}, records(400, has_right_id=False, count=2000)),
]
GOOD = [
    Kind("http", "http", {}, once(page(b"ok"))),
    Kind("http prefix", "http", {"response": "ok"}, once(page(b"okay"))),
    Kind("http JSON", "http", {"json_query": "ok"}, once(page(b'{"ok": true}'))),
    Kind("https", "https", {"tls_verify": False}, once(page(b"ok"))),
    Kind("tls", "tls", {"tls_verify": False}, once(b"")),
    Kind("http2", "http2", {"response": "ok"}, over_http2(small_page)),
    Kind("http2 over TLS", "http2", {"tls": True, "tls_verify": False}, over_http2(small_page)),
    Kind("grpc", "grpc", {}, over_http2(serving)),
    Kind("grpc over TLS", "grpc", {"tls": True, "tls_verify": False}, over_http2(serving)),
    Kind("tcp", "tcp", {"request": "a", "response": "b"}, once(b"b")),
    Kind("dns", "dns", {"query": "example.com"}, address_record),
]


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answers: Answers, seen: list[tuple[float, float]]) -> None:
        self._answers = answers
        self._seen = seen

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._seen.append((time.monotonic(), 0.0))
        for answer in self._answers(data):
            self._transport.sendto(answer, addr)


def _observed(serve: Serve, seen: list[tuple[float, float]]) -> Serve:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began = time.monotonic()
        try:
            await asyncio.wait_for(serve(reader, writer), SECONDS)
        except (OSError, asyncio.TimeoutError):
            pass
        finally:
            seen.append((began, time.monotonic() - began))
            writer.transport.abort()

    return served


def _context() -> ssl.SSLContext:
    """Return the context of a server whose certificate nobody has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder, "key.pem"), Path(folder, "cert.pem")
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=zoo", "-days", "1"]
        subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, stderr=subprocess.DEVNULL)
        context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _large_key_exchange() -> ssl.SSLContext:
    """Return a context for key exchanges by DHE alone, modulo a number of 10,000 bits, which costs the client most."""
    context = _context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DHE:@SECLEVEL=0")
    numbers = _der(2, ((1 << 9999) | 1).to_bytes(1251, "big")) + _der(2, b"\2")
    text = base64.encodebytes(_der(0x30, numbers)).decode("ascii")
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(f"-----BEGIN DH PARAMETERS-----\n{text}-----END DH PARAMETERS-----\n")
        file.flush()
        context.load_dh_params(file.name)
    return context


def _der(kind: int, content: bytes) -> bytes:
    length = len(content)
    return bytes([kind, length] if length < 128 else [kind, 0x82, length >> 8, length & 255]) + content


async def main(kinds: list[Kind], copies: int) -> None:
    """Serve each kind as many times, until standard input ends."""
    loop, context = asyncio.get_running_loop(), _context()
    loop.set_exception_handler(lambda _loop, _context: None)
    servers = dict(enumerate([kind for kind in kinds for _copy in range(copies)], FIRST_PORT))
    seen: dict[int, list[tuple[float, float]]] = {port: [] for port in servers}
    listed = [
        {"name": kind.name, "type": kind.type, "options": kind.options, "port": port} for port, kind in servers.items()
    ]
    print(json.dumps(listed), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    for port, kind in servers.items():
        if kind.type == "dns":
            await loop.create_datagram_endpoint(
                partial(_Datagrams, kind.serve, seen[port]), local_addr=("0.0.0.0", port)
            )
        else:
            tls = context if kind.type in ("tls", "https") or kind.options.get("tls") else None
            if kind.name == "https large key exchange":
                tls = _large_key_exchange()
            await asyncio.start_server(_observed(kind.serve, seen[port]), "0.0.0.0", port, ssl=tls)
    await loop.run_in_executor(None, sys.stdin.readline)
    if kinds is GOOD:
        print(json.dumps(seen), flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(GOOD if sys.argv[1] == "good" else BAD, int(sys.argv[2])))
