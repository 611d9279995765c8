#!/usr/bin/python
# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: background
short_description: Start a program that continues after the task, or stop it
description:
  - The program ends at its time limit if no task stops it.
author:
  - The Evenflow authors (@evenflow)
options:
  command:
    description: The program to start and its arguments.
    type: list
    elements: str
  stdin:
    description: Text for the program's standard input, which is never closed.
    type: str
    default: ""
  output:
    description: File for the output of the program.
    type: path
  pid:
    description: The id of the process to stop, as returned when it was started.
    type: int
  seconds:
    description: Maximum time in seconds that the program may run.
    type: int
    default: 1200
"""

EXAMPLES = r"""
- name: Watch
  background:
    command: [nft, monitor]
    output: /tmp/events
  register: watch

- name: Stop watching
  background:
    pid: "{{ watch.pid }}"
"""

RETURN = r"""
pid:
  description: The id of the process.
  returned: success
  type: int
"""

import os
import signal
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "command": {"type": "list", "elements": "str"},
            "stdin": {"type": "str", "default": ""},
            "output": {"type": "path"},
            "pid": {"type": "int"},
            "seconds": {"type": "int", "default": 1200},
        },
        required_one_of=[["command", "pid"]],
        mutually_exclusive=[["command", "pid"]],
        required_by={"command": ["output"]},
    )
    if module.params["command"]:
        pid = start(module.params["command"], module.params["stdin"], module.params["output"], module.params["seconds"])
    else:
        pid = module.params["pid"]
        if not stop(pid):
            module.fail_json(msg=f"process {pid} had ended already, or does not end")
    module.exit_json(changed=True, pid=pid)


def start(command: list[str], stdin: str, output: str, seconds: int) -> int:
    """Start a program as leader of a new process group and return its id."""
    readable, writable = os.pipe()
    os.write(writable, stdin.encode("utf-8"))
    with open(output, "wb") as file:
        process = subprocess.Popen(
            ["timeout", "--foreground", str(seconds), *command],
            stdin=readable,
            stdout=file,
            stderr=file,
            # The program holds the writing end of its standard input, so it never sees the end of the input.
            pass_fds=[writable],
            start_new_session=True,
        )
    return process.pid


def stop(pid: int) -> bool:
    """End a process, wait until it has ended, and return whether it was running and ended."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not running(pid):
            return True
        time.sleep(0.02)
    return False


def running(pid: int) -> bool:
    """Return whether a process runs; a process that only waits to be reaped does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    main()
