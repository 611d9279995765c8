# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drains of machines: which backends they concern, how long flows have, and which drains are refused. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator

from .._config.derived import Derived
from .._config.document import Document
from .._config.model import Backend, Configuration, Listener, backend_key_of
from .._config.str_enum import StrEnum
from .._config.validation import Faults
from .._errors import InvalidInput
from .eligibility import is_healthy, select


class DrainState(StrEnum):
    """Whether machines are taken out or put back."""

    DRAINED = "drained"
    ACTIVE = "active"


class OnTimeout(StrEnum):
    """What happens to the flows that are left when the time is over. Only with terminate do drains have a deadline."""

    TERMINATE = "terminate"
    FAIL = "fail"
    CONTINUE = "continue"


@dataclass(frozen=True)
class DrainRequest:
    """A drain of machines, or its end, as an operator asks for it.

    :ivar machines: names or addresses of backends.
    :ivar listeners: names; ``all`` alone stands for every listener.
    :ivar timeout: seconds that flows have; ``None`` for the largest draining time-out of the listeners concerned.
    :ivar min_eligible: number of healthy eligible backends that each listener must keep.
    :ivar out_elsewhere: machines that do not count as eligible, because other nodes have them out.
    :ivar is_lenient: whether machines without a backend are ignored.
    """

    machines: frozenset[str]
    listeners: tuple[str, ...]
    state: DrainState
    timeout: int | None
    on_timeout: OnTimeout
    min_eligible: int
    out_elsewhere: frozenset[str]
    is_lenient: bool

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> DrainRequest:
        """Build a request from the options of a drain in canonical form."""
        return cls(
            frozenset(options["backends"] or ()),
            tuple(options["listener"]),
            DrainState(options["state"]),
            options["timeout"],
            OnTimeout(options["on_timeout"]),
            options["min_eligible"],
            frozenset(options["out_elsewhere"]),
            options["not_found"] == "ignore",
        )

    def concerned(self, document: Document) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield each backend that the request concerns, as a pair of its listener and itself."""
        for name, listener in sorted(document.items()):
            if self.listeners == ("all",) or name in self.listeners:
                for backend in listener["backends"]:
                    if backend["name"] in self.machines or backend["address"] in self.machines:
                        yield listener, backend

    def keys(self, document: Document) -> set[str]:
        """Return the keys of the backends that the request concerns."""
        return {
            backend_key_of(listener["name"], backend["address"], backend["port"])
            for listener, backend in self.concerned(document)
        }

    def edit(self, before: Document, faults: Faults) -> Document:
        """Return the configuration with the machines taken out or put back. A disabled backend stays disabled.

        :param faults: collects listeners and machines that do not exist.
        """
        self._check_names(before, faults)
        old, new = ("enabled", "drained") if self.state == DrainState.DRAINED else ("drained", "enabled")
        after = dict(before)
        for listener, backend in self.concerned(before):
            if backend["admin_state"] == old:
                changed = {**backend, "admin_state": new}
                backends = [changed if each is backend else each for each in after[listener["name"]]["backends"]]
                after[listener["name"]] = {**after[listener["name"]], "backends": backends}
        return after

    def seconds(self, document: Document) -> int:
        """Return the seconds that flows have: the same for all backends of the request."""
        if self.timeout is not None:
            return self.timeout
        timeouts = (listener["connection_draining_timeout_sec"] for listener, _backend in self.concerned(document))
        return max(timeouts, default=0)

    def timeouts(self, after: Document) -> dict[str, float | None]:
        """Return the time-out of each drain by backend key, in seconds; ``None`` means no deadline.

        In natural drain mode flows are ended only if the request has a time-out.

        :param after: the configuration after the request's edit.
        """
        seconds = float(self.seconds(after))
        return {
            backend_key_of(listener["name"], backend["address"], backend["port"]): None
            if self.on_timeout != OnTimeout.TERMINATE or (listener["drain_mode"] == "natural" and self.timeout is None)
            else seconds
            for listener, backend in self.concerned(after)
            if backend["admin_state"] == "drained"
        }

    def guard(self, before: Configuration, after: Configuration, derived: Derived) -> None:
        """Refuse a change that takes healthy backends from a listener and leaves it fewer than ``min_eligible``.

        :param before: the effective configuration before.
        :param after: the effective configuration after.
        :param derived: what the change has derived from both.
        :raises InvalidInput: there is such a listener.
        """
        listeners_before = {listener.name: listener for listener in before.listeners}
        errors = []
        for listener in after.listeners:
            if listener is listeners_before[listener.name]:
                continue
            had, kept = (self._counted(each, derived) for each in (listeners_before[listener.name], listener))
            if listener.admin_state == "enabled" and len(kept) < min(self.min_eligible, len(had)):
                names = f" ({', '.join(backend.name for backend in kept)})" if kept else ""
                errors.append(
                    f"min_eligible: {self.min_eligible}: {listener.name} would keep {len(kept)} eligible "
                    f"backends{names} of {len(had)}"
                )
        if errors:
            raise InvalidInput(errors)

    def _counted(self, listener: Listener, derived: Derived) -> list[Backend]:
        return [
            backend
            for backend in derived.get(select, listener).backends
            if is_healthy(backend) and self.out_elsewhere.isdisjoint((backend.name, backend.address))
        ]

    def _check_names(self, document: Document, faults: Faults) -> None:
        for name in self.listeners:
            if name not in document and self.listeners != ("all",):
                faults.add("listener", f"{name!r} is not a listener of this node; there are {sorted(document)}")
        known = {backend[option] for _listener, backend in self.concerned(document) for option in ("name", "address")}
        for machine in () if self.is_lenient else sorted(self.machines):
            if machine not in known:
                names = sorted({backend["name"] for listener in document.values() for backend in listener["backends"]})
                faults.add("backends", f"{machine!r} is neither name nor address of a backend there; there are {names}")


@dataclass(frozen=True)
class RemainingFlows:
    """The flows that are left on a backend that drains.

    :ivar connections: number of active flows.
    :ivar deadline: in seconds since the epoch; ``None`` without one.
    :ivar is_expired: whether the deadline has passed, so that flows are being ended or have been.
    :ivar is_dead: whether the backend is unhealthy and silent, so that there is nothing to wait for.
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
        """Return whether there is nothing to wait for.

        :param max_connections: number of flows that may remain.
        """
        return self.connections <= max_connections or self.is_dead or not self.is_draining
