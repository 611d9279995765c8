# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of `./dev test`, in the order in which they begin. The file step.sh has the commands of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A step and the resources that it needs.

    `cores`: number of processor cores that it keeps busy on average; steps run side by side as long as cores are free.
    `alone`: its tests have bounds in seconds, or look at the whole machine, so no other step runs beside it.
    `root`: it needs root. `named_only`: it runs only if it is named. `labs`: number of labs that it has up at the same
    time, see LABS.
    """

    name: str
    cores: float = 1.0
    alone: bool = False
    root: bool = False
    named_only: bool = False
    labs: int = 0


LABS = 3
"""Maximum number of labs that are up at the same time: a lab takes about 35 of the 128 inotify instances of a user."""

STEPS = (
    # The longest step: two labs, and for a while a third that a test brings up; they wait most of the time.
    Step("lab", cores=0.75, root=True, labs=3),
    # Short steps follow, so that errors show early.
    Step("changelog"),
    Step("reuse"),
    Step("mypy"),
    Step("docs"),
    Step("lint"),
    Step("units"),
    Step("sanity"),
    Step("units-py39"),
    Step("artifact", root=True),
    Step("integration", cores=0.75, root=True),
    Step("core-2.19", cores=0.75, root=True),
    Step("core-2.20", cores=0.75, root=True),
    Step("core-2.21", cores=0.75, root=True),
    Step("molecule", cores=0.5, root=True, labs=1),
    Step("lab-trixie", cores=0.5, root=True, labs=1),
    # Two machines, each with two processors, but they wait for most of the time.
    Step("kernels", cores=1.0, root=True, named_only=True),
    Step("lab-quiet", alone=True, root=True),
    Step("lab-trixie-all", alone=True, root=True, named_only=True),
    Step("kernels-long", alone=True, root=True, named_only=True),
    Step("night", alone=True, root=True, named_only=True),
)


def choose(names: list[str]) -> list[Step]:
    """Return the named steps, or without names all but those with `named_only`, in the order of STEPS.

    Raise ValueError with the existing names if a step does not exist.
    """
    existing = {step.name for step in STEPS}
    unknown = [name for name in names if name not in existing]
    if unknown:
        raise ValueError(f"no step is called {unknown[0]}; there are: {' '.join(step.name for step in STEPS)}")
    return [step for step in STEPS if step.name in names or not names and not step.named_only]


def startable(waiting: list[Step], running: list[Step], cores: float) -> list[Step]:
    """Return the waiting steps that can begin now beside the running steps, in their order.

    A step that needs more than the machine has begins when no other step runs. A step that runs alone waits until all
    others are done.
    """
    begun = list(running)
    for step in waiting:
        if step.alone:
            fits = not begun and all(other.alone for other in waiting)
        else:
            used = sum(other.cores for other in begun)
            labs = sum(other.labs for other in begun)
            has_room = used + step.cores <= cores and labs + step.labs <= LABS
            fits = not begun or has_room and not any(other.alone for other in begun)
        if fits:
            begun.append(step)
    return begun[len(running) :]
