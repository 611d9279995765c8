# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make, deploy and use a fleet, change it under load, and print what happened."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from .fleet import Deployment, Fleet
from .lab import Lab
from .night import DRAIN_SECONDS, Night, common_services, maintain, prepare
from .plot import plot, timeline
from .process import CommandFailed
from .steady import SteadyLoad
from .store import LabError
from .tally import Phase, Traffic, phase, rates, traffic
from .topology import BACK, FRONT, Topology, routed_vip4, routed_vip6
from .traffic import Flow, Record, failures, run_load, run_tuples

VIP4, VIP6 = routed_vip4(1), routed_vip6(1)
WEIGHTS = {"b1": 3, "b2": 2, "b3": 1}
TARGETS = {"web4": f"{VIP4}:80", "web6": f"[{VIP6}]:80", "dns4": f"{VIP4}:53", "dns6": f"[{VIP6}]:53"}
WEB = ("web4", "web6")
REQUESTS, DATAGRAMS, REQUEST_RATE = 2400, 1200, 600
# The source ports are fixed and not chosen by the client's kernel, so that no two datagrams belong to the same flow.
SOURCE_PORTS = range(20000, 20000 + DATAGRAMS // 2)

LOAD_RATE = 200
PHASE_SECONDS = 6.0
SHARE_POINTS = 0.02
PLOT_SECONDS = 0.5


@dataclass(frozen=True)
class Step:
    """A change of one backend's weight in both web listeners, and the name of the time after it."""

    backend: str
    weight: int
    change: str
    after: str


STEPS = (
    Step("b3", 4, "b3: weight 1 → 4", "after"),
    Step("b1", 0, "b1: weight 3 → 0", "b1 out"),
    Step("b1", 3, "b1: weight 0 → 3", "b1 back"),
)


@dataclass(frozen=True)
class Maintained:
    """A maintained backend: the seconds for which it was out, and its connections when its services were restarted."""

    backend: str
    out: float
    connections_at_restart: int


@dataclass
class Figures:
    """All figures of the demo, for the file beside the picture."""

    deployments: list[Deployment] = field(default_factory=list)
    traffic: list[Traffic] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    maintained: list[Maintained] = field(default_factory=list)
    checks: dict[str, bool] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the figures as JSON, without the output of the playbook runs."""
        document = asdict(self)
        for deployment in document["deployments"]:
            del deployment["output"]
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    """Run the demo and return the exit status, which is 0 only if all checks passed."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        lab = Lab(say=lambda text: _say(f"   {text}"))
        folder = lab.store.cache / "demo"
        if options.undo:
            lab.down()
            shutil.rmtree(folder, ignore_errors=True)
            _say(f"lab {lab.name} is down, {folder} is gone")
            return 0
        with _fleet(lab, options.keep) as fleet:
            figures = _show(lab, fleet, folder)
            status = _verdict(figures, folder)
        return status
    except (LabError, CommandFailed, subprocess.TimeoutExpired) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130


@contextmanager
def _fleet(lab: Lab, keep: bool) -> Iterator[Fleet]:
    """Bring the lab up and yield its fleet; take it down at the end, unless it was up before or is to be kept."""
    if [spec.name for spec in lab.topology.of_kind("backend")] != list(WEIGHTS):
        raise LabError(f"the demo needs the backends {', '.join(WEIGHTS)}: unset EVENFLOW_LAB_BACKENDS")
    keep = keep or lab.is_up()
    try:
        _heading("1. The lab: two load balancers, three backends, a client")
        lab.up()
        lab.route("both")
        _say(f"   VIPs {VIP4} and {VIP6}, which the client reaches by both load balancers")
        yield Fleet(lab)
    finally:
        if not keep:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            lab.down()
            _say(f"\nlab {lab.name} is down again")
        else:
            _say(
                f"\nlab {lab.name} stays up. Look around:\n"
                "   ./dev lab status\n"
                "   ./dev lab exec lb1 nft list table inet evenflow\n"
                "   ./dev lab exec lb1 conntrack -L\n"
                f"   ./dev lab exec c1 curl http://{VIP4}/ 'http://[{VIP6}]/'\n"
                "and take it down with: ./dev demo --undo"
            )


def _show(lab: Lab, fleet: Fleet, folder: Path) -> Figures:
    figures = Figures()
    _deploy(lab, fleet, figures)
    _balance(lab, fleet, figures)
    _change(lab, fleet, figures, folder)
    _maintain(lab, fleet, figures, folder)
    figures.write(folder / "figures.json")
    return figures


def _deploy(lab: Lab, fleet: Fleet, figures: Figures) -> None:
    _heading("2. Deployed: ansible-playbook evenflow.l4lb.site, twice")
    rows = []
    for number in (1, 2):
        deployment = fleet.deploy(_listeners(lab.topology), lb_node_purge="all")
        figures.deployments.append(deployment)
        for node, counts in deployment.stats.items():
            rows.append([f"run {number}", node, *counts.values(), f"{deployment.seconds:.1f}"])
    _table(["", "node", *figures.deployments[0].stats["lb1"], "seconds"], rows)
    figures.checks["the second run changed nothing"] = figures.deployments[1].changed == 0


def _balance(lab: Lab, fleet: Fleet, figures: Figures) -> None:
    _heading(f"3. Traffic: {REQUESTS} HTTP requests, {DATAGRAMS} UDP datagrams, half IPv4, half IPv6")
    client = lab.node("c1")
    before = _reports(lab, fleet)
    records = run_load(client, "http", [TARGETS[name] for name in WEB], count=REQUESTS, rate=REQUEST_RATE)
    records += run_tuples(client, _datagrams(lab.topology))
    after = _reports(lab, fleet)
    for name, target in TARGETS.items():
        figures.traffic.append(traffic(name, [record for record in records if record.target == target], before, after))

    balancers = [node.name for node in lab.nodes("lb")]
    rows: list[list[object]] = []
    for sent in figures.traffic:
        label = f"{sent.listener} {sent.scheduler}"
        for row in sent.rows:
            rows.append(
                [
                    label,
                    row.backend,
                    row.weight,
                    row.flows,
                    _percent(row.share),
                    _percent(row.expected),
                    *(row.forwarded[name] for name in balancers),
                    "",
                ]
            )
            label = ""
        rows.append(
            [
                "",
                "all",
                "",
                sent.flows,
                "",
                "",
                *(sum(row.forwarded[name] for row in sent.rows) for name in balancers),
                sent.failed,
            ]
        )
    _table(
        [
            "listener",
            "backend",
            "weight",
            "flows",
            "share",
            "expected",
            *(f"by {name}" for name in balancers),
            "failed",
        ],
        rows,
    )

    answered = sum(sent.flows for sent in figures.traffic)
    same = sum(sent.same_peer for sent in figures.traffic)
    digests = {report["table_digest"] for report in after.values()}
    _say(
        f"   backends saw the client's own address in {same} of {answered} flows;"
        f" the nodes' slot tables {'are equal' if len(digests) == 1 else 'DIFFER'}"
    )
    figures.checks |= {
        f"all {REQUESTS} requests and {DATAGRAMS} datagrams were answered": answered == REQUESTS + DATAGRAMS
        and not any(sent.failed for sent in figures.traffic),
        "every backend had its share": all(sent.as_expected for sent in figures.traffic),
        "both load balancers forwarded, with equal slot tables": len(digests) == 1
        and all(any(row.forwarded[name] for row in sent.rows) for sent in figures.traffic for name in balancers),
        "the client's address reached the backends": same == answered > 0,
    }


def _change(lab: Lab, fleet: Fleet, figures: Figures, folder: Path) -> None:
    _heading(f"4. Weight changes under a load of {LOAD_RATE} requests per second")
    marks = []
    with SteadyLoad(lab.node("c1"), [TARGETS[name] for name in WEB], rate=LOAD_RATE) as load:
        for step in STEPS:
            time.sleep(PHASE_SECONDS)
            begin = time.time()
            fleet.modules([node.name for node in lab.nodes("lb")], _weight(lab.topology, step))
            marks.append((begin, time.time()))
            _say(f"   {step.change}, by lb_backend on both load balancers, took {marks[-1][1] - marks[-1][0]:.1f} s")
        time.sleep(PHASE_SECONDS)
        records = load.end()
    if not records:
        raise LabError("the load sent no request")

    figures.phases = _phases(records, marks)
    _say("")
    _table(
        ["", "from", "to", "requests", "failed", *(f"{name} (expected)" for name in WEIGHTS)],
        [
            [
                measured.name,
                f"{measured.begin:.1f} s",
                f"{measured.end:.1f} s",
                measured.requests,
                measured.failed,
                *(
                    _percent(measured.share(name))
                    + (f" ({_percent(measured.expected[name])})" if measured.expected else " " * 9)
                    for name in WEIGHTS
                ),
            ]
            for measured in figures.phases
        ],
    )
    failed = sum(measured.failed for measured in figures.phases)
    figures.checks |= {
        f"no request of {len(records)} failed while weights changed": failed == 0,
        "shares followed the weights, and the backend at weight 0 had none": all(
            measured.as_expected(SHARE_POINTS) for measured in figures.phases
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    start = min(record.t for record in records)
    end = max(record.t for record in records)
    plot(
        folder / "requests.png",
        rates(records, start, end, PLOT_SECONDS),
        PLOT_SECONDS,
        figures.phases,
        LOAD_RATE,
        f"{len(records)} HTTP requests through {len(lab.nodes('lb'))} load balancers, IPv4 and IPv6, {failed} failed",
    )


def _maintain(lab: Lab, fleet: Fleet, figures: Figures, folder: Path) -> None:
    _heading("5. Rolling maintenance: ansible-playbook evenflow.l4lb.rolling_maintenance, restarting every backend")
    setting = common_services(lab)
    prepare(lab, fleet, setting)
    _say(
        f"   HTTP, UDP and TCP streams, IPv4 and IPv6, while each is drained (at most {DRAIN_SECONDS} s), restarted, "
        "and put back"
    )
    night = maintain(lab, fleet, folder, setting)
    figures.maintained = [
        Maintained(name, round(end - begin, 1), night.restarted.get(name, (0.0, -1))[1])
        for name, (begin, end) in sorted(night.drained.items(), key=lambda item: item[1])
    ]
    _say("")
    _table(
        ["", "out for", "connections at its restart"],
        [[found.backend, f"{found.out:.1f} s", found.connections_at_restart] for found in figures.maintained],
    )
    _say("")
    _table(["", "all", "failed"], [[kind, len(found), len(failures(found))] for kind, found in night.flows.items()])
    figures.checks |= {
        "every backend was restarted in its turn, with nobody on it": night.play.returncode == 0
        and [found.connections_at_restart for found in figures.maintained] == [0] * len(lab.nodes("backend")),
        f"none of {len(night.records)} requests, datagrams and streams failed meanwhile": bool(night.records)
        and not failures(night.records),
    }
    _plot_night(night, folder / "maintenance.png")


def _plot_night(night: Night, path: Path) -> None:
    start, end = min(record.t for record in night.records), max(record.t for record in night.records)
    timeline(
        path,
        {kind: rates(records, start, end, 1.0) for kind, records in night.flows.items()},
        1.0,
        {name: (begin - start, last - start) for name, (begin, last) in night.drained.items()},
        {name: when - start for name, (when, _count) in night.restarted.items()},
        f"{len(night.records)} flows through two load balancers, {len(failures(night.records))} failed",
    )


def _verdict(figures: Figures, folder: Path) -> int:
    _heading("Verdict")
    for text, right in figures.checks.items():
        _say(f"   {'yes' if right else 'NO '}  {text}")
    wrong = list(figures.checks.values()).count(False)
    _say(f"\n   pictures {folder / 'requests.png'}\n            {folder / 'maintenance.png'}")
    _say(f"   figures  {folder / 'figures.json'}\n")
    _say(f"   {wrong} of {len(figures.checks)} are wrong" if wrong else "   All is as it should be.")
    return 1 if wrong else 0


def _listeners(topology: Topology) -> list[dict[str, Any]]:
    def listener(name: str, address: str, port: int, **options: Any) -> dict[str, Any]:
        specs = topology.of_kind("backend")
        backends = [
            {
                "name": spec.name,
                "address": _address(topology, spec.name, address),
                "port": 8000 + port,
                "weight": WEIGHTS[spec.name],
            }
            for spec in specs
        ]
        return {"name": name, "address": address, "ports": [port], "backends": backends, **options}

    return [
        listener("web4", VIP4, 80, protocol="tcp", scheduler="wrr"),
        listener("web6", VIP6, 80, protocol="tcp", scheduler="wrr"),
        listener("dns4", VIP4, 53, protocol="udp", scheduler="mh"),
        listener("dns6", VIP6, 53, protocol="udp", scheduler="mh"),
    ]


def _datagrams(topology: Topology) -> list[Flow]:
    """Return datagrams, each with a different source port of its family, so each is a flow."""
    nic = topology.of_kind("client")[0].nic(FRONT)
    return [("udp", source, port, vip, 53) for port in SOURCE_PORTS for source, vip in ((nic.v4, VIP4), (nic.v6, VIP6))]


def _weight(topology: Topology, step: Step) -> list[tuple[str, dict[str, Any]]]:
    return [
        (
            "lb_backend",
            {"listener": [name], "address": _address(topology, step.backend, vip), "port": 8080, "weight": step.weight},
        )
        for name, vip in zip(WEB, (VIP4, VIP6))
    ]


def _address(topology: Topology, backend: str, vip: str) -> str:
    """Return the backend's address of the VIP's family."""
    nic = topology.node(backend).nic(BACK)
    return nic.v6 if ":" in vip else nic.v4


def _reports(lab: Lab, fleet: Fleet) -> dict[str, dict[str, Any]]:
    """Return the result of `lb_info` on each load balancer."""
    names = [node.name for node in lab.nodes("lb")]
    results_by_node = fleet.modules(names, [("lb_info", {"gather": ["config", "counters", "tables"]})])
    return {name: results[0] for name, results in results_by_node.items()}


def _phases(records: Sequence[Record], marks: Sequence[tuple[float, float]]) -> list[Phase]:
    """Split the load at the changes: before the first, during each change, and after each."""
    start = min(record.t for record in records)
    stop = max(record.t for record in records) + 0.001
    weights = dict(WEIGHTS)
    begins = [start, *(end for _begin, end in marks)]
    ends = [*(begin for begin, _end in marks), stop]
    phases = [phase(f"before, {_ratio(weights)}", records, start, begins[0], ends[0], weights)]
    for step, (begin, end), until in zip(STEPS, marks, ends[1:]):
        weights[step.backend] = step.weight
        phases.append(phase(step.change, records, start, begin, end))
        phases.append(phase(f"{step.after}, {_ratio(weights)}", records, start, end, until, weights))
    return phases


def _ratio(weights: Mapping[str, int]) -> str:
    return ":".join(map(str, weights.values()))


def _percent(part: float) -> str:
    return f"{100 * part:.1f}%"


def _heading(text: str) -> None:
    _say(f"\n{text}\n")


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print aligned columns, the first to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        cells = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))]
        _say(("   " + "  ".join(cells)).rstrip())


def _say(text: str) -> None:
    print(text, flush=True)


def _stop(_number: int, _frame: object) -> NoReturn:
    """Handle SIGTERM like an interrupt, so that the demo cleans up."""
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev demo", description="Show a fleet at work, in containers.")
    parser.add_argument("--keep", action="store_true", help="leave the lab up at the end")
    parser.add_argument("--undo", action="store_true", help="take the lab down, remove what the demo wrote")
    return parser


if __name__ == "__main__":
    sys.exit(main())
