"""One picture of a run: sections through raw data, affinities, fragments, segmentation, truth.

A segment has the colour of the true object it shares most voxels with, so a merge shows as one
colour over two objects, and a split as the outline of a segment inside an object.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from pipeline.evaluate.contingency import Contingency
from pipeline.geometry import Nm
from pipeline.tables import replacing

MIXER, MASK = 0x9E3779B97F4A7C15, 2**64 - 1
"""Fibonacci hashing: ids that differ little get colours that differ much."""
COLUMNS = ("raw", "affinities", "fragments", "segmentation", "truth")


PLANES = ("xy", "xz")


@dataclass(frozen=True)
class View:
    """Two sections through volumes on one voxel grid: across the first axis, and the second."""

    sections: Mapping[str, tuple[np.ndarray, np.ndarray]]
    """By the name of the volume, what ``read`` gave of each plane: ids, greys, or channels."""
    voxel_size_nm: Nm

    def __post_init__(self) -> None:
        assert set(self.sections) <= set(COLUMNS), list(self.sections)


def colours(ids: np.ndarray) -> np.ndarray:
    """A colour per id, the same for the same id anywhere: hues and lightness well spread.

    Lightness varies as much as hue does, so that neighbours differ also for colour-blind readers.
    """
    table = []
    for value in ids.tolist():
        mixed = (value * MIXER & MASK) >> 32
        hue, light = (mixed & 0xFFFF) / 0x10000, 0.35 + 0.4 * (mixed >> 16) / 0x10000
        table.append(colorsys.hls_to_rgb(hue, light, 0.65) if value else (0.0, 0.0, 0.0))
    return np.array(table, np.float32).reshape(-1, 3)


def colours_like(segments: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids of segments, and for each the colour of the true object it overlaps most.

    A segment that overlaps no true object has a colour of its own.
    """
    table = Contingency.count(segments, truth)
    order = np.lexsort((table.voxels, table.truth != 0, table.segment))
    ids, last = np.unique(table.segment[order][::-1], return_index=True)
    partner = table.truth[order][::-1][last]
    return ids, np.where((ids == 0)[:, None], 0, colours(np.where(partner == 0, ids, partner)))


def draw(view: View, path: Path, title: str) -> None:
    """Write a PNG: a row for the xy sections, a row for the xz sections, a column per volume."""
    mpl.use("Agg")
    columns = [name for name in COLUMNS if name in view.sections]
    z, y, x = (float(size) for size in view.voxel_size_nm)
    shapes = [plane.shape[-3:] for plane in view.sections[columns[0]]]
    height_nm, depth_nm, width_nm = shapes[0][1] * y, shapes[1][0] * z, shapes[0][2] * x
    across = 3.2
    figure = Figure(
        figsize=(across * len(columns), across * (height_nm + depth_nm) / width_nm + 0.9),
        dpi=110,
        layout="constrained",
    )
    axes = figure.subplots(2, len(columns), height_ratios=(height_nm, depth_nm), squeeze=False)
    for row, (plane, aspect) in enumerate(zip(PLANES, (y / x, z / x), strict=True)):
        for axis, name in zip(axes[row], columns, strict=True):
            axis.imshow(_image(view, name, row), aspect=aspect, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(name)
        axes[row, 0].set_ylabel(plane)
    _scale_bar(axes[0, 0], width_nm)
    figure.suptitle(title)
    with replacing(path) as partial, partial.open("wb") as file:
        figure.savefig(file, format="png")


def _image(view: View, name: str, row: int) -> np.ndarray:
    """RGB floats of one section, ``(row, column, 3)``."""
    plane = _flat(view.sections[name][row], row)
    if name == "affinities":
        return np.moveaxis(_unit(plane[:3]), 0, -1)
    if name == "raw":
        return np.repeat(_unit(plane)[..., None], 3, axis=-1)
    ids, table = _colour_table(view, name)
    colour = table[np.searchsorted(ids, plane)]
    grey = _unit(_flat(view.sections["raw"][row], row)) if "raw" in view.sections else np.ones(1)
    shown = 0.6 * colour + 0.4 * grey[..., None]
    shown[_edges(plane)] *= 0.45
    shown[plane == 0] *= 0.3
    return np.asarray(shown)


def _edges(plane: np.ndarray) -> np.ndarray:
    """Where two labels touch. Fragments of one section each touch everywhere: that is left out."""
    edges = np.zeros(plane.shape, bool)
    for axis in (0, 1):
        differs = np.diff(plane, axis=axis, append=np.take(plane, [-1], axis=axis)) != 0
        if differs.mean() < 0.5:
            edges |= differs
    return edges


def _colour_table(view: View, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a volume of labels in both sections, sorted, and their colours."""
    here, partner = (
        np.concatenate([plane.ravel() for plane in view.sections[each]])
        for each in (name, "truth" if "truth" in view.sections else "segmentation")
    )
    return colours_like(here, partner)


def _unit(values: np.ndarray) -> np.ndarray:
    """Grey values as floats in [0, 1]; integers by the range of their type."""
    top = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
    return np.asarray(values.astype(np.float32) / top)


def _flat(section: np.ndarray, row: int) -> np.ndarray:
    """A section without the axis it was cut across."""
    return np.asarray(np.take(section, 0, axis=section.ndim - 3 + row))


def _scale_bar(axis: Axes, width_nm: float) -> None:
    """A bar of a round length, about a quarter of the picture."""
    power = 10 ** np.floor(np.log10(width_nm / 4))
    length = max(step * power for step in (1, 2, 5) if step * power <= width_nm / 4)
    text = f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"
    right, low, span = 0.96, 0.05, length / width_nm
    style: dict[str, Any] = {
        "color": "w",
        "path_effects": [withStroke(linewidth=5, foreground="k")],
    }
    axis.plot([right - span, right], [low, low], lw=3, transform=axis.transAxes, **style)
    style["path_effects"] = [withStroke(linewidth=2, foreground="k")]
    place: dict[str, Any] = {"ha": "center", "va": "bottom", "transform": axis.transAxes}
    axis.text(right - span / 2, low + 0.03, text, fontsize=9, **place, **style)
