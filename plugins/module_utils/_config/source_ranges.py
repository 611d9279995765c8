# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source ranges of a listener: the networks whose clients may use it."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Iterable, List, Tuple, Union

MAX_RANGES = 65536
"""Maximum number of source ranges of a listener."""

_Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


def parse_range(text: str) -> str:
    """Return a network in its canonical form; an address without a prefix length is a network of one address.

    :raises ValueError: the text is not a network. Its text names the value and what is allowed.
    """
    shown = text if len(text) <= 60 else text[:57] + "..."
    # Python also accepts zones and netmasks.
    if not re.fullmatch(r"[0-9A-Fa-f.:]+(/[0-9]{1,3})?", text, re.ASCII):
        raise ValueError(_wrong(shown))
    try:
        network: _Network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(_wrong(shown)) from error
    canonical = f"{_text(network, int(network.network_address))}/{network.prefixlen}"
    if ipaddress.ip_address(text.partition("/")[0]) != network.network_address:
        raise ValueError(f"{shown!r} has bits set after its prefix; the network is {canonical}")
    return canonical


def sort_key(text: str) -> tuple[int, int, int]:
    """Return the key by which networks in canonical form are sorted: family, address, prefix length."""
    network = ipaddress.ip_network(text)
    return network.version, int(network.network_address), network.prefixlen


def merged(ranges: Iterable[str]) -> list[str]:
    """Return networks of one family as intervals that neither overlap nor adjoin, as nft lists them.

    An interval is a network with its prefix length, an address, or two addresses with a hyphen.

    :param ranges: networks in canonical form, sorted by :func:`sort_key`.
    :returns: nothing if the networks have every address.
    """
    networks = [ipaddress.ip_network(text) for text in ranges]
    intervals: List[Tuple[int, int]] = []
    for network in networks:
        first, last = int(network.network_address), int(network.broadcast_address)
        if intervals and first <= intervals[-1][1] + 1:
            intervals[-1] = intervals[-1][0], max(last, intervals[-1][1])
        else:
            intervals.append((first, last))
    return [
        _interval(networks[0], first, last)
        for first, last in intervals
        if last - first + 1 < 1 << networks[0].max_prefixlen
    ]


def _interval(network: _Network, first: int, last: int) -> str:
    size = last - first + 1
    if size == 1:
        return _text(network, first)
    if size & (size - 1) == 0 and first % size == 0:
        return f"{_text(network, first)}/{network.max_prefixlen - size.bit_length() + 1}"
    return f"{_text(network, first)}-{_text(network, last)}"


def _text(network: _Network, address: int) -> str:
    # The text of the C library, as nft writes it; the text of ipaddress differs between versions of Python.
    family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
    return socket.inet_ntop(family, address.to_bytes(network.max_prefixlen // 8, "big"))


def _wrong(shown: str) -> str:
    return f"{shown!r} is not a network in CIDR notation, such as 198.18.0.0/24 or 2001:db8::/64"
