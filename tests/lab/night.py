# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rolling maintenance of every backend under several kinds of traffic, of both address families."""

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
from .rows import FAMILIES, heal, http_check, listener, target, vip, wait_for_states
from .traffic import Record, run_load

HOST = 90
DRAIN_SECONDS = 8

_CONNECTIONS = "/run/connections-at-restart"
_TURN_SECONDS = 5.0
_STREAM_SECONDS = 4.0
_LOOK_SECONDS = 0.25
_DATABASE, _DNS = 5432, 5300

DATABASE_CHECK = Path(__file__).parent / "database" / "check_postgresql.sh"
"""The check script that the load balancers need for the database."""

# A script that starts programs needs time, also on a busy machine.
_PATIENT = {"check_interval_sec": 3, "timeout_sec": 3, "healthy_threshold": 1, "unhealthy_threshold": 2}

Traffic = Callable[[Node], Sequence[Record]]
"""A function that sends flows of one kind for some seconds."""


@dataclass(frozen=True)
class Setting:
    """Listeners, services and traffic. `services`: units that are restarted; `ports`: their TCP ports."""

    listeners: Sequence[Mapping[str, Any]]
    services: Sequence[str]
    ports: Sequence[int]
    traffic: Mapping[str, Traffic]


@dataclass
class Night:
    """The records of a maintenance. Times are in seconds since the epoch.

    `flows`: by kind of traffic. `drained`: from when to when each backend was drained on the first load balancer.
    `restarted`: when the services of each backend were restarted, and how many connections they had then.
    """

    play: CompletedProcess[str]
    flows: dict[str, list[Record]]
    drained: dict[str, tuple[float, float]]
    restarted: dict[str, tuple[float, int]]

    @property
    def records(self) -> list[Record]:
        """Return the flows of all kinds."""
        return [record for records in self.flows.values() for record in records]


def common_services(lab: Lab) -> Setting:
    """Return a setting with short HTTP requests, datagrams and their answers, and streams with checked bytes."""
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
    """Return a setting with PostgreSQL, whose client reconnects for every transaction, and a DNS server.

    Health checks use the services themselves. The nodes need the packages `postgresql` and `dnsmasq-base`, and the load
    balancers need the check script.
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
    """Configure the listeners on the load balancers, and wait until all backends are healthy."""
    heal(lab)
    fleet.configure(setting.listeners)
    for entry in setting.listeners:
        for node in lab.nodes("lb"):
            wait_for_states(lab, entry["name"], " ".join(["healthy"] * len(entry["backends"])), node=node.name)
    lab.route("both")


def maintain(
    lab: Lab, fleet: Fleet, folder: Path, setting: Setting, least: Mapping[str, int] | None = None, **variables: Any
) -> Night:
    """Run rolling maintenance on all backends under traffic and return its records, also if it fails.

    The traffic continues after it until there are at least as many flows of each kind as `least` says.
    """
    client, ending = lab.node("c1"), Event()
    tasks = folder / "restart.json"
    tasks.write_text(json.dumps(_tasks(setting)), encoding="utf-8")
    with ThreadPoolExecutor(max_workers=len(setting.traffic) + 1) as pool:
        running = {
            kind: pool.submit(_repeat, ending, client, once, (least or {}).get(kind, 0))
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
        recorded = node.run(["cat", _CONNECTIONS], check=False).stdout.split()
        if recorded:
            restarted[node.name] = float(recorded[0]), int(recorded[1])
    return Night(play, {kind: sent.result() for kind, sent in running.items()}, watch.result(), restarted)


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
            "health_check": http_check("night", unhealthy_threshold=3),
            "connection_draining_timeout_sec": DRAIN_SECONDS,
            **options,
        },
    )


def _targets(port: int) -> list[str]:
    return [target(vip(family, HOST), port) for family in FAMILIES]


def _tasks(setting: Setting) -> list[dict[str, Any]]:
    ports = " or ".join(f"sport = :{port}" for port in setting.ports)
    # The command that restarts also counts, so that no connection can come in between.
    script = (
        f'echo "$(date +%s.%N) $(ss -Htn state established "( {ports} )" | wc -l)" >{_CONNECTIONS}'
        f" && systemctl restart {' '.join(setting.services)}"
    )
    return [{"name": "Restart the services", "ansible.builtin.command": {"argv": ["sh", "-c", script]}}]


def _repeat(ending: Event, client: Node, once: Traffic, least: int) -> list[Record]:
    """Repeat traffic until the end and until there are enough flows, and return its records.

    Every flow has one record: records that a stream was opened are left out.
    """
    records: list[Record] = []
    while not ending.is_set() or len(records) < least:
        records += [record for record in once(client) if record.kind != "stream-open"]
    return records


def _watch(ending: Event, node: Node) -> dict[str, tuple[float, float]]:
    """Return from when to when each machine was drained in the configuration of a load balancer."""
    spans: dict[str, tuple[float, float]] = {}
    while not ending.is_set():
        listeners = json.loads(node.get("/etc/evenflow/listeners.json"))["listeners"]
        now = time.time()
        for name in {
            backend["name"]
            for entry in listeners.values()
            for backend in entry["backends"]
            if backend["admin_state"] == "drained"
        }:
            spans[name] = spans.get(name, (now, now))[0], now
        ending.wait(_LOOK_SECONDS)
    return spans


def _transactions(family: int) -> Traffic:
    """Return a function that runs read-only transactions of pgbench, each on a new connection."""
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
        succeeded = Record(began, "transaction", address, True, None, None, None, None, None, None, 0.0, None)
        failed = (
            []
            if done.returncode == 0
            else [
                Record(
                    began, "transaction", address, False, None, None, None, None, None, done.stderr[-500:], 0.0, None
                )
            ]
        )
        return [succeeded] * count + failed

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
