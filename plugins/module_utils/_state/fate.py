# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fate of live flows: one table, by the situation of the flow's backend and the class of the flow.

To keep a flow is to do nothing. To move it is to delete its conntrack entry, so that its next packet is scheduled anew.
To end it is to reset both sides of a TCP flow at their next packets and to refuse the packets of others, and then to
delete the entry. The source of the table is docs/behaviour.md, "The table of flow fates".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Tuple

from .._config.model import Backend, Listener
from .._config.str_enum import StrEnum
from .eligibility import Selection, is_candidate, is_healthy, pool_of
from .health import HealthState


class Fate(StrEnum):
    """What happens to a flow."""

    KEEP = "keep"
    MOVE = "move"
    END = "end"


class FlowKind(StrEnum):
    """The two kinds of flows. Streams are TCP and SCTP, every other protocol sends datagrams."""

    STREAM = "stream"
    DATAGRAM = "datagram"


class FlowClass(StrEnum):
    """The columns of the table: a kind of flow, and whether such flows persist on an unhealthy backend."""

    STREAM_PERSISTENT = "stream, persistent"
    STREAM_NOT_PERSISTENT = "stream, not persistent"
    STREAM_ALWAYS_PERSISTENT = "stream, always persistent"
    DATAGRAM = "datagram"
    DATAGRAM_ALWAYS_PERSISTENT = "datagram, always persistent"


class Situation(StrEnum):
    """The rows of the table: the situation of a backend."""

    SERVING = "serving"
    UNHEALTHY = "unhealthy, others healthy"
    FAIL_OPEN = "all unhealthy, fail open"
    ALL_UNHEALTHY_DROP = "all unhealthy, drop"
    NO_SHARE = "weight 0"
    DRAINING = "draining"
    DRAINING_UNHEALTHY = "draining, unhealthy"
    DRAINED = "drained"
    DISABLED = "disabled"
    POOL_LEFT = "pool left"
    POOL_LEFT_EXPIRED = "pool left, past its time"
    POOL_LEFT_NOT_DRAINED = "pool left, not drained"


_K, _M, _E = Fate.KEEP, Fate.MOVE, Fate.END

FATES: Mapping[Situation, Tuple[Fate, Fate, Fate, Fate, Fate]] = {
    Situation.SERVING: (_K, _K, _K, _K, _K),
    Situation.UNHEALTHY: (_K, _M, _K, _M, _K),
    Situation.FAIL_OPEN: (_K, _K, _K, _K, _K),
    Situation.ALL_UNHEALTHY_DROP: (_K, _E, _K, _E, _K),
    Situation.NO_SHARE: (_K, _K, _K, _K, _K),
    Situation.DRAINING: (_K, _K, _K, _K, _K),
    Situation.DRAINING_UNHEALTHY: (_K, _M, _K, _M, _K),
    Situation.DRAINED: (_E, _E, _E, _M, _M),
    Situation.DISABLED: (_E, _E, _E, _M, _M),
    Situation.POOL_LEFT: (_K, _K, _K, _K, _K),
    Situation.POOL_LEFT_EXPIRED: (_E, _K, _K, _M, _K),
    Situation.POOL_LEFT_NOT_DRAINED: (_E, _E, _E, _K, _K),
}
"""The fate by situation; the columns are those of :class:`FlowClass`, in its order."""


@dataclass(frozen=True)
class BackendFate:
    """The fate of a backend's flows, by kind. A listener for one protocol gives both kinds the same."""

    stream: Fate = Fate.KEEP
    datagram: Fate = Fate.KEEP

    def __bool__(self) -> bool:
        return (self.stream, self.datagram) != (Fate.KEEP, Fate.KEEP)

    def of(self, kind: FlowKind) -> Fate:
        """Return the fate of flows of a kind."""
        return self.stream if kind == FlowKind.STREAM else self.datagram

    def has(self, fate: Fate) -> bool:
        """Return whether flows of any kind have a fate."""
        return fate in (self.stream, self.datagram)


def fates(listener: Listener, selection: Selection) -> tuple[BackendFate, ...]:
    """Return the fate of each backend's flows, in the backends' order.

    :param listener: the effective listener.
    :param selection: what :func:`~.eligibility.select` returns for it.
    """
    situations = [situation(listener, backend, selection) for backend in listener.backends]
    by_situation = {each: _backend_fate(listener, each) for each in set(situations)}
    return tuple(by_situation[each] for each in situations)


def situation(listener: Listener, backend: Backend, selection: Selection) -> Situation:
    """Return the situation of a backend.

    :param listener: the effective listener.
    :param selection: what :func:`~.eligibility.select` returns for it.
    """
    if backend.admin_state == "disabled":
        return Situation.DISABLED
    if backend.admin_state == "drained" or backend.is_leaving:
        if backend.is_drain_expired:
            return Situation.DRAINED
        return Situation.DRAINING_UNHEALTHY if backend.health == HealthState.UNHEALTHY else Situation.DRAINING
    if not is_candidate(backend):
        return Situation.NO_SHARE
    if not is_healthy(backend):
        if selection.is_fail_open:
            return Situation.FAIL_OPEN
        return Situation.UNHEALTHY if selection.backends else Situation.ALL_UNHEALTHY_DROP
    if pool_of(backend) == selection.pool:
        return Situation.SERVING
    if listener.failover_policy.disable_connection_drain_on_failover:
        return Situation.POOL_LEFT_NOT_DRAINED
    return Situation.POOL_LEFT_EXPIRED if backend.is_drain_expired else Situation.POOL_LEFT


def _backend_fate(listener: Listener, of_backend: Situation) -> BackendFate:
    by_class = dict(zip(FlowClass, FATES[of_backend]))
    stream, datagram = by_class[_stream_class(listener)], by_class[_datagram_class(listener)]
    if listener.protocol in ("tcp", "sctp"):
        return BackendFate(stream, stream)
    if listener.protocol == "any":
        return BackendFate(stream, datagram)
    return BackendFate(datagram, datagram)


def _stream_class(listener: Listener) -> FlowClass:
    policy = listener.connection_persistence_on_unhealthy_backends
    if policy == "always_persist":
        return FlowClass.STREAM_ALWAYS_PERSISTENT
    is_coarse = listener.keeps_sessions and listener.session_affinity not in ("none", "client_ip_port_proto")
    return FlowClass.STREAM_NOT_PERSISTENT if policy == "never_persist" or is_coarse else FlowClass.STREAM_PERSISTENT


def _datagram_class(listener: Listener) -> FlowClass:
    if listener.connection_persistence_on_unhealthy_backends == "always_persist":
        return FlowClass.DATAGRAM_ALWAYS_PERSISTENT
    return FlowClass.DATAGRAM
