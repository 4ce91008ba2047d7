"""Charts for a page: SVG whose colours follow the scheme of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK, PAPER, RULE = "#111111", "#ffffff", "#d9d9d9"
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
"""Of the Okabe-Ito palette, which colour-blind readers can tell apart."""
THEME = {
    INK: "var(--ink)",
    "#000000": "var(--ink)",
    PAPER: "var(--paper)",
    RULE: "var(--rule)",
    "#cccccc": "var(--rule)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
    PURPLE: "var(--purple)",
}
"""What the style sheet of the page calls them."""
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "legend.frameon": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}
NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element in the colours of the page.

    Args:
        name: tells its ids from those of other charts of the page.
    """
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.id": name, "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", transparent=True, metadata=NO_METADATA)
    text = file.getvalue()
    text = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub("|".join(THEME), lambda match: THEME[match[0].lower()], text, flags=re.IGNORECASE)
    # Width and height are left to the page.
    return re.sub(
        r'(<svg [^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", text[text.index("<svg") :]
    )


def training_charts(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """The curves of a training: its loss, and the scores of its validations if there are any.

    Args:
        rows: of ``training.jsonl``.
    """
    with mpl.rc_context(STYLE):
        charts = {"Loss": svg(_losses(rows), "loss")}
        validated = [row for row in rows if "validation/voi" in row]
        if validated:
            charts["Validation"] = svg(_validations(validated), "validation")
        return charts


def _losses(rows: Sequence[Mapping[str, float]]) -> Figure:
    figure = new_figure(5.2, 3.4)
    axes = figure.subplots()
    names = dict.fromkeys(key for row in rows for key in row if key.startswith("loss/"))
    for name, style in zip(["loss", *names], _styles(), strict=False):
        points = [(row["step"], row[name]) for row in rows if name in row]
        label = "sum" if name == "loss" else name.removeprefix("loss/").replace("_", " ")
        axes.plot(*zip(*points, strict=True), label=label, lw=1.3, **style)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=4)
    return figure


def _validations(rows: Sequence[Mapping[str, float]]) -> Figure:
    figure = new_figure(5.2, 3.4)
    axes = figure.subplots()
    steps = [row["step"] for row in rows]
    curves: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("voi", "VOI", {"color": INK, "marker": "o"}),
        ("voi_split", "split", {"color": BLUE, "marker": "^", "ls": "--"}),
        ("voi_merge", "merge", {"color": ORANGE, "marker": "s", "ls": ":"}),
    )
    for key, label, style in curves:
        values = [row[f"validation/{key}"] for row in rows]
        axes.plot(steps, values, label=label, lw=1.3, ms=4, **style)
    best = min(rows, key=lambda row: row["validation/voi"])
    axes.annotate(
        f"{best['validation/voi']:.3f}",
        (best["step"], best["validation/voi"]),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center",
    )
    axes.set(xlabel="step", ylabel="bits, at the best threshold")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=3)
    return figure


def _styles() -> Iterator[dict[str, Any]]:
    """Lines that differ in colour, and in dashes too."""
    colours = (INK, BLUE, ORANGE, GREEN, PURPLE)
    dashes = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
    for turn in range(len(dashes)):
        for place, colour in enumerate(colours):
            yield {"color": colour, "ls": dashes[(place + turn) % len(dashes)]}
