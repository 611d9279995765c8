# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of `./dev test`, in the order in which they begin. step.sh has what each of them does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A step and what it takes of the machine.

    `cores`: processor cores that it keeps busy on average; steps run side by side while they fit. `alone`: its tests
    have bounds in seconds, or look at the whole machine, so nothing runs beside it. `root`: it cannot do without.
    `named_only`: not part of all steps.
    """

    name: str
    cores: float = 1.0
    alone: bool = False
    root: bool = False
    named_only: bool = False


STEPS = (
    # The longest step: two labs, which wait most of the time.
    Step("lab", cores=0.5, root=True),
    # Cheap steps next: what is wrong shows early.
    Step("changelog"),
    Step("reuse"),
    Step("mypy"),
    Step("docs"),
    Step("lint"),
    Step("units"),
    Step("sanity"),
    Step("units-py39"),
    Step("artifact", root=True),
    Step("integration", root=True),
    Step("core-2.19", root=True),
    Step("core-2.20", root=True),
    Step("core-2.21", root=True),
    Step("molecule", cores=0.5, root=True),
    Step("lab-trixie", cores=0.5, root=True),
    Step("lab-quiet", alone=True, root=True),
    Step("lab-trixie-all", alone=True, root=True, named_only=True),
    Step("night", alone=True, root=True, named_only=True),
)


def choose(names: list[str]) -> list[Step]:
    """Return the named steps, or all that are not for naming only, in the order of STEPS.

    ValueError names the steps there are.
    """
    known = {step.name for step in STEPS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no step is called {unknown[0]}; there are: {' '.join(step.name for step in STEPS)}")
    return [step for step in STEPS if step.name in names or not names and not step.named_only]


def startable(waiting: list[Step], running: list[Step], cores: float) -> list[Step]:
    """Return the waiting steps that can begin now beside the running ones, the first of the waiting first.

    A step that needs more than there is begins when nothing runs. A step for itself waits until all others are done.
    """
    begun = list(running)
    for step in waiting:
        if step.alone:
            fits = not begun and all(other.alone for other in waiting)
        else:
            used = sum(other.cores for other in begun)
            fits = not begun or used + step.cores <= cores and not any(other.alone for other in begun)
        if fits:
            begun.append(step)
    return begun[len(running) :]
