# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Installs a Python package, whole or not at all.

Standard input: JSON with ``folder``, ``package`` and ``files``, a dictionary of text by path. Prints ``same`` or
``changed``; with the argument ``check`` it changes nothing.
"""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import shutil
import sys


def main() -> None:
    wanted = json.load(sys.stdin)
    folder, files = wanted["folder"], {**wanted["files"], "__init__.py": ""}
    version = hashlib.sha256(json.dumps(files, sort_keys=True).encode("ascii")).hexdigest()[:16]
    link = os.path.join(folder, "current")
    if os.path.islink(link) and os.readlink(link) == version and is_whole(os.path.join(link, wanted["package"]), files):
        print("same")
        return
    print("changed")
    if "check" in sys.argv[1:]:
        return
    new = os.path.join(folder, version)
    shutil.rmtree(new, ignore_errors=True)
    for name, text in files.items():
        path = os.path.join(new, wanted["package"], name)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    compileall.compile_dir(new, quiet=2)
    if os.path.lexists(f"{link}.new"):
        # A run that was interrupted has left it.
        os.unlink(f"{link}.new")
    os.symlink(version, f"{link}.new")
    os.replace(f"{link}.new", link)
    for name in os.listdir(folder):
        if name not in ("current", version):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def is_whole(package: str, files: dict[str, str]) -> bool:
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
