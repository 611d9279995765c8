# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand in for get-pip: run the pip wheel that came with Python, which installs the requested pip from the index."""

import ensurepip
import glob
import os
import runpy
import sys

# Debian keeps the wheels of ensurepip in the second folder.
FOLDERS = (os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"), "/usr/share/python-wheels")
# Options of get-pip that pip does not know.
FOREIGN = ("--no-setuptools", "--no-wheel")

wheels = [wheel for folder in FOLDERS for wheel in glob.glob(os.path.join(folder, "pip-*.whl"))]
if not wheels:
    sys.exit("no pip wheel in " + " or ".join(FOLDERS))
sys.path.insert(0, wheels[0])
sys.argv = ["pip", "install"] + [argument for argument in sys.argv[1:] if argument not in FOREIGN]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
