# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a drain is about: whose registrations, how long their flows have, what it may not take away. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator

from .._config.document import Document
from .._config.model import Backend, Configuration, Listener, backend_key_of
from .._config.validation import Faults
from .._errors import InvalidInput
from .eligibility import is_healthy, select

DRAINED, ACTIVE = "drained", "active"

TERMINATE, FAIL, CONTINUE = "terminate", "fail", "continue"


@dataclass(frozen=True)
class Request:
    """What is asked for.

    :ivar machines: names or addresses of backends.
    :ivar listeners: names; ``all`` alone stands for every listener.
    :ivar state: :data:`DRAINED` or :data:`ACTIVE`.
    :ivar timeout: seconds that flows have; ``None`` for the largest draining time-out of the listeners concerned.
    :ivar on_timeout: :data:`TERMINATE` gives drains a deadline; :data:`FAIL` and :data:`CONTINUE` leave flows alone.
    :ivar min_eligible: healthy backends that a listener must keep.
    :ivar out_elsewhere: machines that do not count for that, because other nodes have them out.
    :ivar is_lenient: whether a machine that is nowhere is passed over.
    """

    machines: frozenset[str]
    listeners: tuple[str, ...]
    state: str
    timeout: int | None
    on_timeout: str
    min_eligible: int
    out_elsewhere: frozenset[str]
    is_lenient: bool

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Request:
        """Build it from the options of a drain, checked."""
        return cls(
            frozenset(options["backends"] or ()),
            tuple(options["listener"]),
            options["state"],
            options["timeout"],
            options["on_timeout"],
            options["min_eligible"],
            frozenset(options["out_elsewhere"]),
            options["not_found"] == "ignore",
        )

    def concerned(self, document: Document) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Return the listeners and registrations that the request is about."""
        for name, listener in sorted(document.items()):
            if self.listeners == ("all",) or name in self.listeners:
                for backend in listener["backends"]:
                    if backend["name"] in self.machines or backend["address"] in self.machines:
                        yield listener, backend

    def names(self, document: Document) -> set[str]:
        """Return the same registrations by name."""
        return {
            backend_key_of(one["name"], backend["address"], backend["port"])
            for one, backend in self.concerned(document)
        }

    def edit(self, before: Document, faults: Faults) -> Document:
        """Take the registrations out, or put them back. What is disabled was so before, and stays it.

        :param faults: gets told of listeners and machines that there are not.
        """
        self._check_names(before, faults)
        wanted = {ACTIVE: ("drained", "enabled"), DRAINED: ("enabled", "drained")}[self.state]
        after = dict(before)
        for listener, backend in self.concerned(before):
            if backend["admin_state"] == wanted[0]:
                changed = {**backend, "admin_state": wanted[1]}
                backends = [changed if one is backend else one for one in after[listener["name"]]["backends"]]
                after[listener["name"]] = {**after[listener["name"]], "backends": backends}
        return after

    def seconds(self, document: Document) -> int:
        """Return how long flows have, the same for all registrations of the request."""
        if self.timeout is not None:
            return self.timeout
        return max((one["connection_draining_timeout_sec"] for one, _backend in self.concerned(document)), default=0)

    def timeouts(self, after: Document) -> dict[str, float | None]:
        """Return the time-outs of the drains. In natural mode flows are not ended unless a time-out is asked for."""
        seconds = self.seconds(after)
        return {
            backend_key_of(listener["name"], backend["address"], backend["port"]): None
            if self.on_timeout != TERMINATE or (listener["drain_mode"] == "natural" and self.timeout is None)
            else float(seconds)
            for listener, backend in self.concerned(after)
            if backend["admin_state"] == "drained"
        }

    def guard(self, before: Configuration, after: Configuration) -> None:
        """Refuse what leaves a listener fewer healthy backends than it must keep, and fewer than it has.

        :raises InvalidInput: there is such a listener.
        """
        past = {listener.name: listener for listener in before.listeners}
        errors = []
        for listener in after.listeners:
            if listener is past[listener.name]:
                continue
            had, kept = self._counted(past[listener.name]), self._counted(listener)
            if listener.admin_state == "enabled" and len(kept) < min(self.min_eligible, len(had)):
                names = f" ({', '.join(one.name for one in kept)})" if kept else ""
                errors.append(
                    f"min_eligible: {self.min_eligible}: {listener.name} would keep {len(kept)} eligible "
                    f"backends{names} of {len(had)}"
                )
        if errors:
            raise InvalidInput(errors)

    def _counted(self, listener: Listener) -> list[Backend]:
        return [
            backend
            for backend in select(listener).backends
            if is_healthy(backend) and self.out_elsewhere.isdisjoint((backend.name, backend.address))
        ]

    def _check_names(self, document: Document, faults: Faults) -> None:
        for name in self.listeners:
            if name not in document and self.listeners != ("all",):
                faults.add("listener", f"{name!r} is not a listener of this node; there are {sorted(document)}")
        found = {one[key] for _listener, one in self.concerned(document) for key in ("name", "address")}
        for machine in () if self.is_lenient else sorted(self.machines):
            if machine not in found:
                there = sorted({one["name"] for listener in document.values() for one in listener["backends"]})
                faults.add("backends", f"{machine!r} is neither name nor address of a backend there; there are {there}")


@dataclass(frozen=True)
class RemainingFlows:
    """What is left on a registration that drains.

    :ivar connections: active flows.
    :ivar deadline: in seconds since the epoch; ``None`` without one.
    :ivar is_expired: whether its flows are being ended, or have been.
    :ivar is_dead: whether it is unhealthy and nothing comes from it, so that there is nothing to wait for.
    :ivar is_draining: whether it has not been put back in the meantime.
    """

    listener: str
    name: str
    address: str
    port: int
    connections: int
    deadline: float | None
    is_expired: bool
    is_dead: bool
    is_draining: bool

    def is_done(self, max_connections: int) -> bool:
        """Tell whether nobody has to wait for it."""
        return self.connections <= max_connections or self.is_dead or not self.is_draining
