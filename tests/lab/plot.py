# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plot the requests per second of each backend over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

from .tally import Phase

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402  (the backend is chosen before)

# Colour-blind people can distinguish Okabe and Ito's palette; markers are distinguished without colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_GREY = "#555555"


def plot(
    path: Path, rates: Mapping[str, Sequence[float]], width: float, phases: Sequence[Phase], rate: float, subtitle: str
) -> None:
    """Write a PNG. `rates`: requests per second in stretches of `width` seconds; `rate`: the rate of the client."""
    figure, axes = pyplot.subplots(figsize=(11, 5.4), dpi=130, layout="constrained")
    top = max(max(values) for values in rates.values())
    seconds = max(phase.end for phase in phases)
    for number, (backend, values) in enumerate(rates.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        middles = [(index + 0.5) * width for index in range(len(values))]
        axes.plot(
            middles,
            values,
            color=colour,
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=4,
            linewidth=1.6,
            label=backend,
            zorder=3,
            clip_on=False,
        )
        for phase in phases:
            if backend in phase.expected:
                axes.hlines(
                    phase.expected[backend] * rate,
                    phase.begin,
                    phase.end,
                    color=colour,
                    linewidth=6,
                    alpha=0.22,
                    zorder=2,
                    clip_on=False,
                )
    for phase in phases:
        middle = (phase.begin + phase.end) / 2
        if phase.expected:
            axes.text(middle, top * 1.11, phase.name.replace(", ", "\n"), ha="center", va="center", color=_GREY)
        else:
            axes.axvspan(phase.begin, phase.end, color="#000000", alpha=0.10, linewidth=0, zorder=1)
            axes.annotate(
                phase.name.replace(": ", "\n"),
                (middle, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontweight="bold",
            )
    axes.plot([], [], color=_GREY, linewidth=6, alpha=0.3, label="expected from the weights")
    axes.fill_between([], [], color="#000000", alpha=0.10, linewidth=0, label="weights being changed")
    axes.set_xlim(0, seconds)
    axes.set_ylim(0, top * 1.2)
    axes.set_xlabel("seconds since the start of the load")
    axes.set_ylabel("answered requests per second")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Weight changes under load\n{subtitle}", fontsize=12)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=len(rates) + 2, frameon=False)
    figure.savefig(path)
    pyplot.close(figure)


def timeline(
    path: Path,
    rates: Mapping[str, Mapping[str, Sequence[float]]],
    width: float,
    drained: Mapping[str, tuple[float, float]],
    restarted: Mapping[str, float],
    subtitle: str,
) -> None:
    """Write a PNG of the answered flows of each backend while one backend after the other was out.

    `rates`: of each kind of traffic, answered flows per second of each backend in stretches of `width` seconds;
    `drained` and `restarted`: seconds since the start.
    """
    figure, rows = pyplot.subplots(
        len(rates), 1, figsize=(11, 2.4 * len(rates) + 1.6), dpi=130, sharex=True, layout="constrained", squeeze=False
    )
    backends = sorted({name for answered in rates.values() for name in answered})
    for axes, (kind, answered) in zip(rows[:, 0], rates.items()):
        for number, backend in enumerate(backends):
            colour = _COLOURS[number % len(_COLOURS)]
            values = answered.get(backend, ())
            axes.plot(
                [(index + 0.5) * width for index in range(len(values))],
                values,
                color=colour,
                linewidth=1.4,
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=3,
                label=backend,
                zorder=3,
            )
            if backend in drained:
                axes.axvspan(*drained[backend], color=colour, alpha=0.12, linewidth=0, zorder=1)
            if backend in restarted:
                axes.axvline(restarted[backend], color=colour, linestyle=":", linewidth=1.6, zorder=2)
        axes.set_ylabel(f"{kind}\nanswered / s")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    for backend, (begin, end) in drained.items():
        rows[0, 0].annotate(
            f"{backend} out",
            ((begin + end) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontweight="bold",
        )
    rows[-1, 0].set_xlabel("seconds; dotted: the backend's services are restarted")
    rows[-1, 0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=len(backends), frameon=False)
    figure.suptitle(f"Rolling maintenance under load\n{subtitle}", fontsize=12)
    figure.savefig(path)
    pyplot.close(figure)
