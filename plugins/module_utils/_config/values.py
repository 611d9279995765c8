# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of single values. A check returns the value in its canonical form or raises :class:`InvalidValue`."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Iterable

from .option import InvalidValue, shown, text_of
from .ports import format_ports, parse_ports
from .source_ranges import MAX_RANGES, parse_range, sort_key


def listener_name(value: str) -> str:
    """Check the name of a listener, an RFC 1035 label."""
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", value):
        raise InvalidValue(
            f"{shown(value)} is not a name: 1 to 63 of a-z, 0-9 and -, a letter first, no hyphen last (RFC 1035)"
        )
    if value == "all":
        raise InvalidValue("'all' is not a name: it stands for every listener")
    return value


def backend_name(value: str) -> str:
    """Check the name of a machine: a name that a host can have in an inventory, or an address."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,252}", value):
        raise InvalidValue(
            f"{shown(value)} is not a name: 1 to 253 of letters, digits, '.', ':', '_' and '-', "
            "a letter, digit or '_' first"
        )
    return value


def description(value: str) -> str:
    """Check a description: one line of printable characters."""
    if len(value) > 1024 or not value.isprintable():
        raise InvalidValue(f"{shown(value)} is not one line of at most 1024 printable characters")
    return value


def unicast_address(value: str) -> str:
    """Return an IPv4 or IPv6 unicast address in its canonical form (RFC 5952)."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        address = None
    if (
        address is None
        or getattr(address, "scope_id", None)
        or address.is_unspecified
        or address.is_multicast
        or address.is_loopback
        or (address.version == 6 and (address.is_link_local or int(address) >> 32 in (0, 0xFFFF)))
        or (address.version == 4 and (int(address) >> 24 == 0 or int(address) == 0xFFFFFFFF))
    ):
        raise InvalidValue(f"{shown(value)} is not a unicast IPv4 or IPv6 address without prefix or zone")
    return str(address)


def machines(value: list[Any]) -> list[str]:
    """Return names and addresses of machines without duplicates, addresses in their canonical form."""
    names = []
    for item in value:
        text = text_of(item)
        try:
            names.append(unicast_address(text))
        except InvalidValue:
            names.append(text)
    return list(dict.fromkeys(names))


def capacity_scaler(value: float) -> float:
    """Check a factor of a weight, and round it to thousandths."""
    if value != 0 and not 0.1 <= value <= 1:
        raise InvalidValue(f"{value:g} is not 0 or in 0.1–1.0")
    return round(value, 3)


def ratio(value: float) -> float:
    """Check a proportion, and round it to millionths."""
    if not 0 <= value <= 1:
        raise InvalidValue(f"{value:g} is not in 0–1")
    return round(value, 6)


def absolute_path(value: str) -> str:
    """Check the path of a file on the node."""
    if not re.fullmatch(r"/[^\x00-\x1f\ud800-\udfff]{1,1023}", value):
        raise InvalidValue(f"{shown(value)} is not an absolute path")
    return value


def request_path(value: str) -> str:
    """Check the path of a URL, with its query."""
    if not re.fullmatch(r"/[!-~]{0,2047}", value):
        raise InvalidValue(
            f"{shown(value)} is not a path: /, then at most 2047 printable ASCII characters without space"
        )
    return value


def host_name(value: str) -> str:
    """Check the name or address of a host for a Host header and SNI; an empty name means the address."""
    label = "[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?"
    match = re.fullmatch(rf"({label}(\.{label})*\.?|\[([0-9A-Fa-f:.]{{2,45}})\])(:[0-9]{{1,5}})?", value)
    if value and not _is_address(value, 6) and (not match or len(match[1]) > 253 or not _is_address(match[5], 6)):
        raise InvalidValue(
            f"{shown(value)} is not a host name of at most 253 characters, in labels of 1 to 63 letters, digits, '-' "
            "and '_', or an address"
        )
    return value


def _is_address(text: str | None, version: int) -> bool:
    """Return whether there is no text, or it is an address of this version."""
    try:
        return text is None or ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def interface_name(value: str) -> str:
    """Check the name of a network interface; an empty name means no interface."""
    if not re.fullmatch(r"[^/\s]{0,15}", value) or not value.isprintable() or value in (".", ".."):
        raise InvalidValue(f"{shown(value)} is not the name of an interface")
    return value


def payload(value: str) -> str:
    """Check a text that is sent to a server or expected from it."""
    try:
        length = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidValue(f"{shown(value)} has a character that UTF-8 cannot encode") from error
    if length > 1024:
        raise InvalidValue(f"{shown(value)} is longer than 1024 bytes")
    return value


def domain_name(value: str) -> str:
    """Check a name for a DNS query."""
    pattern = r"\.?|([A-Za-z0-9_-]{1,63}\.){0,126}[A-Za-z0-9_-]{1,63}\.?"
    if not re.fullmatch(pattern, value) or len(value.rstrip(".")) > 253:
        raise InvalidValue(f"{shown(value)} is not a domain name of at most 253 characters")
    return value


def service_name(value: str) -> str:
    """Check the name of a gRPC service."""
    if not re.fullmatch(r"[!-~]{0,255}", value):
        raise InvalidValue(f"{shown(value)} is not the name of a gRPC service: at most 255 printable ASCII characters")
    return value


def status_list(value: list[Any]) -> list[str]:
    """Return HTTP status codes and ranges of them as text, in ascending order."""
    ranges = []
    for item in value:
        match = re.fullmatch(r"([0-9]{3})(?:-([0-9]{3}))?", str(item))
        if isinstance(item, bool) or not match:
            raise InvalidValue(f"{item!r} is not a status code or a range a-b of them")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 100 <= first <= last <= 599:
            raise InvalidValue(f"{item!r} is not in 100–599")
        ranges.append((first, last))
    if not ranges:
        raise InvalidValue("[] is empty: give at least one status code or range")
    return [str(first) if first == last else f"{first}-{last}" for first, last in sorted(set(ranges))]


def json_query(value: str) -> str:
    """Check a JMESPath expression; without the library only its characters."""
    if len(value) > 1024 or not value.isprintable():
        raise InvalidValue(f"{shown(value)} is not one line of at most 1024 printable characters")
    try:
        import jmespath
    except ImportError:
        return value
    try:
        if value:
            functions = jmespath.functions.Functions().FUNCTION_TABLE
            _check_query_tree(jmespath.compile(value).parsed, functions)
    except (jmespath.exceptions.JMESPathError, InvalidValue, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise InvalidValue(f"{shown(value)} is not a JMESPath expression: {reason}") from error
    return value


def _check_query_tree(node: dict[str, Any], functions: Iterable[str], is_argument: bool = False) -> None:
    """Refuse what the library accepts in an expression and cannot apply to any document."""
    kind = node["type"]
    if kind == "expref" and not is_argument:
        raise InvalidValue("'&' is allowed in the arguments of functions only")
    if kind == "function_expression" and node["value"] not in functions:
        raise InvalidValue(f"there is no function {node['value']}")
    if kind == "slice":
        if node["children"][2] == 0:
            raise InvalidValue("the step of a slice cannot be 0")
        return
    for child in node["children"]:
        _check_query_tree(child, functions, kind == "function_expression")


def command(value: list[Any]) -> list[str]:
    """Check an argument list: the absolute path of a program, and its arguments."""
    arguments = [str(item) for item in value]
    if len(arguments) > 64 or any(re.search(r"[\0\ud800-\udfff]", item) or len(item) > 4096 for item in arguments):
        raise InvalidValue(f"{shown(value)} is not a list of at most 64 arguments of at most 4096 characters of UTF-8")
    return [absolute_path(item) for item in arguments[:1]] + arguments[1:]


def port_list(value: list[Any]) -> list[str]:
    """Return ports and ranges of them as text, in ascending order."""
    try:
        return format_ports(parse_ports(value))
    except ValueError as error:
        raise InvalidValue(str(error)) from error


def source_ranges(value: list[Any]) -> list[str]:
    """Return networks in CIDR notation in ascending order, without duplicates."""
    try:
        networks = {parse_range(text_of(item)) for item in value}
    except ValueError as error:
        raise InvalidValue(str(error)) from error
    if len(networks) > MAX_RANGES:
        raise InvalidValue(f"{len(networks)} networks are more than {MAX_RANGES}")
    return sorted(networks, key=sort_key)
