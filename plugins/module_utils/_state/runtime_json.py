# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runtime state as JSON: what is written, and how every record is checked when it is read.

A section of the JSON is a field of :class:`~.runtime.Runtime`, a record has the fields of its class. What is damaged is
rejected record by record, with its reason, so that a damaged health record never costs a drain.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Tuple

from .._config.address import address_bytes
from .._config.model import backend_key_of
from .._config.option import shown
from .._config.stored import parse_stored_listener
from .._config.values import listener_name, unicast_address
from .fate import BackendFate, Fate
from .health import Health, HealthState
from .runtime import RAMP_STEPS, Drain, DrainCause, Runtime, Shares

FORMAT = 3
"""Version of the format. Format 2 had the health among the lasting sections; format 1 had no number, other names of
sections, and lists for records."""

LASTING = ("drains", "expired", "failed_over", "joined", "ramps", "completed_fates")
"""The sections that hold across a reboot."""

HEALTH = ("health",)
"""The section that checks write, which may have thousands of records. It holds across a reboot."""

SINCE_BOOT = ("shares", "uncounted", "dealt", "ending")
"""The sections that hold until the next boot."""

DEALINGS = ("first", "some", "one", "none")
"""How places of a limit can be dealt."""

_MAX_MESSAGE = 4096
_OLD_SECTIONS = {"past": "expired", "standby": "failed_over", "settled": "completed_fates"}
_RECORD_FIELDS = {
    "health": ("state", "since", "streak", "message", "weight"),
    "drains": ("since", "deadline", "cause", "removed"),
    "completed_fates": ("stream", "datagram"),
}


class NewerFormat(ValueError):
    """The format number is not one that this version reads."""


def sections_as_json(runtime: Runtime, sections: Tuple[str, ...]) -> Dict[str, Any]:
    """Return sections of a runtime state as JSON can hold them."""
    return {name: _WRITERS.get(name, dict)(getattr(runtime, name)) for name in sections}


def sections_as_written(content: Dict[str, Any], sections: Tuple[str, ...]) -> Tuple[Dict[str, Any], List[str]]:
    """Return the same as :func:`checked_sections`, from JSON that no other program has changed."""
    if content["format"] == FORMAT:
        try:
            return {name: _BUILDERS.get(name, dict)(content[name]) for name in sections}, []
        except (KeyError, TypeError, ValueError):
            # Another version with the same format has written other fields.
            pass
    return checked_sections(content, sections)


def checked_sections(content: Any, sections: Tuple[str, ...]) -> Tuple[Dict[str, Any], List[str]]:
    """Return the fields of a runtime state from any JSON, and a text for each record that is rejected.

    :raises NewerFormat: the JSON has another format than this or an older version's.
    """
    rejected: List[str] = []
    if not isinstance(content, dict):
        return {}, [f"{shown(content)} is not a runtime state"]
    is_older = content.get("format") != FORMAT
    content = _migrated(content)
    if is_older and sections == LASTING:
        # Older formats have the health beside the lasting sections.
        sections += HEALTH
    rejected += [f"{name}: not a section" for name in sorted(content.keys() - set(sections))]
    fields: Dict[str, Any] = {}
    for name in sections:
        if name not in content:
            rejected.append(f"{name}: missing")
        elif name in _NAMES:
            fields[name] = _checked_names(name, content[name], rejected)
        else:
            fields[name] = _checked_records(name, content[name], rejected)
    _check_ramps(fields, rejected)
    return fields, rejected


def _migrated(content: Dict[str, Any]) -> Dict[str, Any]:
    """Return JSON of an older format in the present one, without the keys that are not sections."""
    format_ = content.get("format", 1)
    if isinstance(format_, bool) or format_ not in (1, 2, FORMAT):
        raise NewerFormat(f"format {shown(format_)} is not {FORMAT}, the one this version reads")
    content = {name: section for name, section in content.items() if name not in ("format", "digest")}
    if "uncounted" in content:
        # Earlier versions dealt no places.
        content.setdefault("dealt", {})
    if format_ != 1:
        return content
    content = {_OLD_SECTIONS.get(name, name): section for name, section in content.items()}
    for name, fields in _RECORD_FIELDS.items():
        if isinstance(content.get(name), dict):
            content[name] = {
                key: dict(zip(fields, record)) if isinstance(record, list) and len(record) == len(fields) else record
                for key, record in content[name].items()
            }
    return content


def _checked_names(section: str, content: Any, rejected: List[str]) -> frozenset[str]:
    if not isinstance(content, list):
        rejected.append(f"{section}: {shown(content)} is not a list")
        return frozenset()
    names = set()
    for name in content:
        try:
            names.add(_NAMES[section](name))
        except ValueError as error:
            rejected.append(f"{section}: {error}")
    return frozenset(names)


def _checked_records(section: str, content: Any, rejected: List[str]) -> Dict[Any, Any]:
    if not isinstance(content, dict):
        rejected.append(f"{section}: {shown(content)} is not a dictionary")
        return {}
    read_key, read_record = _RECORDS[section]
    records = {}
    for key, record in content.items():
        try:
            records[read_key(key)] = read_record(key, record)
        except ValueError as error:
            rejected.append(f"{section}: {shown(key)}: {error}")
    return records


def _check_ramps(fields: Dict[str, Any], rejected: List[str]) -> None:
    """Reject what has only one of the two records that belong together."""
    for name, other in (("joined", "ramps"), ("ramps", "joined")):
        for key in sorted(fields.get(name, {}).keys() - fields.get(other, {}).keys()):
            del fields[name][key]
            rejected.append(f"{name}: {key!r}: not in {other}")


def _backend_key(value: Any) -> str:
    """Check the key of a backend as :func:`~.._config.model.backend_key_of` writes it."""
    name, _slash, endpoint = value.partition("/") if isinstance(value, str) else ("", "", "")
    address, _slash, port = endpoint.partition("/")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"{shown(value)} is not the key of a backend")
    if backend_key_of(listener_name(name), unicast_address(address), int(port)) != value:
        raise ValueError(f"{shown(value)} is not the key of a backend in the form in which it is written")
    return str(value)


def _listener(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not the name of a listener")
    return listener_name(value)


def _limit(value: Any) -> str:
    """Check the name of a limit: a listener's, or a backend's id."""
    if isinstance(value, str) and value.startswith("0x"):
        mark = int(value, 16) if len(value) == 10 else 0
        if f"{mark:#010x}" != value:
            raise ValueError(f"{shown(value)} is not the id of a backend")
        return value
    return _listener(value)


def _dealing(value: Any) -> str:
    """Check how the places of a limit are dealt."""
    if value not in DEALINGS:
        raise ValueError(f"{shown(value)} is not one of {', '.join(DEALINGS)}")
    return str(value)


def _mark(value: Any) -> int:
    if not (isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) == 10):
        raise ValueError(f"{shown(value)} is not the id of a backend")
    mark = int(value)
    if not 0x80000000 <= mark < 0xFFFFFFFF or str(mark) != value:
        raise ValueError(f"{shown(value)} is not the id of a backend")
    return mark


def _whole(value: Any, least: int, most: int = 2**63) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{shown(value)} is not a whole number of {least}–{most}")
    return value


def _time(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 2**53:
        raise ValueError(f"{shown(value)} is not a time")
    return float(value)


def _word(value: Any, *words: str) -> str:
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{shown(value)} is not one of {', '.join(words)}")
    return value


def _fields(record: Any, *names: str) -> List[Any]:
    if not isinstance(record, dict) or record.keys() != set(names):
        raise ValueError(f"{shown(record)} does not have the fields {', '.join(names)}")
    return [record[name] for name in names]


def _health(_key: str, record: Any) -> Health:
    state, since, streak, message, weight = _fields(record, *_RECORD_FIELDS["health"])
    if not isinstance(message, str) or len(message) > _MAX_MESSAGE:
        raise ValueError(f"message: {shown(message)} is not text of at most {_MAX_MESSAGE} characters")
    return Health(
        HealthState(_word(state, *HealthState)),
        _time(since),
        _whole(streak, 0, 1000),
        message,
        None if weight is None else _whole(weight, 0, 65535),
    )


def _drain(key: str, record: Any) -> Drain:
    since, deadline, cause, removed = _fields(record, *_RECORD_FIELDS["drains"])
    cause = DrainCause(_word(cause, *DrainCause))
    if (removed is not None) != (cause in (DrainCause.REMOVED, DrainCause.GONE)):
        raise ValueError(f"cause {str(cause)!r} does not go with removed {shown(removed)}")
    if removed is not None:
        removed = _removed(key, removed)
    return Drain(_time(since), None if deadline is None else _time(deadline), cause, removed)


def _removed(key: str, record: Any) -> Dict[str, Any]:
    listener = parse_stored_listener(key.split("/")[0], record)
    names = [backend_key_of(listener["name"], item["address"], item["port"]) for item in listener["backends"]]
    if names != [key] or len(address_bytes(listener["address"])) != len(address_bytes(key.split("/")[1])):
        raise ValueError(f"removed: {shown(names)} is not this backend alone")
    return listener


def _fate(_key: str, record: Any) -> BackendFate:
    return BackendFate(*(Fate(_word(value, *Fate)) for value in _fields(record, *_RECORD_FIELDS["completed_fates"])))


def _slots(_key: str, record: Any) -> Dict[int, int]:
    if not isinstance(record, dict):
        raise ValueError(f"{shown(record)} is not a dictionary")
    return {_mark(mark): _whole(slots, 0) for mark, slots in record.items()}


def _built_health(records: Dict[str, Any]) -> Dict[str, Health]:
    return {
        key: Health(_STATES[each["state"]], each["since"], each["streak"], each["message"], each["weight"])
        for key, each in records.items()
    }


def _built_drains(records: Dict[str, Any]) -> Dict[str, Drain]:
    return {
        key: Drain(each["since"], each["deadline"], DrainCause(each["cause"]), each["removed"])
        for key, each in records.items()
    }


def _built_fates(records: Dict[str, Any]) -> Dict[int, BackendFate]:
    return {int(mark): BackendFate(Fate(each["stream"]), Fate(each["datagram"])) for mark, each in records.items()}


def _marked(records: Any) -> Dict[str, Any]:
    return {str(mark): record for mark, record in records.items()}


def _by_mark(records: Dict[str, Any]) -> Dict[int, Any]:
    return {int(mark): record for mark, record in records.items()}


def _shares_as_json(shares: Shares) -> Dict[str, Any]:
    return {name: _marked(slots) for name, slots in shares.items()}


# There are thousands of records, and a look-up is faster than a call of the enumeration.
_STATES = {str(state): state for state in HealthState}

_NAMES: Dict[str, Callable[[Any], str]] = {"expired": _backend_key, "failed_over": _listener}
_RECORDS: Dict[str, Tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "health": (_backend_key, _health),
    "drains": (_backend_key, _drain),
    "joined": (_backend_key, lambda _key, value: _time(value)),
    "ramps": (_backend_key, lambda _key, value: _whole(value, 1, RAMP_STEPS)),
    "completed_fates": (_mark, _fate),
    "shares": (_listener, _slots),
    "uncounted": (_limit, lambda _key, value: _whole(value, 1)),
    "dealt": (_limit, lambda _key, value: _dealing(value)),
    "ending": (_mark, lambda _key, value: _time(value)),
}
_WRITERS: Dict[str, Callable[[Any], Any]] = {
    # The fields of a dataclass are its __dict__, which json only reads.
    "health": lambda records: {key: vars(record) for key, record in records.items()},
    "drains": lambda records: {key: vars(record) for key, record in records.items()},
    "completed_fates": lambda records: {str(mark): vars(fate) for mark, fate in records.items()},
    "expired": sorted,
    "failed_over": sorted,
    "shares": _shares_as_json,
    "ending": _marked,
}
_BUILDERS: Dict[str, Callable[[Any], Any]] = {
    "health": _built_health,
    "drains": _built_drains,
    "completed_fates": _built_fates,
    "expired": frozenset,
    "failed_over": frozenset,
    "shares": lambda records: {name: _by_mark(slots) for name, slots in records.items()},
    "ending": _by_mark,
}
