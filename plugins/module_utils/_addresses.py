# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""VIPs on an interface: read, put there and announced, taken off."""

from __future__ import annotations

import socket
import struct
from typing import Any, Iterable

from ._errors import NodeError
from ._model import address_bytes, family
from ._plan import Address

_ETH_P_ARP = 0x0806
_IFA_F_NODAD = 0x02
_FAMILIES = {"4": socket.AF_INET, "6": socket.AF_INET6}


def read(interfaces: Iterable[str]) -> frozenset[Address]:
    """Return the addresses on interfaces; those that do not exist have none."""
    names = sorted(set(interfaces))
    if not names:
        return frozenset()
    with _library().IPRoute() as route:
        return frozenset(
            Address(name, message.get_attr("IFA_ADDRESS"))
            for name in names
            for index in route.link_lookup(ifname=name)
            for message in route.get_addr(index=index)
        )


def change(add: Iterable[Address], remove: Iterable[Address]) -> None:
    """Put addresses on their interfaces and announce them, take others off.

    :raises NodeError: an interface does not exist, or the kernel refuses.
    """
    add, remove = list(add), list(remove)
    if not add and not remove:
        return
    library = _library()
    with library.IPRoute() as route:
        for address in add:
            index = _index(route, address.interface)
            _request(library, route, "replace", index, address)
            _announce(address, route.get_links(index)[0].get_attr("IFLA_ADDRESS"), index)
        for address in remove:
            _request(library, route, "del", _index(route, address.interface), address)


def check_interface(name: str) -> None:
    """Refuse an interface that the node does not have.

    :raises NodeError: there is none of this name.
    """
    with _library().IPRoute() as route:
        _index(route, name)


def _library() -> Any:
    try:
        import pyroute2
    except ImportError as error:
        raise NodeError(f"vip_mode address needs the Python library pyroute2 on the node: {error}") from error
    return pyroute2


def _index(route: Any, interface: str) -> int:
    found = route.link_lookup(ifname=interface)
    if not found:
        raise NodeError(f"vip_interface: {interface!r} is not an interface of this node")
    return int(found[0])


def _request(library: Any, route: Any, command: str, index: int, address: Address) -> None:
    is_v6 = family(address.address) == "6"
    options = {"flags": _IFA_F_NODAD} if is_v6 and command == "replace" else {}
    try:
        route.addr(
            command,
            index=index,
            address=address.address,
            prefixlen=128 if is_v6 else 32,
            family=_FAMILIES[family(address.address)],
            **options,
        )
    except library.NetlinkError as error:
        raise NodeError(f"{address.interface}: cannot {command} {address.prefix}: {error}") from error


def _announce(address: Address, mac: str | None, index: int) -> None:
    """Tell the neighbours where the address is now: gratuitous ARP (RFC 5227) or an unsolicited NA (RFC 4861)."""
    hardware = bytes.fromhex((mac or "").replace(":", ""))
    if len(hardware) != 6 or not any(hardware):
        return
    if family(address.address) == "6":
        _send_advertisement(address.address, hardware, index)
    else:
        _send_arp(address, hardware)


def _send_arp(address: Address, hardware: bytes) -> None:
    protocol = address_bytes(address.address)
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + hardware + protocol + b"\xff" * 6 + protocol
    frame = b"\xff" * 6 + hardware + struct.pack("!H", _ETH_P_ARP) + body
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packet:
        packet.bind((address.interface, _ETH_P_ARP))
        packet.send(frame)


def _send_advertisement(address: str, hardware: bytes, index: int) -> None:
    # Type 136, flag "override"; the option is the target's link-layer address. The kernel fills in the checksum.
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + address_bytes(address) + b"\x02\x01" + hardware
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp:
        icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        icmp.bind((address, 0, 0, index))
        icmp.sendto(body, ("ff02::1", 0, 0, index))
