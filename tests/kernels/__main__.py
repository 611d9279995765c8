# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Boot the stock kernels and run tests on them: `python -m kernels [SUITE...] [-- PYTEST ARGUMENTS]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lab.store import LabError, Store
from lab.topology import SUITES

from .image import ensure_image
from .machine import Machine


def main(arguments: Sequence[str]) -> int:
    """Run the tests on the kernels of the named Debian releases, or of all, side by side. Return 0 if all passed."""
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    suites, options = words[:end] or list(SUITES), words[end + 1 :]
    if unknown := [suite for suite in suites if suite not in SUITES]:
        print(f"no Debian release is called {unknown[0]}; there are: {' '.join(SUITES)}", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(max_workers=len(suites)) as pool:
        passed = list(pool.map(lambda suite: _passes(suite, options), suites))
    print(f"{sum(passed)} passed, {len(passed) - sum(passed)} failed: kernels of {' '.join(suites)}", flush=True)
    return 0 if all(passed) else 1


def _passes(suite: str, options: Sequence[str]) -> bool:
    def say(text: str) -> None:
        print(f"{suite}: {text}", flush=True)

    store = Store()
    log = store.cache / "logs" / f"kernels-{suite}.console"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        image = ensure_image(store, suite, say)
        status = Machine(image, log).run(options, say)
    except LabError as error:
        say(str(error))
        return False
    if status:
        console = log.read_text(encoding="utf-8", errors="replace").splitlines()
        say("\n".join([f"pytest ended with {status}; the end of {log}:", *(f"    {line}" for line in console[-40:])]))
    return status == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
