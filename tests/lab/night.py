# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A night of maintenance: every backend is restarted in its turn, under traffic of several kinds and both families."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from threading import Event
from typing import Any

from .fleet import Fleet
from .lab import Lab
from .nodes import Node
from .rows import FAMILIES, checked, heal, listener, target, vip, wait_for_states
from .traffic import Record, run_load

HOST = 90
DRAIN_SECONDS = 8

_CONNECTIONS = "/run/connections-at-restart"
_TURN_SECONDS = 5.0
_STREAM_SECONDS = 4.0
_LOOK_SECONDS = 0.25
_DATABASE, _DNS = 5432, 5300

DATABASE_CHECK = Path(__file__).parent / "database" / "check_postgresql.sh"
"""A check script that the load balancers need for the night of the database."""

# A script that starts programs has to have the time for it, also where everything else is busy.
_PATIENT = {"check_interval_sec": 3, "timeout_sec": 3, "healthy_threshold": 1, "unhealthy_threshold": 2}

Traffic = Callable[[Node], Sequence[Record]]
"""Sends flows of one kind for some seconds."""


@dataclass(frozen=True)
class Setting:
    """What serves and who asks. `ports`: on which nobody may be at a restart; `services`: units that are restarted."""

    listeners: Sequence[Mapping[str, Any]]
    services: Sequence[str]
    ports: Sequence[int]
    traffic: Mapping[str, Traffic]


@dataclass
class Night:
    """What happened. Times in seconds since the epoch.

    `flows`: by kind of traffic. `drained`: when each backend was out on the first load balancer. `restarted`: when its
    services were restarted, and how many connections were on them at that moment.
    """

    play: CompletedProcess[str]
    flows: dict[str, list[Record]]
    drained: dict[str, tuple[float, float]]
    restarted: dict[str, tuple[float, int]]

    @property
    def records(self) -> list[Record]:
        """All flows of all kinds."""
        return [record for found in self.flows.values() for record in found]


def usual(lab: Lab) -> Setting:
    """Short HTTP requests, datagrams that want an answer, and streams of which every byte is checked."""
    listeners = []
    for family in FAMILIES:
        listeners += [
            _listener(lab, "web", family),
            _listener(lab, "stream", family, ports=[81], port=7000),
            _listener(lab, "dns", family, protocol="udp", ports=[53], port=8053, scheduler="mh"),
        ]
    return Setting(
        listeners,
        ("lab-http", "lab-stream", "lab-udp"),
        (80, 7000),
        {
            "HTTP requests": lambda client: run_load(client, "http", _targets(80), rate=60, seconds=_TURN_SECONDS),
            "UDP datagrams": lambda client: run_load(client, "udp", _targets(53), rate=60, seconds=_TURN_SECONDS),
            "TCP streams": lambda client: run_load(client, "stream", _targets(81), count=12, seconds=_STREAM_SECONDS),
        },
    )


def database_and_dns(lab: Lab) -> Setting:
    """PostgreSQL with a client that reconnects for every transaction, and a DNS server.

    Each is checked by what it serves. Wants the packages `postgresql` and `dnsmasq-base` on the nodes, and the check
    script on the load balancers.
    """
    for node in lab.nodes("backend"):
        _start_database_and_dns(node)
    listeners = []
    for family in FAMILIES:
        listeners += [
            _listener(
                lab,
                "database",
                family,
                ports=[_DATABASE],
                health_check={
                    "type": "script",
                    "command": [f"/usr/local/libexec/evenflow/{DATABASE_CHECK.name}"],
                    **_PATIENT,
                },
            ),
            _listener(
                lab,
                "dns",
                family,
                protocol="udp",
                ports=[53],
                port=_DNS,
                scheduler="mh",
                health_check={"type": "dns", "query": "who.night.test", "query_type": "TXT", **_PATIENT},
            ),
        ]
    return Setting(
        listeners,
        ("night-database", "night-dns"),
        (_DATABASE,),
        {
            **{f"transactions, IPv{family}": _transactions(family) for family in FAMILIES},
            "DNS queries": lambda client: run_load(client, "dns", _targets(53), rate=60, seconds=_TURN_SECONDS),
        },
    )


def prepare(lab: Lab, fleet: Fleet, setting: Setting) -> None:
    """Give the load balancers the listeners, and wait until all backends are healthy."""
    heal(lab)
    fleet.configure(setting.listeners)
    for one in setting.listeners:
        for node in lab.nodes("lb"):
            wait_for_states(lab, one["name"], " ".join(["healthy"] * len(one["backends"])), node=node.name)
    lab.route("both")


def spend(
    lab: Lab, fleet: Fleet, folder: Path, setting: Setting, least: Mapping[str, int] | None = None, **variables: Any
) -> Night:
    """Run rolling maintenance over all backends under traffic, to its end whatever that is.

    Traffic goes on after it until there are at least as many flows of each kind as `least` says.
    """
    client, ending = lab.node("c1"), Event()
    tasks = folder / "restart.json"
    tasks.write_text(json.dumps(_tasks(setting)), encoding="utf-8")
    with ThreadPoolExecutor(max_workers=len(setting.traffic) + 1) as pool:
        running = {
            kind: pool.submit(_again, ending, client, once, (least or {}).get(kind, 0))
            for kind, once in setting.traffic.items()
        }
        watch = pool.submit(_watch, ending, lab.nodes("lb")[0])
        try:
            time.sleep(_TURN_SECONDS)
            play = fleet.play("rolling_maintenance", rolling_tasks=str(tasks), **variables)
            time.sleep(_TURN_SECONDS)
        finally:
            ending.set()
    restarted = {}
    for node in lab.nodes("backend"):
        found = node.run(["cat", _CONNECTIONS], check=False).stdout.split()
        if found:
            restarted[node.name] = float(found[0]), int(found[1])
    return Night(play, {kind: found.result() for kind, found in running.items()}, watch.result(), restarted)


def _listener(lab: Lab, name: str, family: int, **options: Any) -> dict[str, Any]:
    weights = [1] * len(lab.nodes("backend"))
    return listener(
        lab,
        f"{name}{family}",
        family,
        HOST,
        **{
            "weights": weights,
            "scheduler": "wrr",
            "health_check": checked("night", unhealthy_threshold=3),
            "connection_draining_timeout_sec": DRAIN_SECONDS,
            **options,
        },
    )


def _targets(port: int) -> list[str]:
    return [target(vip(family, HOST), port) for family in FAMILIES]


def _tasks(setting: Setting) -> list[dict[str, Any]]:
    ports = " or ".join(f"sport = :{port}" for port in setting.ports)
    # The count is taken by what restarts, in the same breath.
    script = (
        f'echo "$(date +%s.%N) $(ss -Htn state established "( {ports} )" | wc -l)" >{_CONNECTIONS}'
        f" && systemctl restart {' '.join(setting.services)}"
    )
    return [{"name": "Restart the services", "ansible.builtin.command": {"argv": ["sh", "-c", script]}}]


def _again(ending: Event, client: Node, once: Traffic, least: int) -> list[Record]:
    """Repeat traffic until the end and until there are enough flows.

    Every flow that was begun is in the records, without what only says that it was opened.
    """
    records: list[Record] = []
    while not ending.is_set() or len(records) < least:
        records += [record for record in once(client) if record.kind != "stream-open"]
    return records


def _watch(ending: Event, node: Node) -> dict[str, tuple[float, float]]:
    """Note from when to when each machine is drained in the configuration of a load balancer."""
    spans: dict[str, tuple[float, float]] = {}
    while not ending.is_set():
        listeners = json.loads(node.get("/etc/evenflow/listeners.json"))["listeners"]
        now = time.time()
        for name in {
            backend["name"]
            for one in listeners.values()
            for backend in one["backends"]
            if backend["admin_state"] == "drained"
        }:
            spans[name] = spans.get(name, (now, now))[0], now
        ending.wait(_LOOK_SECONDS)
    return spans


def _transactions(family: int) -> Traffic:
    """Run pgbench's read-only transactions, each on a connection of its own."""
    address = vip(family, HOST)

    def once(client: Node) -> list[Record]:
        began = time.time()
        done = client.run(
            [
                "pgbench",
                "--connect",
                "--select-only",
                "--no-vacuum",
                "--client=2",
                "--rate=40",
                f"--time={_TURN_SECONDS:g}",
                f"--host={address}",
                f"--port={_DATABASE}",
                "--username=postgres",
                "postgres",
            ],
            check=False,
        )
        processed = re.search(r"actually processed: (\d+)", done.stdout)
        count = int(processed[1]) if processed else 0
        one = Record(began, "transaction", address, True, None, None, None, None, None, None, 0.0, None)
        failed = (
            []
            if done.returncode == 0
            else [
                Record(
                    began, "transaction", address, False, None, None, None, None, None, done.stderr[-500:], 0.0, None
                )
            ]
        )
        return [one] * count + failed

    return once


def _start_database_and_dns(node: Node) -> None:
    programs = node.run(["sh", "-c", "ls -d /usr/lib/postgresql/*/bin"]).stdout.strip()
    data = "/var/lib/postgresql/night"
    node.run(["runuser", "-u", "postgres", "--", f"{programs}/initdb", "--auth=trust", "--no-sync", "-D", data])
    node.run(
        [
            "sh",
            "-c",
            f"printf 'host all all 198.18.0.0/15 trust\\nhost all all 2001:db8::/32 trust\\n' >>{data}/pg_hba.conf",
        ]
    )
    units = {
        "night-database": f"Type=notify\nUser=postgres\nExecStart={programs}/postgres -D {data} -p {_DATABASE} "
        "-c listen_addresses=* -k /tmp",
        "night-dns": f"ExecStart=/usr/sbin/dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts "
        f"--port={_DNS} --txt-record=who.night.test,{node.name}",
    }
    for name, lines in units.items():
        node.put(f"/etc/systemd/system/{name}.service", f"[Service]\n{lines}\n")
    node.run(["systemctl", "daemon-reload"])
    node.run(["systemctl", "start", *units])
    node.run(
        ["runuser", "-u", "postgres", "--", f"{programs}/pgbench", "--initialize", "--quiet", "--host=/tmp", "postgres"]
    )
