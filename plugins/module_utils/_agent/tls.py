# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections with TLS as the options of a check describe them: what they trust, and the name that they expect."""

from __future__ import annotations

import ipaddress
import os
import ssl

from .._config.model import HealthCheck
from .stream import TlsStream, open_tls_stream
from .target import CheckFailed, Target, is_exhaustion

_contexts: dict[tuple[bool, str | None, str, tuple[int, ...]], ssl.SSLContext] = {}


HTTP2 = "h2"
"""The name of HTTP/2 by ALPN."""

_PROTOCOLS = {"http2": HTTP2, "grpc": HTTP2}
_TYPES = ("tls", "https")


def prepare(check: HealthCheck) -> None:
    """Load the certificates that a check needs, which takes time that is not the server's fault."""
    if check.type in _TYPES or check.tls:
        try:
            _context(check)
        except (CheckFailed, OSError):
            # The check itself has this error as its result.
            pass


async def open_tls(target: Target, max_bytes: int) -> TlsStream:
    """Connect to the target as :func:`~.stream.open_stream` does and begin TLS, with the options of its check."""
    return await open_tls_stream(target, max_bytes, _context(target.check), _server_name(target))


def _server_name(target: Target) -> str:
    """Return the name to send by SNI, which the certificate must have if it is verified."""
    host = target.host
    if host.startswith("["):
        return host[1:].partition("]")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.partition(":")[0]


def _context(check: HealthCheck) -> ssl.SSLContext:
    """Return the context for a connection with TLS. Files with certificates are read anew when they change."""
    verify, ca_file, protocol = check.tls_verify, check.ca_file, _PROTOCOLS.get(check.type, "")
    try:
        state = _file_state(ca_file or ssl.get_default_verify_paths().cafile)
        key = (verify, ca_file, protocol, state)
        if key not in _contexts:
            for known in [known for known in _contexts if known[:3] == key[:3]]:
                del _contexts[known]
            _contexts[key] = _new_context(verify, ca_file, protocol)
    except OSError as error:
        if is_exhaustion(error):
            raise
        raise CheckFailed(f"ca_file {ca_file}: {error.strerror or error}") from error
    return _contexts[key]


def _new_context(verify: bool, ca_file: str | None, protocol: str) -> ssl.SSLContext:
    if verify:
        context = ssl.create_default_context(cafile=ca_file)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # A server chooses the numbers of a key exchange by DHE, and with large ones it takes the client most of a second.
    context.set_ciphers("DEFAULT:!kDHE")
    if protocol:
        context.set_alpn_protocols([protocol])
    return context


def _file_state(path: str | None) -> tuple[int, ...]:
    if path is None or not os.path.exists(path):
        return ()
    status = os.stat(path)
    return status.st_mtime_ns, status.st_ino, status.st_size
