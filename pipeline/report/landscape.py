"""One picture of a tuning: the scores of every method over its parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

from pipeline.evaluate.landscape import Curve, Measure, Point
from pipeline.report.charts import BLUE, GREEN, INK, ORANGE, PURPLE, RULE, STYLE, new_figure
from pipeline.report.sweep import equal_sums
from pipeline.tables import replacing

COLOURS: Mapping[str, str] = {
    "mean_affinity": BLUE,
    "quantile": GREEN,
    "multicut": ORANGE,
    "lifted_multicut": PURPLE,
    "mutex_watershed": INK,
}
OTHERS = "#56b4e9"
"""Of methods that other distributions add."""
DASHES = ("-", "--", ":")
LABELS: Mapping[Measure, str] = {"voi": "VOI (bits)", "arand": "ARAND"}
SHOWN = 2.5
"""Scores up to this times the best are shown; what is worse lies above the picture."""


def draw_landscape(
    curves: Sequence[Curve], best: Sequence[Point], by: Measure, path: Path, title: str
) -> None:
    """Write a PNG: the score against each parameter, and VOI split against merge.

    Args:
        curves: all of them; those on other fragments than the best of their method are thin.
        best: of each method with its settings, the chosen one first.
        title: the run and the region.
    """
    mpl.use("Agg")
    styles = _styles(best)
    parameters = sorted(
        {p.curve.parameter for p in best if p.curve.parameter is not None}, reverse=True
    )
    with mpl.rc_context(STYLE):
        figure = new_figure(5.2 * (len(parameters) + 1), 5.6)
        *panels, plane = figure.subplots(1, len(parameters) + 1, squeeze=False)[0]
        for axes, parameter in zip(panels, parameters, strict=True):
            _against_parameter(axes, parameter, curves, best, by, styles)
        _split_against_merge(plane, best, styles)
        figure.suptitle(f"{title}\n{_sentence(best[0])}")
        handles, labels = plane.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        with replacing(path) as partial, partial.open("wb") as file:
            figure.savefig(file, format="png", dpi=110)


def _sentence(chosen: Point) -> str:
    settings = {**chosen.curve.fragments}
    if chosen.value is not None:
        settings = {str(chosen.curve.parameter): chosen.value, **settings}
    said = ", ".join(f"{name} {value:g}" for name, value in settings.items())
    return (
        f"star: chosen, {chosen.curve.name}, {said}: "
        f"VOI {chosen.scores['voi']:.3f}, ARAND {chosen.scores['arand']:.3f}"
    )


def _styles(best: Sequence[Point]) -> dict[str, dict[str, Any]]:
    """Of each method with its settings: a colour for the method, dashes for the settings."""
    styles: dict[str, dict[str, Any]] = {}
    for point in sorted(best, key=lambda point: point.curve.name):
        method = str(point.curve.agglomerate["method"])
        colour = COLOURS.get(method, OTHERS)
        number = sum(style["color"] == colour for style in styles.values())
        styles[point.curve.name] = {"color": colour, "ls": DASHES[number % len(DASHES)]}
    return styles


def _against_parameter(
    axes: Axes,
    parameter: str,
    curves: Sequence[Curve],
    best: Sequence[Point],
    by: Measure,
    styles: Mapping[str, Mapping[str, Any]],
) -> None:
    strong = {point.curve.name: point.curve for point in best}
    chosen = best[0]
    for curve in curves:
        if curve.parameter != parameter or curve is strong[curve.name]:
            continue
        axes.plot(*_line(curve, parameter, by), lw=0.5, alpha=0.3, **styles[curve.name])
    for point in best:
        style = styles[point.curve.name]
        if point.curve.parameter is None:
            axes.axhline(point.scores[by], lw=1.2, **style)
        elif point.curve.parameter == parameter:
            axes.plot(*_line(point.curve, parameter, by), lw=1.6, **style)
            place = [point.scores[parameter]], [point.scores[by]]
            axes.plot(*place, "o", ms=4, color=style["color"])
    if chosen.window is not None and chosen.curve.parameter == parameter:
        axes.axvspan(*chosen.window, color=RULE, alpha=0.6, lw=0, zorder=0)
        _star(axes, chosen.scores[parameter], chosen.scores[by], styles[chosen.curve.name])
    lowest = min(point.scores[by] for point in best)
    axes.set(
        xlabel=parameter,
        ylabel=LABELS[by],
        ylim=(0, SHOWN * lowest or 1),
        title="Thick: on the best fragments; band: window of the choice",
    )


def _split_against_merge(
    axes: Axes, best: Sequence[Point], styles: Mapping[str, Mapping[str, Any]]
) -> None:
    top = 1.15 * max(
        0.1, *(point.scores[key] for point in best for key in ("voi_split", "voi_merge"))
    )
    equal_sums(axes, top)
    for point in best:
        curve, style = point.curve, styles[point.curve.name]
        split, merge = ([s[key] for s in curve.swept] for key in ("voi_split", "voi_merge"))
        if curve.parameter is None:
            axes.plot(split, merge, "s-", color=style["color"], label=curve.name)
            continue
        axes.plot(split, merge, lw=1.3, label=curve.name, **style)
        place = [point.scores["voi_split"]], [point.scores["voi_merge"]]
        axes.plot(*place, "o", ms=4, color=style["color"])
    chosen = best[0]
    _star(axes, chosen.scores["voi_split"], chosen.scores["voi_merge"], styles[chosen.curve.name])
    axes.set(
        xlim=(0, top),
        ylim=(0, top),
        xlabel="VOI split (bits)",
        ylabel="VOI merge (bits)",
        title="Split against merge; grey lines: equal VOI",
    )
    axes.set_aspect("equal")


def _star(axes: Axes, x: float, y: float, style: Mapping[str, Any]) -> None:
    axes.plot([x], [y], "*", ms=16, mfc=style["color"], mec="w", zorder=5)


def _line(curve: Curve, parameter: str, by: Measure) -> tuple[list[float], list[float]]:
    return [each[parameter] for each in curve.swept], [each[by] for each in curve.swept]
