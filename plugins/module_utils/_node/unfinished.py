# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The note that a change leaves while it changes the kernel: what the next one has to finish if this one dies.

Only what cannot be seen from the files and the kernel is in it. It lasts until the next boot, as does what it is about.
"""

from __future__ import annotations

from typing import Any, Tuple

from .._config.address import Address, Destination
from .._config.model import Configuration
from .._nft.plan import Plan
from .._system.store import Store

_NAME = "unfinished.json"


class Unfinished:
    """The note of one node. The caller of its methods holds the lock."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._content: Any = None

    @property
    def exists(self) -> bool:
        """Whether there was a note when it was read: then the last change was interrupted."""
        return self._content is not None

    def read(self) -> None:
        """Read the note."""
        self._content = self._store.read_run(_NAME)

    def write(self, plan: Plan) -> None:
        """Write a note of what is still to be done once the kernel has been changed, the last note's included."""
        self._store.write_run(
            _NAME,
            {
                "destinations": [_as_list(destination) for destination in plan.new_destinations]
                + self._section("destinations"),
                "addresses": [[vip.interface, vip.address] for vip in plan.add] + self._section("addresses"),
            },
        )

    def withdraw(self) -> None:
        """Bring back the note that was there before :meth:`write`, or none."""
        if self._content is None:
            self.remove()
        else:
            self._store.write_run(_NAME, self._content)

    def remove(self) -> None:
        """Remove the note: everything has been done."""
        self._store.remove_run(_NAME)

    def destinations(self, configuration: Configuration) -> Tuple[Destination, ...]:
        """Return the new destinations of the interrupted change, as far as a configuration has them."""
        noted = [entry for entry in self._section("destinations") if isinstance(entry, list)]
        served = (
            Destination(listener.address, listener.protocol, ports)
            for listener in configuration.listeners
            for ports in listener.ports
        )
        return tuple(destination for destination in served if _as_list(destination) in noted)

    def addresses(self, owned: frozenset[Address]) -> Tuple[Address, ...]:
        """Return the addresses that the interrupted change was to announce, as far as they are ours."""
        noted = self._section("addresses")
        return tuple(vip for vip in sorted(owned, key=lambda vip: vip.address) if [vip.interface, vip.address] in noted)

    def _section(self, name: str) -> list[Any]:
        section = self._content.get(name) if isinstance(self._content, dict) else None
        return section if isinstance(section, list) else []


def _as_list(destination: Destination) -> list[Any]:
    return [destination.address, destination.protocol, destination.ports.first, destination.ports.last]
