# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A configuration as plain data: what is stored, compared and named by a fingerprint."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict

from .option import Option, defaults
from .options import BACKEND, LISTENER

Document = Dict[str, Dict[str, Any]]
"""A configuration as plain data: ``{name: listener options}``, each with all its options, backends sorted."""


def complete(name: str, found: Any) -> dict[str, Any]:
    """Give a stored listener the defaults of options that its file does not know yet.

    :param name: what it is stored under.
    :raises ValueError: it is not a listener that this version can have written.
    """
    listener = _completed(f"listener {name}", found, LISTENER, {"backends": []})
    if listener["name"] != name or not isinstance(listener["backends"], list):
        raise ValueError(f"listener {name}: not a listener")
    listener["backends"] = [_completed(f"listener {name}: backend", item, BACKEND, {}) for item in listener["backends"]]
    return listener


def _completed(place: str, found: Any, options: dict[str, Option], more: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{place}: {found!r} is not a dictionary")
    if options is BACKEND and found.keys() == BACKEND.keys() and None not in found.values():
        # As this version writes it, so nearly always, and there are thousands.
        return found
    unknown = found.keys() - options.keys() - more.keys()
    missing = [name for name, option in options.items() if option.required and found.get(name) is None]
    if unknown or missing:
        raise ValueError(f"{place}: unknown options {sorted(unknown)}, missing options {missing}")
    nested = {
        name: {**defaults(options[name].options), **value}
        for name, value in found.items()
        if name in options and options[name].options and isinstance(value, dict)
    }
    return {**defaults(options), **more, **found, **nested}


def fingerprint(document: Document) -> str:
    """Name a configuration by its content: equal text, equal configuration."""
    return fingerprint_of_texts({name: listener_text(document[name]) for name in sorted(document)})


def listener_text(listener: dict[str, Any]) -> str:
    return json.dumps(listener, sort_keys=True, separators=(",", ":"))


def fingerprint_of_texts(texts: dict[str, str]) -> str:
    content = ",".join(f"{json.dumps(name)}:{text}" for name, text in texts.items())
    return hashlib.sha256(f"{{{content}}}".encode("ascii")).hexdigest()
