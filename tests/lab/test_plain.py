# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The site playbook as an operator runs it: by `ansible-playbook`, not by a forked process of the lab."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from lab import Lab, Node
from lab.fleet import Fleet
from lab.rows import FAMILIES, listener, target, vip
from lab.traffic import failures, run_load, shares


def _run(program: str, *arguments: str, folder: Path) -> str:
    """Run one of Ansible's programs in a folder, as a shell would, and return what it prints."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_site_by_the_command_line(fleet: Fleet, lab: Lab, client: Node, tmp_path: Path) -> None:
    """The first run puts listeners on a load balancer, which serves; the second changes nothing."""
    listeners = [listener(lab, f"web{family}", family, 5, scheduler="wrr") for family in FAMILIES]
    lab.write_inventory(tmp_path / "hosts.json")
    variables = {"lb_hosts": "lb1", "lb_node_purge": "all", "lb_node_listeners": listeners}
    (tmp_path / "variables.json").write_text(json.dumps(variables), encoding="utf-8")
    arguments = ("--inventory", "hosts.json", "--extra-vars", "@variables.json", "evenflow.l4lb.site")
    changed = []
    for _turn in range(2):
        output = _run("ansible-playbook", *arguments, folder=tmp_path)
        recap = output.rpartition("PLAY RECAP")[2]
        changed.append({name: int(count) for name, count in re.findall(r"(lb\d) .*\bchanged=(\d+)", recap)})
    assert changed[0].keys() == {"lb1"} and changed[0]["lb1"] > 0, changed
    assert changed[1] == {"lb1": 0}
    lab.route("lb1")
    records = run_load(client, "http", [target(vip(family, 5), 80) for family in FAMILIES], count=60)
    assert not failures(records), failures(records)[:3]
    assert shares(records) == {"b1": 20, "b2": 20, "b3": 20}
