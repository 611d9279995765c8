#!/usr/bin/python
# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_state
short_description: Read everything that the collection might change on a node
description:
  - Reads files, the nftables ruleset and the addresses of the network namespace. Changes nothing.
author:
  - The Evenflow authors (@evenflow)
options:
  config_dir:
    description: Directory whose files are returned, with everything below it.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Read the node
  node_state:
    config_dir: /etc/evenflow
  register: before
"""

RETURN = r"""
files:
  description:
    - For each path below the directory its type, mode, time of last change in nanoseconds, inode and content.
  returned: success
  type: dict
ruleset:
  description: The whole ruleset with handles and counters, byte for byte. A rule written again shows by its handle.
  returned: success
  type: str
table:
  description: >-
    The table C(inet evenflow) in a form that is equal for equal tables - no handles, elements in order.
    Empty without such a table.
  returned: success
  type: list
  elements: dict
foreign:
  description: All other tables with handles, without the counters' values.
  returned: success
  type: list
  elements: str
addresses:
  description: The addresses of each interface, without link-local addresses.
  returned: success
  type: dict
"""

import json
import os
import shutil
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule

OURS = {"family": "inet", "name": "evenflow"}


def main() -> None:
    """Run the module."""
    module = AnsibleModule({"config_dir": {"type": "path", "required": True}}, supports_check_mode=True)
    listed = json.loads(run(module, "nft", "-j", "list", "tables"))["nftables"]
    names = sorted((item["table"]["family"], item["table"]["name"]) for item in listed if "table" in item)
    ours = (OURS["family"], OURS["name"])
    module.exit_json(
        changed=False,
        files=files(module.params["config_dir"]),
        ruleset=run(module, "nft", "-a", "list", "ruleset"),
        table=canonical(run(module, "nft", "-j", "list", "table", *ours)) if ours in names else [],
        foreign=[run(module, "nft", "-a", "-s", "list", "table", *name) for name in names if name != ours],
        addresses=addresses(run(module, "ip", "-j", "address", "show")),
    )


def files(top: str) -> dict[str, Any]:
    """Return each file and directory at and below a directory, by its path from there."""
    entries = {}
    for folder, folders, names in os.walk(top):
        for name in [".", *names, *folders]:
            path = os.path.join(folder, name)
            state = os.lstat(path)
            entries[os.path.relpath(path, top)] = {
                "mode": stat.filemode(state.st_mode),
                "changed_ns": state.st_mtime_ns,
                "inode": state.st_ino,
                "content": content(path, state.st_mode),
            }
    return entries


def content(path: str, mode: int) -> str:
    """Return a file's text, a link's target, or an empty text for others."""
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    if not stat.S_ISREG(mode):
        return ""
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "backslashreplace")


def canonical(listing: str) -> list[Any]:
    """Return a listing of a table in a form that is equal for equal tables."""
    items = []
    for item in json.loads(listing)["nftables"]:
        kind, entry = next(iter(item.items()))
        if kind == "metainfo":
            continue
        entry.pop("handle", None)
        if "elem" in entry:
            entry["elem"] = sorted(json.dumps(uncounted(element), sort_keys=True) for element in entry["elem"])
        items.append({kind: entry})
    # Rules of one chain keep their order: the sort is stable and looks at the chain only.
    return sorted(items, key=sort_key)


def sort_key(item: dict[str, Any]) -> tuple[str, str]:
    """Return the key that sorts objects by kind and name, rules by their chain."""
    kind, entry = next(iter(item.items()))
    return kind, entry["chain"] if kind == "rule" else entry["name"]


def uncounted(element: Any) -> Any:
    """Return an element without the value of its counter, but with the fact that it has a counter."""
    if isinstance(element, dict) and "elem" in element:
        return {"elem": {key: key if key == "counter" else value for key, value in element["elem"].items()}}
    return element


def addresses(listing: str) -> dict[str, list[str]]:
    """Return each interface's addresses, sorted, without link-local ones, which the kernel adds at any time."""
    return {
        link["ifname"]: sorted(
            f"{entry['local']}/{entry['prefixlen']}" for entry in link["addr_info"] if entry["scope"] != "link"
        )
        for link in json.loads(listing)
    }


def run(module: AnsibleModule, *command: str) -> str:
    """Return the output of a command; the module fails if the command fails."""
    program = shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        module.fail_json(msg=f"{command[0]}: not found on the node")
    return str(module.run_command([program, *command[1:]], check_rc=True)[1])


if __name__ == "__main__":
    main()
