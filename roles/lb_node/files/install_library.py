# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Install a Python package, whole or not at all.

Read JSON with ``folder``, ``package`` and ``files``, a dictionary of text by path, from standard input. Print ``same``
or ``changed``; with the argument ``check`` change nothing.
"""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import shutil
import sys


def main() -> None:
    request = json.load(sys.stdin)
    folder, files = request["folder"], {**request["files"], "__init__.py": ""}
    version = hashlib.sha256(json.dumps(files, sort_keys=True).encode("ascii")).hexdigest()[:16]
    link = os.path.join(folder, "current")
    installed = os.path.join(link, request["package"])
    if os.path.islink(link) and os.readlink(link) == version and is_whole(installed, files):
        print("same")
        return
    print("changed")
    if "check" in sys.argv[1:]:
        return
    new = os.path.join(folder, version)
    shutil.rmtree(new, ignore_errors=True)
    for name, text in files.items():
        path = os.path.join(new, request["package"], name)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    compileall.compile_dir(new, quiet=2)
    if os.path.lexists(f"{link}.new"):
        # An interrupted run has left it behind.
        os.unlink(f"{link}.new")
    os.symlink(version, f"{link}.new")
    os.replace(f"{link}.new", link)
    for name in os.listdir(folder):
        if name not in ("current", version):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def is_whole(package: str, files: dict[str, str]) -> bool:
    """Return whether a package has all files with these texts."""
    try:
        for name, text in files.items():
            with open(os.path.join(package, name), encoding="utf-8") as file:
                if file.read() != text:
                    return False
    except OSError:
        return False
    return True


if __name__ == "__main__":
    os.umask(0o022)
    main()
