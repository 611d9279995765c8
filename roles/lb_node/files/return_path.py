# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find backends whose answers to clients would not come back through this node.

Read {"backends": [ADDRESS, ...]} from the first argument and print {"missed": [...], "silent": [...]}.
An echo request is sent from an address that the node has on another network, as a client's packet would be. The answer
counts only on the interface by which the backend is reached. A backend that does not answer at all is silent.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

_AT_ONCE = 32


def main() -> None:
    backends = json.loads(sys.argv[1])["backends"]
    links = _ip(["address", "show", "up"])
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        verdicts = dict(zip(backends, pool.map(lambda backend: _verdict(backend, links), backends)))
    kinds = ("missed", "silent")
    print(json.dumps({kind: [backend for backend in backends if verdicts[backend] == kind] for kind in kinds}))


def _verdict(backend: str, links: list[dict]) -> str:
    if shutil.which("ping") is None:
        return "silent"
    routes = _ip(["route", "get", backend])
    if not routes or "dev" not in routes[0]:
        return "silent"
    device = routes[0]["dev"]
    source = _source(links, "inet6" if ":" in backend else "inet", device)
    # With a single network there is no address that could stand for a client's.
    if source is None or _answers(["-I", device, "-I", source, backend]):
        return "returned"
    return "missed" if _answers([backend]) else "silent"


def _source(links: list[dict], family: str, device: str) -> str | None:
    for link in links:
        if link["ifname"] not in (device, "lo"):
            for address in link["addr_info"]:
                if address["family"] == family and address["scope"] == "global":
                    return address["local"]
    return None


def _answers(arguments: list[str]) -> bool:
    command = ["ping", "-n", "-q", "-c", "3", "-i", "0.2", "-W", "1", *arguments]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _ip(arguments: list[str]) -> list[dict]:
    done = subprocess.run(["ip", "-json", *arguments], capture_output=True, text=True, check=False)
    return json.loads(done.stdout or "[]")


main()
