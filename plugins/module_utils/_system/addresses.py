# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read, add, announce and remove the addresses of interfaces."""

from __future__ import annotations

import socket
import struct
from contextlib import contextmanager, suppress
from typing import Any, Iterable, Iterator

from .._config.address import Address, address_bytes, family
from .._errors import NodeError

_ETH_P_ARP = 0x0806
_IFA_F_NODAD = 0x02
_FAMILIES = {"4": socket.AF_INET, "6": socket.AF_INET6}


def read(interfaces: Iterable[str]) -> frozenset[Address]:
    """Return the addresses on interfaces; an interface that does not exist has none."""
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


@contextmanager
def added(addresses: Iterable[Address]) -> Iterator[None]:
    """Add addresses to their interfaces, and remove them again if what happens inside fails.

    :raises NodeError: an interface does not exist, or the kernel refuses.
    """
    added_addresses: list[Address] = []
    try:
        for address in addresses:
            _request("replace", address)
            added_addresses.append(address)
        yield
    except BaseException:
        remove(added_addresses)
        raise


def remove(addresses: Iterable[Address]) -> None:
    """Remove addresses from their interfaces.

    :raises NodeError: the kernel refuses.
    """
    for address in addresses:
        _request("del", address)


def announce(addresses: Iterable[Address]) -> None:
    """Announce addresses to the neighbours, by gratuitous ARP (RFC 5227) or an unsolicited NA (RFC 4861)."""
    addresses = list(addresses)
    if not addresses:
        return
    with _library().IPRoute() as route:
        for address in addresses:
            index = _index(route, address.interface)
            mac = route.get_links(index)[0].get_attr("IFLA_ADDRESS") or ""
            hardware = bytes.fromhex(mac.replace(":", ""))
            # An interface that is down, or of another kind than Ethernet, has no neighbours.
            if len(hardware) == 6 and any(hardware):
                with suppress(OSError):
                    _send(address, hardware, index)


def check_interface(name: str) -> None:
    """Check that the node has an interface.

    :raises NodeError: there is no interface of this name.
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
    indices = route.link_lookup(ifname=interface)
    if not indices:
        raise NodeError(f"vip_interface: {interface!r} is not an interface of this node")
    return int(indices[0])


def _request(command: str, address: Address) -> None:
    library = _library()
    is_v6 = family(address.address) == "6"
    options = {"flags": _IFA_F_NODAD} if is_v6 and command == "replace" else {}
    with library.IPRoute() as route:
        try:
            route.addr(
                command,
                index=_index(route, address.interface),
                address=address.address,
                prefixlen=128 if is_v6 else 32,
                family=_FAMILIES[family(address.address)],
                **options,
            )
        except library.NetlinkError as error:
            raise NodeError(f"{address.interface}: cannot {command} {address.prefix}: {error}") from error


def _send(address: Address, hardware: bytes, index: int) -> None:
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
