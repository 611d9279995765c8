# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses: their families, addresses on interfaces, and destinations of flows."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import lru_cache

from .ports import PortRange


def family(address: str) -> str:
    """Return ``6`` for the text of an IPv6 address, else ``4``."""
    return "6" if ":" in address else "4"


@lru_cache(maxsize=65536)
def address_bytes(address: str) -> bytes:
    """Return an address in network byte order. Addresses are sorted by these bytes."""
    return socket.inet_pton(socket.AF_INET6 if family(address) == "6" else socket.AF_INET, address)


@dataclass(frozen=True)
class Address:
    """An address on an interface."""

    interface: str
    address: str

    @property
    def prefix(self) -> str:
        """The address with the prefix length of a single host."""
        return f"{self.address}/{'128' if family(self.address) == '6' else '32'}"


@dataclass(frozen=True)
class Destination:
    """The address, protocol and ports to which clients send their flows.

    :ivar protocol: ``any`` means every protocol.
    """

    address: str
    protocol: str
    ports: PortRange
