# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of stored configurations: what is read from a file obeys the same rules as what a user writes."""

from __future__ import annotations

from typing import Any

from .document import Document, complete
from .edit import with_listeners
from .option import Option
from .options import BACKEND, LISTENER
from .rules import check_document
from .validation import Faults, parse_listener


def parse_stored(listeners: dict[str, Any]) -> Document:
    """Return a stored configuration in canonical form.

    :param listeners: by name, as the file has them.
    :raises ValueError: the configuration breaks a rule.
    """
    document = {name: parse_stored_listener(name, listener) for name, listener in listeners.items()}
    faults = Faults()
    check_document(document, document, faults)
    _raise(faults)
    return document


def parse_stored_listener(name: str, listener: Any) -> dict[str, Any]:
    """Return a stored listener in canonical form. Rules between its options and backends are not checked.

    :raises ValueError: an option breaks its rule.
    """
    if isinstance(listener, dict) and not isinstance(listener.get("backends"), list):
        raise ValueError(f"listener {name}: no list of backends")
    completed = complete(name, listener)
    _check_nulls(f"listener {name}", completed, LISTENER)
    for backend in completed["backends"]:
        _check_nulls(f"listener {name}: backend {backend['address']}", backend, BACKEND)
    faults = Faults()
    item = parse_listener(completed, faults, f"listener {name}.")
    _raise(faults)
    return with_listeners({}, [item], replaced=True)[name]


def _check_nulls(place: str, stored: dict[str, Any], options: dict[str, Option]) -> None:
    """Refuse null for options that always have a stored value. In the input of a user null means "not given"."""
    for name, option in options.items():
        value = stored[name]
        if value is None and (option.default is not None or option.required or options is BACKEND):
            raise ValueError(f"{place}: {name} is null")
        if option.options and isinstance(value, dict):
            _check_nulls(f"{place}: {name}", value, option.options)


def _raise(faults: Faults) -> None:
    if faults.errors:
        raise ValueError("; ".join(faults.errors))
