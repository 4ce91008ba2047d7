"""One picture of a sweep: what a run's scores would be at other thresholds or betas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.charts import BLUE, GREEN, INK, ORANGE, RULE
from pipeline.tables import replacing

Scored = Mapping[str, float]
"""Scores with the value of the parameter that they belong to."""

CURVE, OTHER, CHOSEN, BEST = BLUE, ORANGE, INK, GREEN


def draw_sweep(
    swept: Sequence[Scored], chosen: Scored, parameter: str, path: Path, title: str
) -> None:
    """Write a PNG: VOI split against merge, and VOI and ARAND against the parameter.

    Args:
        swept: in the order of the parameter, at least one.
        chosen: of the run itself, marked in both.
        parameter: the key of its values.
    """
    mpl.use("Agg")
    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    plane, curves = figure.subplots(1, 2)
    for axes, (title, chart) in zip((plane, curves), CHARTS.items(), strict=True):
        chart(axes, swept, chosen, parameter)
        axes.set_title(title)
    figure.suptitle(title)
    with replacing(path) as partial, partial.open("wb") as file:
        figure.savefig(file, format="png")


def split_against_merge(
    axes: Axes, swept: Sequence[Scored], chosen: Scored, parameter: str
) -> None:
    """VOI split and merge of each segmentation of a sweep; arguments as of ``draw_sweep``."""
    best = min(swept, key=lambda scores: scores["voi"])
    split, merge = ([scores[key] for scores in swept] for key in ("voi_split", "voi_merge"))
    top = 1.12 * max(*split, *merge, chosen["voi_split"], chosen["voi_merge"], 0.1)
    equal_sums(axes, top)
    axes.plot(split, merge, "o-", color=CURVE, ms=3.5, lw=1.2)
    marks: tuple[tuple[Scored, str, dict[str, Any]], ...] = (
        (best, "lowest VOI", {"marker": "o", "mec": BEST, "mfc": "none", "ms": 15, "mew": 2}),
        (chosen, "this run", {"marker": "*", "mec": "w", "mfc": CHOSEN, "ms": 13}),
    )
    for scores, name, style in marks:
        label = f"{name}: {parameter} {scores[parameter]:g}, VOI {scores['voi']:.3f}"
        axes.plot([scores["voi_split"]], [scores["voi_merge"]], ls="", label=label, **style)
    for scores in (swept[0], swept[-1]):
        axes.annotate(
            f"{scores[parameter]:g}",
            (scores["voi_split"], scores["voi_merge"]),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=8,
            color=CURVE,
        )
    axes.set(
        xlim=(-0.02 * top, top),
        ylim=(-0.02 * top, top),
        xlabel="VOI split (bits)",
        ylabel="VOI merge (bits)",
    )
    axes.set_aspect("equal")
    axes.legend(fontsize=8, loc="upper right", labelspacing=1.2)


def against_parameter(axes: Axes, swept: Sequence[Scored], chosen: Scored, parameter: str) -> None:
    """VOI and ARAND over the parameter of a sweep; arguments as of ``draw_sweep``."""
    best = min(swept, key=lambda scores: scores["voi"])
    values = [scores[parameter] for scores in swept]
    other = axes.twinx()
    axes.plot(values, [s["voi"] for s in swept], "o-", color=CURVE, ms=3.5, lw=1.2)
    other.plot(values, [s["arand"] for s in swept], "^--", color=OTHER, ms=3.5, lw=1.2)
    axes.axvline(best[parameter], color=BEST, lw=1, ls=":")
    axes.axvline(chosen[parameter], color=CHOSEN, lw=1)
    axes.plot([chosen[parameter]], [chosen["voi"]], "*", color=CHOSEN, ms=13, mec="w")
    other.plot([chosen[parameter]], [chosen["arand"]], "*", color=CHOSEN, ms=13, mec="w")
    axes.set(xlabel=parameter)
    axes.set_ylabel("VOI (bits), circles", color=CURVE)
    other.set_ylabel("ARAND, triangles", color=OTHER)
    for each in (axes, other):
        each.set_ylim(bottom=0)


def equal_sums(axes: Axes, top: float) -> None:
    """Grey lines of equal VOI in a plane of split and merge, both up to ``top``."""
    step = _round(top / 6)
    for total in np.arange(1, 2 * top / step) * step:
        axes.plot([0, total], [total, 0], color=RULE, lw=0.8, zorder=0)


CHARTS = {
    "Split against merge; grey lines: equal VOI": split_against_merge,
    "Stars: this run; dotted line: lowest VOI": against_parameter,
}
"""By what each shows."""


def _round(length: float) -> float:
    """The next of 1, 2, 5, 10, ... times a power of ten."""
    power = 10 ** np.floor(np.log10(length))
    return float(min(n * power for n in (1, 2, 5, 10) if n * power >= length))
