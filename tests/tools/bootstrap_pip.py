# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give ansible-test a pip bootstrap script where it cannot download its own.

The address and the pip version come from the ansible-test beside this interpreter. If the script is cached already or
its host answers, nothing happens; otherwise get_pip_stub.py is put into the cache.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path

SECONDS = 15


def main() -> None:
    url, version = download()
    cached = Path(f"~/.ansible/test/cache/get_pip_{version.replace('.', '_')}.py").expanduser()
    if cached.exists() or reachable(url % version):
        return
    cached.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("get_pip_stub.py"), cached)
    print(f"pip bootstrap: no download, the one bundled with Python is used ({cached})")


def download() -> tuple[str, str]:
    """Return the address, with %s for the version, and the pip version that this ansible-test downloads."""
    spec = importlib.util.find_spec("ansible_test")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip bootstrap: no ansible-test beside this interpreter")
    root = Path(spec.submodule_search_locations[0])
    url = find(root / "_util/target/setup/requirements.py", r"url = '(https://[^']+)' % pip_version")
    version = find(root / "_internal/python_requirements.py", r"default_packages = dict\(\s*pip='([0-9.]+)'")
    return url, version


def find(path: Path, pattern: str) -> str:
    match = re.search(pattern, path.read_text(encoding="utf-8"))
    if match is None:
        raise SystemExit(f"pip bootstrap: {path} no longer holds {pattern}")
    return match.group(1)


def reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS):
            return True
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    main()
