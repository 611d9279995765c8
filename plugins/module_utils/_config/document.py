# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A configuration as plain data, as it is stored, compared and fingerprinted."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict

from .option import Option, defaults
from .options import BACKEND, LISTENER

Document = Dict[str, Dict[str, Any]]
"""A configuration as plain data: all options of each listener by its name. The backends are sorted."""


def complete(name: str, stored: Any) -> dict[str, Any]:
    """Return a stored listener with defaults for options that are newer than its file.

    :param name: the name under which the listener is stored.
    :raises ValueError: the value is not a listener that this or an earlier version can have stored.
    """
    listener = _completed(f"listener {name}", stored, LISTENER, {"backends": []})
    if listener["name"] != name or not isinstance(listener["backends"], list):
        raise ValueError(f"listener {name}: not a listener")
    listener["backends"] = [_completed(f"listener {name}: backend", item, BACKEND, {}) for item in listener["backends"]]
    return listener


def _completed(place: str, stored: Any, options: dict[str, Option], other_defaults: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(stored, dict):
        raise ValueError(f"{place}: {stored!r} is not a dictionary")
    if options is BACKEND and stored.keys() == BACKEND.keys() and None not in stored.values():
        # Nearly all backends were stored by this version, and there can be thousands.
        return stored
    unknown = stored.keys() - options.keys() - other_defaults.keys()
    missing = [name for name, option in options.items() if option.required and stored.get(name) is None]
    if unknown or missing:
        raise ValueError(f"{place}: unknown options {sorted(unknown)}, missing options {missing}")
    nested = {
        name: {**defaults(options[name].options), **value}
        for name, value in stored.items()
        if name in options and options[name].options and isinstance(value, dict)
    }
    return {**defaults(options), **other_defaults, **stored, **nested}


def fingerprint(document: Document) -> str:
    """Return a hash of a configuration. Equal configurations have equal fingerprints."""
    return fingerprint_of_texts({name: listener_text(document[name]) for name in sorted(document)})


def listener_text(listener: dict[str, Any]) -> str:
    """Return a listener as one line of JSON, which is equal for equal listeners."""
    return json.dumps(listener, sort_keys=True, separators=(",", ":"))


def fingerprint_of_texts(texts: dict[str, str]) -> str:
    """Return the fingerprint of the configuration that has these texts of listeners, sorted by name."""
    content = ",".join(f"{json.dumps(name)}:{text}" for name, text in texts.items())
    return hashlib.sha256(f"{{{content}}}".encode("ascii")).hexdigest()
