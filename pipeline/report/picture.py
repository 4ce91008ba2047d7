"""One picture of a run: sections through raw data, affinities, fragments, segmentation, truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from pipeline.report.panels import Palette, ScaleBar, picture
from pipeline.report.sections import NAMES, Section
from pipeline.tables import replacing

COLUMN_INCHES = 3.2


def draw(sections: Sequence[Section], path: Path, title: str) -> None:
    """Write a PNG: a row for each section, all of one width, and a column for each volume."""
    mpl.use("Agg")
    columns = [name for name in NAMES if name in sections[0].images]
    palette = Palette.of(sections)
    heights, widths = zip(*(section.size_nm for section in sections), strict=True)
    shares = [height / width for height, width in zip(heights, widths, strict=True)]
    figure = Figure(
        figsize=(COLUMN_INCHES * len(columns), COLUMN_INCHES * sum(shares) + 0.9),
        dpi=110,
        layout="constrained",
    )
    axes = figure.subplots(len(sections), len(columns), height_ratios=shares, squeeze=False)
    for row, section in zip(axes, sections, strict=True):
        rows, across = next(iter(section.images.values())).shape[-2:]
        aspect = section.size_nm[0] / rows / (section.size_nm[1] / across)
        for axis, name in zip(row, columns, strict=True):
            axis.imshow(_layered(section, name, palette), aspect=aspect, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if section is sections[0]:
                axis.set_title(name)
        row[0].set_ylabel(section.name)
    _draw_bar(axes[0, 0], ScaleBar.within(widths[0]), widths[0])
    figure.suptitle(title)
    with replacing(path) as partial, partial.open("wb") as file:
        figure.savefig(file, format="png")


def _layered(section: Section, name: str, palette: Palette) -> np.ndarray:
    """RGB of one volume, labels over raw where there is any, uint8 ``(row, column, 3)``."""
    image = picture(section, name, palette)
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=-1)
    if image.shape[-1] == 3:
        return image
    cover = image[..., 3:] / 255.0
    beneath = picture(section, "raw", palette)[..., None] if "raw" in section.images else 0
    return np.rint(image[..., :3] * cover + beneath * (1 - cover)).astype(np.uint8)


def _draw_bar(axis: Axes, bar: ScaleBar, width_nm: float) -> None:
    right, low, span = 0.96, 0.05, bar.length_nm / width_nm
    style: dict[str, Any] = {
        "color": "w",
        "path_effects": [withStroke(linewidth=5, foreground="k")],
    }
    axis.plot([right - span, right], [low, low], lw=3, transform=axis.transAxes, **style)
    style["path_effects"] = [withStroke(linewidth=2, foreground="k")]
    place: dict[str, Any] = {"ha": "center", "va": "bottom", "transform": axis.transAxes}
    axis.text(right - span / 2, low + 0.03, bar.label, fontsize=9, **place, **style)
