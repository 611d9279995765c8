# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab at the command line."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .lab import Lab, remove_all
from .process import CommandFailed, enter
from .store import LabError


def main() -> int:
    """Run one command and return its exit status: 1 if it failed, that of the program for `exec`, otherwise 0."""
    options = _parser().parse_args()
    try:
        return _run(options)
    except (LabError, CommandFailed) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "down" and options.all:
        remove_all()
        return 0
    lab = Lab(options.lab, say=lambda text: print(text, flush=True))
    if options.command == "up":
        lab.up()
    elif options.command == "down":
        lab.down()
    elif options.command == "status":
        return _status(lab)
    elif options.command == "exec":
        arguments = options.words[1:] if options.words[:1] == ["--"] else options.words
        command = enter(lab.node(options.node).pid, arguments or ["bash", "-l"])
        os.execvp(command[0], command)
    elif options.command == "reboot":
        lab.node(options.node).reboot(hard=options.hard)
    elif options.command == "route":
        lab.route(options.via)
    elif options.command == "inventory":
        print(lab.write_inventory(options.path))
    return 0


def _status(lab: Lab) -> int:
    """Print a line for each node and return 0 if the lab is up, otherwise 1."""
    for node in lab.nodes():
        addresses = " ".join(f"{nic.network.name} {nic.v4} {nic.v6}" for nic in node.spec.nics)
        print(f"{node.name:4} {'on' if node.is_running() else 'off':3} {addresses}")
    up = lab.is_up()
    print(f"lab {lab.name}: {'up' if up else 'not up'}, Debian {lab.suite}")
    return 0 if up else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="A lab of load balancers, backends and a client.")
    parser.add_argument("--lab", help="name of the lab (default: $EVENFLOW_LAB, or evenflow)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="bring the lab up; nothing happens if it is up")
    down = commands.add_parser("down", help="remove the lab")
    down.add_argument("--all", action="store_true", help="every lab of this cache")
    commands.add_parser("status", help="list the nodes; status 1 unless all is up")
    execute = commands.add_parser("exec", help="run a command on a node (a shell if none is given)")
    execute.add_argument("node")
    execute.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    reboot = commands.add_parser("reboot", help="reboot a node")
    reboot.add_argument("node")
    reboot.add_argument("--hard", action="store_true", help="like a power failure")
    route = commands.add_parser("route", help="how the client reaches routed VIPs")
    route.add_argument("via", choices=["lb1", "lb2", "both"])
    inventory = commands.add_parser("inventory", help="write the Ansible inventory and print where it is")
    inventory.add_argument("path", nargs="?", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())
