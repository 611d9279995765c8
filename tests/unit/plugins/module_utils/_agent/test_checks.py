# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of row 24: the result of each type of check for healthy and for failing servers."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import h2.connection
import h2.events
import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent import (
    check_http,
    check_script,
    conntrack_drops,
    http2,
    page,
    script_runner,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.checks import CHECKS, probe
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.script_slots import Slots
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.target import MESSAGE_LENGTH, Target
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.options import CHECK_TYPES
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import CheckResult
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, check, configuration, listener

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def target_of(port: int, kind: str, **options: Any) -> Target:
    """Return a target on the loopback address."""
    web = configuration(listener("web", backend("198.19.0.1"), health_check=check(kind, **options))).listeners[0]
    if web.health_check is None:
        raise ValueError("the listener has a check")
    return replace(Target.of(web, web.backends[0], web.health_check), address="127.0.0.1", port=port)


def run_check(serve: Serve, kind: str, context: ssl.SSLContext | None = None, **options: Any) -> CheckResult:
    """Run a check once against a server on the loopback address."""

    async def work() -> CheckResult:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        try:
            return await probe(target_of(server.sockets[0].getsockname()[1], kind, **options))
        finally:
            server.close()

    return asyncio.run(work())


def server_that_sends(*parts: bytes, reads: bool = True, is_reset: bool = False, stays: bool = False) -> Serve:
    """Return a server that reads a request, sends some data and closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if reads:
                await reader.read(4096)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)
            if is_reset:
                own = writer.transport.get_extra_info("socket")
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            if stays:
                await asyncio.sleep(5)
        except OSError:
            pass
        finally:
            writer.close()

    return serve


def http_response(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_every_type_has_a_check() -> None:
    assert tuple(CHECKS) == CHECK_TYPES


class TestTcp:
    def test_a_connection(self) -> None:
        assert run_check(server_that_sends(reads=False), "tcp") == CheckResult(True, "connected")

    def test_refused(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            result = asyncio.run(probe(target_of(unused.getsockname()[1], "tcp")))
        assert result == CheckResult(False, "refused")

    def test_an_answer_in_pieces(self) -> None:
        assert run_check(server_that_sends(b"+PO", b"NG\r\n"), "tcp", request="PING\r\n", response="+PONG").success

    def test_a_wrong_prefix(self) -> None:
        result = run_check(server_that_sends(b"-ERR no\r\n"), "tcp", request="PING\r\n", response="+PONG")
        assert result == CheckResult(False, "answer '-ERR no\\r\\n', expected '+PONG'")

    def test_closed_too_soon(self) -> None:
        assert (
            run_check(server_that_sends(b"+P"), "tcp", request="x", response="+PONG").message
            == "closed after '+P', expected '+PONG'"
        )

    def test_reset(self) -> None:
        assert run_check(server_that_sends(is_reset=True), "tcp", request="x", response="y").message == "reset"

    def test_no_answer_until_the_time_out(self) -> None:
        result = run_check(server_that_sends(stays=True), "tcp", request="x", response="y", timeout_sec=0.05)
        assert result == CheckResult(False, "timed out after 0.05 s")

    def test_the_proxy_header_is_sent_first(self) -> None:
        seen = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readline())
            writer.write(b"ok")
            writer.close()

        assert run_check(serve, "tcp", proxy_header="proxy_v1", response="ok").success
        fields = seen[0].split()
        assert fields[:4] == [b"PROXY", b"TCP4", b"127.0.0.1", b"127.0.0.1"] and len(fields) == 6


class TestHttp:
    def test_a_page(self) -> None:
        assert run_check(server_that_sends(http_response(b"hello")), "http") == CheckResult(True, "status 200")

    @pytest.mark.parametrize(
        ("status", "codes", "message"),
        [
            ("503 no", ["200"], "status 503, expected 200"),
            ("302 to", ["200", "300-399"], "status 302"),
            ("404 no", ["200-299", "301"], "status 404, expected 200-299, 301"),
            ("204 none", ["204"], "status 204"),
        ],
    )
    def test_status(self, status: str, codes: list[str], message: str) -> None:
        result = run_check(server_that_sends(http_response(b"", status)), "http", status=codes)
        assert result == CheckResult("expected" not in message, message)

    def test_an_interim_response_is_skipped(self) -> None:
        assert run_check(server_that_sends(b"HTTP/1.1 100 Continue\r\n\r\n" + http_response()), "http").success

    def test_the_body_begins_as_expected(self) -> None:
        assert run_check(server_that_sends(http_response(b"ready now")), "http", response="ready").success
        result = run_check(server_that_sends(http_response(b"starting")), "http", response="ready")
        assert (
            result.message == "body 'start', expected 'ready'" or result.message == "body 'starting', expected 'ready'"
        )

    def test_a_chunked_body(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = b'7\r\n{"ok": \r\n', b"5\r\ntrue}\r\n", b"0\r\n\r\n"
        assert run_check(server_that_sends(head, *chunks), "http", json_query="ok").success

    @pytest.mark.parametrize(
        ("body", "query", "message"),
        [
            ('{"ok": false}', "ok", "json_query gives false, expected true"),
            ('{"n": 3}', "n > `2`", "status 200"),
            ('{"n": 1}', "n", "json_query gives 1, expected true"),
            ("{}", "missing", "json_query gives null, expected true"),
        ],
    )
    def test_json(self, body: str, query: str, message: str) -> None:
        assert run_check(server_that_sends(http_response(body.encode())), "http", json_query=query).message == message

    def test_invalid_json(self) -> None:
        assert run_check(server_that_sends(http_response(b"<html>")), "http", json_query="ok").message.startswith(
            "the body is not JSON"
        )
        assert (
            "cannot be applied" in run_check(server_that_sends(http_response(b"{}")), "http", json_query="[[[").message
        )

    def test_a_body_that_does_not_end(self) -> None:
        head = b"HTTP/1.1 200 OK\r\n\r\n"
        result = run_check(server_that_sends(head, b"x" * (1 << 21)), "http", json_query="ok")
        assert result.message == "the body is longer than 1048576 bytes"

    def test_headers_that_do_not_end(self) -> None:
        assert run_check(server_that_sends(b"HTTP/1.1 200 OK\r\nA: " + b"x" * (1 << 20)), "http").message.startswith(
            "not HTTP"
        )

    def test_another_protocol_than_http(self) -> None:
        assert run_check(server_that_sends(b"220 mail.example ESMTP\r\n"), "http").message.startswith("not HTTP")

    def test_endless_interim_responses(self) -> None:
        served = server_that_sends(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, stays=True)
        assert run_check(served, "http") == CheckResult(
            False, f"more than {check_http.MAX_INTERIM} interim responses, the last with status 100"
        )

    def test_a_body_in_too_many_pieces(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        served = server_that_sends(head + b"1\r\nx\r\n" * (page.MAX_PIECES + 1), stays=True)
        assert run_check(served, "http", json_query="ok") == CheckResult(
            False, f"the body consists of more than {page.MAX_PIECES} pieces"
        )

    def test_more_bytes_than_the_check_needs(self) -> None:
        """Headers of chunks count as well, of which the body shows nothing."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        served = server_that_sends(head, *[b"1;" + b"e" * 8000 + b"\r\nx\r\n"] * 40, stays=True)
        assert run_check(served, "http", response="x" * 100).message.startswith("the server sent more than")

    @pytest.mark.parametrize(
        ("body", "query", "message"),
        [
            (b"[" * 100_000, "ok", "RecursionError: "),
            (b"[Infinity]", "ceil([0]) == `1`", "OverflowError: "),
            (b'{"a": [1]}', "a[::0]", "ValueError: "),
            (b'{"a": 1}', "[&a]", "json_query gives a list, expected true"),
            (b'{"a": 1}', "&a", "json_query gives no JSON value"),
            (b'["' + b"x" * 5000 + b'"]', "[0]", 'json_query gives "xxx'),
        ],
    )
    def test_any_error_is_a_failure(self, body: bytes, query: str, message: str) -> None:
        """An error that a server provokes in a library must not end the checks of its backend."""
        result = run_check(server_that_sends(http_response(body)), "http", json_query=query)
        assert result.success is False
        assert result.message.startswith(message) and len(result.message) <= MESSAGE_LENGTH

    def test_no_response(self) -> None:
        assert not run_check(server_that_sends(), "http").success

    @pytest.mark.parametrize(
        ("value", "weight"), [("0", 0), ("42", 42), ("65536", 65535), ("many", None), ("-1", None)]
    )
    def test_a_weight(self, value: str, weight: int | None) -> None:
        served = server_that_sends(http_response(b"", "200 OK", f"X-Load-Balancing-Endpoint-Weight: {value}"))
        assert run_check(served, "http", dynamic_weight=True).weight == weight

    def test_the_request(self) -> None:
        seen = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(http_response())
            writer.close()

        run_check(serve, "http", request_path="/a?b", host="www.example.com")
        assert seen[0].startswith(b"GET /a?b HTTP/1.1\r\nHost: www.example.com\r\n")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    """Return a self-signed certificate of www.example.com and a TLS context of a server with it."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def make_certificate(folder: Path) -> tuple[str, ssl.SSLContext]:
    names = "subjectAltName=DNS:www.example.com"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
    command += ["-addext", names, "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return str(folder / "cert.pem"), server_context(folder / "cert.pem")


def server_context(path: Path, *protocols: str) -> ssl.SSLContext:
    """Return the TLS context of a server with this certificate that offers protocols by ALPN."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(path), str(path.parent / "key.pem"))
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


class TestTls:
    """The server never answers after the handshake, as one that waits for a request of another protocol."""

    def test_a_trusted_certificate(self, certificate: tuple[str, ssl.SSLContext]) -> None:
        options = {"ca_file": certificate[0], "host": "www.example.com"}
        result = run_check(server_that_sends(reads=False, stays=True), "tls", certificate[1], **options)
        assert result == CheckResult(True, "handshake with TLSv1.3")

    def test_the_host_is_sent_by_sni(self, certificate: tuple[str, ssl.SSLContext]) -> None:
        seen: list[str | None] = []
        context = server_context(Path(certificate[0]))
        context.sni_callback = lambda _connection, name, _context: seen.append(name)
        run_check(server_that_sends(reads=False), "tls", context, host="www.example.com:8443", tls_verify=False)
        assert seen == ["www.example.com"]

    @pytest.mark.parametrize(
        ("trusts", "host", "message"),
        [
            (True, "other.example.com", "TLS: Hostname mismatch, certificate is not valid for 'other.example.com'."),
            (True, "", "TLS: IP address mismatch, certificate is not valid for '127.0.0.1'."),
            (False, "www.example.com", "TLS: self-signed certificate"),
        ],
        ids=["other host", "no host", "not trusted"],
    )
    def test_a_wrong_certificate(
        self, certificate: tuple[str, ssl.SSLContext], trusts: bool, host: str, message: str
    ) -> None:
        options = {"ca_file": certificate[0]} if trusts else {}
        served = server_that_sends(reads=False)
        result = run_check(served, "tls", certificate[1], host=host, **options)
        assert (result.success, result.message.replace("self signed", "self-signed")) == (False, message)
        assert run_check(served, "tls", certificate[1], host=host, tls_verify=False, **options).success

    def test_an_expired_certificate(self, tmp_path: Path) -> None:
        valid, _context = make_certificate(tmp_path)
        expired = tmp_path / "expired.pem"
        command = ["openssl", "x509", "-in", valid, "-signkey", str(tmp_path / "key.pem"), "-days", "-1"]
        subprocess.run([*command, "-out", str(expired)], check=True, capture_output=True)
        options = {"ca_file": str(expired), "host": "www.example.com"}
        result = run_check(server_that_sends(reads=False), "tls", server_context(expired), **options)
        assert result == CheckResult(False, "TLS: certificate has expired")

    def test_a_server_without_tls(self) -> None:
        result = run_check(server_that_sends(b"220 mail.example ESMTP\r\n"), "tls", tls_verify=False)
        assert result == CheckResult(False, "TLS: wrong version number")

    def test_closed_in_the_handshake(self) -> None:
        assert run_check(server_that_sends(), "tls") == CheckResult(False, "TLS: closed by the server")

    def test_a_handshake_that_does_not_end(self) -> None:
        served = server_that_sends(b"\x16\x03\x03\x40\x00" + b"\x02\x00\xff\xff", stays=True)
        result = run_check(served, "tls", timeout_sec=0.1)
        assert result == CheckResult(False, "timed out after 0.1 s")

    def test_the_proxy_header_is_sent_before_the_handshake(self) -> None:
        seen = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readline())
            seen.append(await reader.readexactly(1))
            writer.close()

        run_check(serve, "tls", proxy_header="proxy_v1")
        assert seen[0].startswith(b"PROXY TCP4 127.0.0.1 ") and seen[1] == b"\x16"


class TestHttps:
    def test_a_trusted_certificate(self, certificate: tuple[str, ssl.SSLContext]) -> None:
        result = run_check(
            server_that_sends(http_response()), "https", certificate[1], ca_file=certificate[0], host="www.example.com"
        )
        assert result == CheckResult(True, "status 200")

    def test_a_certificate_of_another_host(self, certificate: tuple[str, ssl.SSLContext]) -> None:
        result = run_check(
            server_that_sends(http_response()),
            "https",
            certificate[1],
            ca_file=certificate[0],
            host="other.example.com",
        )
        assert result.message.startswith("TLS: ") and "other.example.com" in result.message

    def test_an_untrusted_certificate(self, certificate: tuple[str, ssl.SSLContext]) -> None:
        assert run_check(
            server_that_sends(http_response()), "https", certificate[1], host="www.example.com"
        ).message.startswith("TLS: ")

    def test_tls_verify_false(self, certificate: tuple[str, ssl.SSLContext]) -> None:
        assert run_check(server_that_sends(http_response()), "https", certificate[1], tls_verify=False).success

    def test_a_server_without_tls(self) -> None:
        assert run_check(server_that_sends(http_response()), "https").message.startswith("TLS: ")

    def test_a_ca_file_is_read_anew_when_it_changes(
        self, certificate: tuple[str, ssl.SSLContext], tmp_path: Path
    ) -> None:
        trusted = tmp_path / "ca.pem"
        trusted.write_bytes(
            Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt").read_bytes()
        )
        options = {"ca_file": str(trusted), "host": "www.example.com"}
        assert run_check(server_that_sends(http_response()), "https", certificate[1], **options).success is False
        trusted.write_bytes(Path(certificate[0]).read_bytes())
        assert run_check(server_that_sends(http_response()), "https", certificate[1], **options).success is True

    def test_garbage_after_the_handshake(self, certificate: tuple[str, ssl.SSLContext]) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(4096)
            os.write(writer.get_extra_info("socket").fileno(), b"garbage" * 100)
            await asyncio.sleep(1)
            writer.close()

        result = run_check(serve, "https", certificate[1], tls_verify=False)
        assert result == CheckResult(False, "TLS: wrong version number")

    def test_closed_in_the_handshake(self) -> None:
        assert run_check(server_that_sends(), "https") == CheckResult(False, "TLS: closed by the server")

    def test_a_missing_ca_file(self) -> None:
        assert "/nowhere.pem" in run_check(server_that_sends(http_response()), "https", ca_file="/nowhere.pem").message


class TestUdp:
    @pytest.mark.parametrize(("answer", "success"), [(b"pong!", True), (b"no", False)])
    def test_an_answer(self, answer: bytes, success: bool) -> None:
        assert run_datagram_check(lambda _request: answer, "udp", request="ping", response="pong").success is success

    def test_refused(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        assert asyncio.run(probe(target_of(port, "udp", request="a", response="b"))).message == "refused"

    def test_no_answer(self) -> None:
        assert (
            run_datagram_check(lambda _request: None, "udp", request="a", response="b", timeout_sec=0.05).message
            == "timed out after 0.05 s"
        )


class TestDns:
    @pytest.mark.parametrize(
        ("records", "code", "message"),
        [
            (["192.0.2.1", "192.0.2.2"], dns.rcode.NOERROR, "2 records"),
            ([], dns.rcode.NOERROR, "no A record of example.com"),
            ([], dns.rcode.NXDOMAIN, "NXDOMAIN for example.com"),
            ([], dns.rcode.SERVFAIL, "SERVFAIL for example.com"),
        ],
    )
    def test_an_answer(self, records: list[str], code: dns.rcode.Rcode, message: str) -> None:
        def answer(request: bytes) -> bytes:
            response = dns.message.make_response(dns.message.from_wire(request))
            response.set_rcode(code)
            if records:
                response.answer.append(dns.rrset.from_text("example.com.", 60, "IN", "A", *records))
            return response.to_wire()

        assert run_datagram_check(answer, "dns", query="example.com").message == message

    def test_an_answer_to_another_query(self) -> None:
        def answer(request: bytes) -> bytes:
            other = dns.message.make_query("other.example", "A", id=int.from_bytes(request[:2], "big"))
            return dns.message.make_response(other).to_wire()

        result = run_datagram_check(answer, "dns", query="example.com")
        assert result == CheckResult(False, "the answer is for another query")

    @pytest.mark.parametrize(("tail", "complete"), [(b"", False), (b"x", False), (b"\xc0\x0c\0\1\0\1", False)])
    def test_an_invalid_answer(self, tail: bytes, complete: bool) -> None:
        def answer(request: bytes) -> bytes:
            return request[:2] + b"\x80\0\0\1\0\1\0\0\0\0" + request[12:] + tail

        result = run_datagram_check(answer, "dns", query="a")
        assert result == CheckResult(complete, "not a DNS answer: it ends too soon")

    def test_an_answer_with_another_id_is_ignored(self) -> None:
        """An answer to an earlier check can come late; the answer to this one follows."""
        seen = []

        def answer(request: bytes) -> bytes:
            seen.append(request)
            return bytes([request[0] ^ 1]) + request[1:]

        result = run_datagram_check(answer, "dns", query="a", timeout_sec=0.2)
        assert result == CheckResult(False, "timed out after 0.2 s") and len(seen) == 1

    def test_an_unknown_opcode(self) -> None:
        result = run_datagram_check(lambda request: request[:2] + b"\xc0" + request[3:], "dns", query="a")
        assert result == CheckResult(False, "the answer is for another query")

    @pytest.mark.parametrize("length", [16_000, 65_000])
    def test_a_long_answer_of_pointers_to_pointers(self, length: int) -> None:
        def answer(request: bytes) -> bytes:
            pointers = b"".join(b"\xc0" + bytes([12]) + b"\0\1\0\1\0\0\0\0\0\0" for _number in range(length // 12))
            return request[:2] + b"\x80\0\0\1\xff\xff\0\0\0\0" + request[12:] + pointers

        result = run_datagram_check(answer, "dns", query="a")
        assert result == CheckResult(False, "the answer is longer than 4096 bytes")


def run_datagram_check(answer: Callable[[bytes], bytes | None], kind: str, **options: Any) -> CheckResult:
    """Run a check once against a datagram server on the loopback address."""

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            response = answer(data)
            if response is not None:
                self.transport.sendto(response, addr)

    async def work() -> CheckResult:
        transport, _protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            Server, local_addr=("127.0.0.1", 0)
        )
        try:
            port = transport.get_extra_info("sockname")[1]
            return await probe(target_of(port, kind, **options))
        finally:
            transport.close()

    return asyncio.run(work())


class TestGrpc:
    @pytest.mark.parametrize(
        ("message", "status", "expected"),
        [
            (b"\x08\x01", "0", "SERVING"),
            (b"\x08\x02", "0", "NOT_SERVING"),
            (b"", "0", "UNKNOWN"),
            (None, "5", "gRPC status 5 unknown service"),
            (None, "12", "gRPC status 12 unknown service"),
        ],
    )
    def test_an_answer(self, message: bytes | None, status: str, expected: str) -> None:
        seen: list[Any] = []
        result = run_check(_grpc_server(message, status, seen), "grpc", grpc_service_name="a.B")
        assert (result.success, result.message) == (expected == "SERVING", expected)
        headers = {_text(name): _text(value) for name, value in seen[0]}
        assert headers[":path"] == "/grpc.health.v1.Health/Check"
        assert headers[":scheme"] == "http" and headers[":authority"].startswith("127.0.0.1:")
        assert seen[1] == b"\0\0\0\0\x05\x0a\x03a.B"

    def test_a_host_with_a_port_is_sent_as_it_is(self) -> None:
        seen: list[Any] = []
        run_check(_grpc_server(b"\x08\x01", "0", seen), "grpc", host="a.example:8080")
        assert {_text(name): _text(value) for name, value in seen[0]}[":authority"] == "a.example:8080"

    def test_another_protocol(self) -> None:
        assert run_check(server_that_sends(http_response()), "grpc").message.startswith("not HTTP/2: 'HTTP/1.1 200 OK")
        assert run_check(server_that_sends(b"\0\0\1\0\0\0\0\0\0x" * 9), "grpc").message.startswith("not HTTP/2")

    def test_a_connection_that_ends_without_an_error_is_made_again(self) -> None:
        """A server that is restarted closes its connections with GOAWAY, before or after it has seen the call."""
        connections = []
        answering = _grpc_server(b"\x08\x01", "0", [])

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)
            if len(connections) <= http2.RETRIES:
                last_stream = b"\0\0\0\0" if len(connections) == 1 else b"\x7f\xff\xff\xff"
                await reader.read(4096)
                writer.write(frame(4) + frame(7, last_stream + bytes(4)))
                writer.close()
            else:
                await answering(reader, writer)

        assert run_check(serve, "grpc") == CheckResult(True, "SERVING")
        assert len(connections) == 1 + http2.RETRIES

    def test_a_server_that_always_ends_the_connection(self) -> None:
        assert run_check(server_that_sends(frame(4) + frame(7, bytes(8))), "grpc") == CheckResult(
            False, "closed without an answer"
        )

    def test_an_answer_after_the_announcement_of_the_end(self) -> None:
        answering = _grpc_server(b"\x08\x01", "0", [])

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(4) + frame(7, b"\x7f\xff\xff\xff" + bytes(4)))
            await answering(reader, writer)

        assert run_check(serve, "grpc") == CheckResult(True, "SERVING")

    def test_a_message_cannot_forge_a_line_of_a_log(self) -> None:
        served = _grpc_server(None, "5", [], "down\t\x1b[31m <3>forged" + "x" * 4000)
        result = run_check(served, "grpc")
        assert result.message.isprintable() and len(result.message) == MESSAGE_LENGTH
        assert result.message.startswith("gRPC status 5 down ?[31m <3>forgedxxx")

    @pytest.mark.parametrize(
        ("kind", "payload"),
        [(6, bytes(8)), (4, b""), (8, b"\0\0\0\1"), (2, bytes(5)), (0, b"")],
        ids=["PING", "SETTINGS", "WINDOW_UPDATE", "PRIORITY", "empty DATA"],
    )
    def test_a_flood_of_frames(self, kind: int, payload: bytes) -> None:
        """The check fails within a bounded number of frames instead of working until its time-out."""
        flood = frame(4) + frame(kind, payload, stream=kind in (0, 2)) * 2 * http2.MAX_FRAMES
        result = run_check(server_that_sends(flood, stays=True), "grpc", timeout_sec=5)
        assert result == CheckResult(False, f"more than {http2.MAX_FRAMES} HTTP/2 frames")


class TestGrpcOverTls:
    @pytest.fixture
    def run(self, certificate: tuple[str, ssl.SSLContext]) -> Callable[..., CheckResult]:
        """Return a function that runs a check against a server with TLS that offers protocols by ALPN."""

        def run(serve: Serve, *protocols: str, **options: Any) -> CheckResult:
            context = server_context(Path(certificate[0]), *protocols)
            options = {"ca_file": certificate[0], "host": "www.example.com", **options}
            return run_check(serve, "grpc", context, tls=True, **options)

        return run

    def test_a_trusted_certificate(self, run: Callable[..., CheckResult]) -> None:
        seen: list[Any] = []
        assert run(_grpc_server(b"\x08\x01", "0", seen), "h2", "http/1.1") == CheckResult(True, "SERVING")
        headers = {_text(name): _text(value) for name, value in seen[0]}
        assert (headers[":scheme"], headers[":authority"]) == ("https", "www.example.com")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"host": "other.example.com"},
                "TLS: Hostname mismatch, certificate is not valid for 'other.example.com'.",
            ),
            ({"ca_file": None}, "TLS: self-signed certificate"),
        ],
        ids=["other host", "not trusted"],
    )
    def test_a_wrong_certificate(self, run: Callable[..., CheckResult], options: dict[str, Any], message: str) -> None:
        served = _grpc_server(b"\x08\x01", "0", [])
        result = run(served, "h2", **options)
        assert (result.success, result.message.replace("self signed", "self-signed")) == (False, message)
        assert run(served, "h2", tls_verify=False, **options).success

    @pytest.mark.parametrize("protocols", [(), ("http/1.1",)], ids=["no ALPN", "HTTP/1.1 alone"])
    def test_a_server_that_does_not_select_http2(
        self, run: Callable[..., CheckResult], protocols: tuple[str, ...]
    ) -> None:
        result = run(_grpc_server(b"\x08\x01", "0", []), *protocols)
        assert result == CheckResult(False, "TLS: the server selects no protocol by ALPN, expected h2")

    def test_a_server_without_tls(self) -> None:
        served = _grpc_server(b"\x08\x01", "0", [])
        assert run_check(served, "grpc", tls=True, timeout_sec=5).message.startswith("TLS: ")

    def test_a_server_with_tls_that_is_asked_without(self, certificate: tuple[str, ssl.SSLContext]) -> None:
        served = _grpc_server(b"\x08\x01", "0", [])
        assert run_check(served, "grpc", certificate[1]).success is False

    def test_a_connection_that_ends_without_an_error_is_made_again(self, run: Callable[..., CheckResult]) -> None:
        connections = []
        answering = _grpc_server(b"\x08\x01", "0", [])

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)
            if len(connections) > http2.RETRIES:
                await answering(reader, writer)
            else:
                await server_that_sends(frame(4) + frame(7, bytes(8)))(reader, writer)

        assert run(serve, "h2") == CheckResult(True, "SERVING")
        assert len(connections) == 1 + http2.RETRIES

    def test_a_flood_of_frames(self, run: Callable[..., CheckResult]) -> None:
        flood = frame(4) + frame(6, bytes(8)) * 2 * http2.MAX_FRAMES
        result = run(server_that_sends(flood, stays=True), "h2", timeout_sec=5)
        assert result == CheckResult(False, f"more than {http2.MAX_FRAMES} HTTP/2 frames")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def frame(kind: int, payload: bytes = b"", *, stream: bool = False, flags: int = 0) -> bytes:
    """Return a frame of HTTP/2, for the connection or for the first stream."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + int(stream).to_bytes(4, "big") + payload


def _grpc_server(message: bytes | None, status: str, seen: list[Any], text: str = "unknown service") -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        speaker = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        speaker.initiate_connection()
        writer.write(speaker.data_to_send())
        while True:
            received = await reader.read(65536)
            if not received:
                return
            for event in speaker.receive_data(received):
                if isinstance(event, h2.events.RequestReceived):
                    seen.append(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    seen.append(event.data)
                elif isinstance(event, h2.events.StreamEnded):
                    stream = event.stream_id
                    trailers = [("grpc-status", status), ("grpc-message", "" if status == "0" else text)]
                    head = [(":status", "200"), ("content-type", "application/grpc")]
                    if message is None:
                        speaker.send_headers(stream, head + trailers, end_stream=True)
                    else:
                        speaker.send_headers(stream, head)
                        speaker.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message)
                        speaker.send_headers(stream, trailers, end_stream=True)
            writer.write(speaker.data_to_send())

    return serve


class TestHttp2:
    def test_a_page(self) -> None:
        seen: list[Any] = []
        options: dict[str, Any] = {"request_path": "/a?b", "host": "www.example.com:81"}
        assert run_check(_page_server(seen=seen), "http2", **options) == CheckResult(True, "status 200")
        assert {_text(name): _text(value) for name, value in seen[0]} == {
            ":method": "GET",
            ":scheme": "http",
            ":path": "/a?b",
            ":authority": "www.example.com:81",
            "user-agent": "evenflow",
            "accept": "*/*",
        }

    @pytest.mark.parametrize(
        ("status", "codes", "message"),
        [
            ("503", ["200"], "status 503, expected 200"),
            ("302", ["200", "300-399"], "status 302"),
            ("404", ["200-299", "301"], "status 404, expected 200-299, 301"),
            ("20x", ["200"], "not HTTP/2: status '20x'"),
        ],
    )
    def test_status(self, status: str, codes: list[str], message: str) -> None:
        result = run_check(_page_server(status), "http2", status=codes)
        assert result == CheckResult(message == "status 302", message)

    def test_the_body_begins_as_expected(self) -> None:
        served = _page_server(body=b"ready now", piece=3)
        assert run_check(served, "http2", response="ready").success
        result = run_check(served, "http2", response="ready!")
        assert result == CheckResult(False, "body 'ready ', expected 'ready!'")

    def test_a_body_that_never_ends_is_not_awaited(self) -> None:
        served = _page_server(body=b"ready", ends=False)
        assert run_check(served, "http2", response="ready") == CheckResult(True, "status 200")
        assert run_check(served, "http2") == CheckResult(True, "status 200")

    @pytest.mark.parametrize(
        ("body", "query", "message"),
        [
            (b'{"n": 3}', "n > `2`", "status 200"),
            (b'{"ok": false}', "ok", "json_query gives false, expected true"),
            (b"[" * 100_000, "ok", "RecursionError: "),
            # This is more than a server may send before the check has acknowledged some of it.
            (b'["' + b"x" * 1_000_000 + b'"]', "length([0]) == `1000000`", "status 200"),
            (b"x" * (page.MAX_BODY + 1), "ok", "the body is longer than 1048576 bytes"),
        ],
        ids=["true", "false", "nested", "long", "too long"],
    )
    def test_json(self, body: bytes, query: str, message: str) -> None:
        result = run_check(_page_server(body=body), "http2", json_query=query)
        assert result.message.startswith(message) and result.success is (message == "status 200")

    @pytest.mark.parametrize(("value", "weight"), [("42", 42), ("65536", 65535), ("many", None), ("\u0663", None)])
    def test_a_weight(self, value: str, weight: int | None) -> None:
        served = _page_server(headers=(("x-load-balancing-endpoint-weight", value),))
        assert run_check(served, "http2", dynamic_weight=True).weight == weight

    def test_interim_responses(self) -> None:
        assert run_check(_page_server(interim=3), "http2") == CheckResult(True, "status 200")
        flooded = _page_server(interim=2 * http2.MAX_FRAMES)
        assert run_check(flooded, "http2") == CheckResult(False, f"more than {http2.MAX_FRAMES} HTTP/2 frames")

    def test_another_protocol(self) -> None:
        result = run_check(server_that_sends(http_response(status="400 Bad Request")), "http2")
        assert result.message.startswith("not HTTP/2: 'HTTP/1.1 400 Bad Request")

    def test_closed_without_an_answer(self) -> None:
        assert run_check(server_that_sends(frame(4)), "http2") == CheckResult(False, "closed without an answer")

    def test_a_stream_that_is_reset(self) -> None:
        served = server_that_sends(frame(4) + frame(3, b"\0\0\0\7", stream=True), stays=True)
        assert run_check(served, "http2") == CheckResult(False, "HTTP/2 error 7")

    def test_a_pushed_page_is_refused(self) -> None:
        """The preface asks for none, and what another stream brings is not the page."""
        served = server_that_sends(frame(4) + frame(4, flags=1) * 2 + frame(5, b"\0\0\0\2\x82", stream=True, flags=4))
        assert run_check(served, "http2").message.startswith("not HTTP/2: ")

    def test_a_connection_that_ends_without_an_error_is_made_again(self) -> None:
        connections = []
        answering = _page_server()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)
            if len(connections) > http2.RETRIES:
                await answering(reader, writer)
            else:
                await server_that_sends(frame(4) + frame(7, bytes(8)))(reader, writer)

        assert run_check(serve, "http2") == CheckResult(True, "status 200")
        assert len(connections) == 1 + http2.RETRIES

    @pytest.mark.parametrize(
        ("kind", "payload"),
        [(6, bytes(8)), (4, b""), (8, b"\0\0\0\1"), (2, bytes(5)), (0, b"")],
        ids=["PING", "SETTINGS", "WINDOW_UPDATE", "PRIORITY", "empty DATA"],
    )
    def test_a_flood_of_frames(self, kind: int, payload: bytes) -> None:
        flood = frame(4) + frame(kind, payload, stream=kind in (0, 2)) * 2 * http2.MAX_FRAMES
        result = run_check(server_that_sends(flood, stays=True), "http2", timeout_sec=5)
        assert result == CheckResult(False, f"more than {http2.MAX_FRAMES} HTTP/2 frames")

    def test_a_body_in_too_many_pieces(self) -> None:
        served = _page_server(body=b"x" * (page.MAX_PIECES + 1), piece=1)
        result = run_check(served, "http2", json_query="ok", timeout_sec=60)
        assert result == CheckResult(False, f"the body consists of more than {page.MAX_PIECES} pieces")

    def test_more_bytes_than_the_check_needs(self) -> None:
        """Padding counts as well, of which the body shows nothing."""
        padded = frame(0, b"\xff" + bytes(255), stream=True, flags=8)
        head = frame(4) + frame(1, b"\x88", stream=True, flags=4)
        result = run_check(server_that_sends(head, padded * 1000, stays=True), "http2", response="x" * 100)
        assert result.message.startswith("the server sent more than")

    def test_the_proxy_header_is_sent_first(self) -> None:
        seen = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readline())
            seen.append(await reader.readline())
            writer.close()

        run_check(serve, "http2", proxy_header="proxy_v1")
        assert seen[0].startswith(b"PROXY TCP4 127.0.0.1 ") and seen[1] == b"PRI * HTTP/2.0\r\n"


class TestHttp2OverTls:
    def test_a_trusted_certificate(self, certificate: tuple[str, ssl.SSLContext]) -> None:
        seen: list[Any] = []
        served = _page_server(body=b'["' + b"x" * 200_000 + b'"]', seen=seen)
        context = server_context(Path(certificate[0]), "http/1.1", "h2")
        options = {"ca_file": certificate[0], "host": "www.example.com", "json_query": "length([0]) == `200000`"}
        assert run_check(served, "http2", context, tls=True, **options) == CheckResult(True, "status 200")
        assert {_text(name): _text(value) for name, value in seen[0]}[":scheme"] == "https"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"host": "other.example.com"},
                "TLS: Hostname mismatch, certificate is not valid for 'other.example.com'.",
            ),
            ({"ca_file": None}, "TLS: self-signed certificate"),
        ],
        ids=["other host", "not trusted"],
    )
    def test_a_wrong_certificate(
        self, certificate: tuple[str, ssl.SSLContext], options: dict[str, Any], message: str
    ) -> None:
        context = server_context(Path(certificate[0]), "h2")
        options = {"ca_file": certificate[0], "host": "www.example.com", **options}
        result = run_check(_page_server(), "http2", context, tls=True, **options)
        assert (result.success, result.message.replace("self signed", "self-signed")) == (False, message)
        assert run_check(_page_server(), "http2", context, tls=True, tls_verify=False, **options).success

    def test_a_server_of_http_1_alone(self, certificate: tuple[str, ssl.SSLContext]) -> None:
        context = server_context(Path(certificate[0]), "http/1.1")
        result = run_check(server_that_sends(http_response()), "http2", context, tls=True, tls_verify=False)
        assert result == CheckResult(False, "TLS: the server selects no protocol by ALPN, expected h2")

    def test_a_server_without_tls(self) -> None:
        result = run_check(server_that_sends(frame(4), stays=True), "http2", tls=True)
        assert result.success is False and result.message.startswith("TLS: ")


def _page_server(
    status: str = "200",
    body: bytes = b"",
    *,
    piece: int = 16384,
    headers: tuple[tuple[str, str], ...] = (),
    interim: int = 0,
    ends: bool = True,
    seen: list[Any] | None = None,
) -> Serve:
    """Return a server that sends a page over HTTP/2, in pieces, as fast as the client acknowledges them.

    :param interim: number of interim responses before the page.
    :param ends: whether the body has an end.
    :param seen: gets the headers of each request.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        settings = h2.config.H2Configuration(client_side=False, validate_outbound_headers=False)
        speaker = h2.connection.H2Connection(settings)
        speaker.initiate_connection()
        stream, sent = 0, -1
        try:
            while True:
                if stream and sent < 0:
                    for _number in range(interim):
                        speaker.send_headers(stream, [(":status", "103")])
                    speaker.send_headers(stream, [(":status", status), *headers], end_stream=ends and not body)
                    sent = 0
                while stream and sent < len(body):
                    part = body[sent : sent + min(piece, speaker.local_flow_control_window(stream))]
                    if not part:
                        break
                    sent += len(part)
                    speaker.send_data(stream, part, end_stream=ends and sent == len(body))
                writer.write(speaker.data_to_send())
                await writer.drain()
                received = await reader.read(65536)
                if not received:
                    return
                for event in speaker.receive_data(received):
                    if isinstance(event, h2.events.RequestReceived):
                        stream = event.stream_id
                        if seen is not None:
                            seen.append(event.headers)
        except OSError:
            pass
        finally:
            writer.close()

    return serve


class TestLocalTrouble:
    """Row 59: a check that cannot be made for a reason on the node has no result."""

    @pytest.mark.parametrize("kind", CHECK_TYPES)
    def test_row_59_without_descriptors(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def exhausted(*_arguments: Any, **_options: Any) -> socket.socket:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        target = target_of(1, kind, command=["/bin/true"], query="a", request="a", response="b", tls_verify=False)

        async def work() -> CheckResult:
            monkeypatch.setattr(socket, "socket", exhausted)
            try:
                return await probe(target)
            finally:
                monkeypatch.undo()

        result = asyncio.run(work())
        assert result.success is None and result.message.lower().startswith("not checked: ")

    @pytest.mark.parametrize("kind", ["tcp", "udp", "ping"])
    def test_row_59_without_a_route(self, kind: str) -> None:
        # Addresses for documentation of a zone of links that does not exist have no route on any machine.
        target = replace(target_of(1, kind, request="a", response="b"), address="fe80::1")
        result = asyncio.run(probe(target))
        assert result.success is None and result.message.startswith("not checked: ")

    def test_row_59_while_the_conntrack_table_is_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A packet that conntrack drops looks like one that the server does not answer."""
        statistics = tmp_path / "nf_conntrack"
        counters = "entries drop early_drop\n0000000a 0000000f 00000000\n0000000a 00000001 00000000\n"
        statistics.write_text(counters)
        monkeypatch.setattr(conntrack_drops, "STATISTICS", str(statistics))
        monkeypatch.setattr(conntrack_drops, "_samples", [])

        def answer(_request: bytes) -> None:
            if is_full:
                statistics.write_text(
                    "entries drop early_drop\n0000000a 00000010 00000000\n0000000a 00000001 00000000\n"
                )

        is_full = False
        options = {"request": "a", "response": "b", "timeout_sec": 0.05}
        assert run_datagram_check(answer, "udp", **options) == CheckResult(False, "timed out after 0.05 s")
        is_full = True
        assert run_datagram_check(answer, "udp", **options) == CheckResult(
            None, "not checked: the conntrack table of the node is full"
        )


class TestPing:
    def test_an_echo(self) -> None:
        result = asyncio.run(probe(target_of(0, "ping")))
        # The test user may lack the permission to ping, and the message must say so then.
        assert result.message == "echo reply" or "ping_group_range" in result.message


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., CheckResult]]:
    """Return a function that runs a script check with a script runner in this process."""
    path = str(tmp_path / "socket")
    monkeypatch.setattr(check_script, "SOCKET", path)

    def run(*command: str, **options: Any) -> CheckResult:
        async def work() -> CheckResult:
            serve = script_runner.ScriptRunner(Slots()).serve
            server = await asyncio.start_unix_server(serve, path)
            try:
                return await probe(target_of(80, "script", command=list(command), **options))
            finally:
                server.close()

        return asyncio.run(work())

    yield run


class TestScript:
    @pytest.mark.parametrize(
        ("script", "options", "expected"),
        [
            ("exit 0", {}, CheckResult(True, "exit code 0")),
            ("exit 1", {}, CheckResult(False, "exit code 1")),
            ("echo out of   space; exit 3", {}, CheckResult(False, "exit code 3: out of space")),
            ("exit 9", {"dynamic_weight": True}, CheckResult(True, "exit code 9, weight 7", 7)),
            ("exit 255", {"dynamic_weight": True}, CheckResult(True, "exit code 255, weight 253", 253)),
            ("exit 1", {"dynamic_weight": True}, CheckResult(False, "exit code 1")),
            ("exit 0", {"dynamic_weight": True}, CheckResult(True, "exit code 0")),
            ("kill -9 $$", {}, CheckResult(False, "killed by signal 9")),
        ],
    )
    def test_exit_codes(
        self, runner: Callable[..., CheckResult], script: str, options: dict[str, Any], expected: CheckResult
    ) -> None:
        assert runner("/bin/sh", "-c", script, **options) == expected

    def test_the_environment_is_clean_and_names_the_target(self, runner: Callable[..., CheckResult]) -> None:
        message = runner("/bin/sh", "-c", "env | sort | tr '\\n' ' '; exit 1").message
        assert (
            "EVENFLOW_ADDRESS=127.0.0.1 EVENFLOW_BACKEND=198.19.0.1 EVENFLOW_LISTENER=web EVENFLOW_PORT=80" in message
        )
        assert "PYTEST" not in message

    def test_a_timeout_kills_the_whole_process_group(self, runner: Callable[..., CheckResult], tmp_path: Path) -> None:
        pids = tmp_path / "pids"
        script = f"sleep 60 & echo $! $$ > {pids}; wait"
        assert runner("/bin/sh", "-c", script, timeout_sec=1).message == "timed out after 1 s"
        deadline = time.monotonic() + 5
        for pid in pids.read_text().split():
            while _is_alive(pid):
                assert time.monotonic() < deadline, f"{pid} lives"
                time.sleep(0.05)

    def test_too_much_output_stops_the_script(self, runner: Callable[..., CheckResult]) -> None:
        assert runner("/bin/sh", "-c", "yes").message == "wrote more than 1048576 bytes"

    def test_a_child_that_holds_the_output_open(self, runner: Callable[..., CheckResult]) -> None:
        assert runner("/bin/sh", "-c", "sleep 60 & exit 0").success

    def test_no_shell_is_involved(self, runner: Callable[..., CheckResult]) -> None:
        assert runner("/bin/echo", "$HOME; exit 1").success

    def test_a_script_that_waited_too_long_for_others_was_not_checked(
        self, runner: Callable[..., CheckResult], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def no_slot(_self: Slots, _seconds: float) -> None:
            return None

        monkeypatch.setattr(Slots, "take", no_slot)
        assert runner("/bin/true") == CheckResult(None, "not checked: waited 2.5 s for other scripts to end")

    def test_a_missing_script_runner(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(check_script, "SOCKET", "/nowhere/socket")
        result = asyncio.run(probe(target_of(80, "script", command=["/bin/true"])))
        message = "not checked: evenflow-scripts.socket: No such file or directory; does the service run?"
        assert result == CheckResult(None, message)


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
