"""One picture of a run: sections through raw data, affinities, fragments, segmentation, truth.

A segment has the colour of the true object it shares most voxels with, so a merge shows as one
colour over two objects, and a split as the outline of a segment inside an object.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.evaluate.contingency import Contingency
from pipeline.geometry import Nm
from pipeline.tables import replacing

MIXER, MASK = 0x9E3779B97F4A7C15, 2**64 - 1
"""Fibonacci hashing: ids that differ little get colours that differ much."""


@dataclass(frozen=True)
class View:
    """What to draw of one volume; arrays ``(z, y, x)`` of one shape, ids uint64."""

    raw: np.ndarray
    affinities: np.ndarray
    """uint8 ``(channel, z, y, x)``; the three direct channels are drawn as red, green, blue."""
    fragments: np.ndarray
    segmentation: np.ndarray
    truth: np.ndarray
    voxel_size_nm: Nm


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
    """Write a PNG: one row for the xy section through the middle, one for the xz section."""
    mpl.use("Agg")
    columns = ("raw", "affinities", "fragments", "segmentation", "truth")
    z, y, x = (float(size) for size in view.voxel_size_nm)
    nz, ny, nx = view.raw.shape
    heights = (ny * y, nz * z)
    width = 3.2 * len(columns)
    figure = Figure(
        figsize=(width, 3.2 * sum(heights) / (nx * x) + 0.9), dpi=110, layout="constrained"
    )
    axes = figure.subplots(2, len(columns), height_ratios=heights, squeeze=False)
    planes = ((slice(nz // 2, nz // 2 + 1), slice(None)), (slice(None), slice(ny // 2, ny // 2 + 1)))
    for row, (plane, aspect) in enumerate(zip(planes, (y / x, z / x), strict=True)):
        for axis, name in zip(axes[row], columns, strict=True):
            axis.imshow(_image(view, name, plane), aspect=aspect, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(name)
        axes[row, 0].set_ylabel("xy" if row == 0 else "xz")
    _scale_bar(axes[0, 0], nx, x)
    figure.suptitle(title)
    with replacing(path) as partial, partial.open("wb") as file:
        figure.savefig(file, format="png")


def _image(view: View, name: str, plane: tuple[slice, slice]) -> np.ndarray:
    """RGB floats of one section, ``(row, column, 3)``."""
    raw = _flat(view.raw[plane]).astype(np.float32) / 255
    if name == "raw":
        return np.repeat(raw[..., None], 3, axis=-1)
    if name == "affinities":
        return np.stack([_flat(c[plane]) for c in view.affinities[:3]], -1).astype(np.float32) / 255
    labels = _flat(getattr(view, name)[plane])
    ids, table = colours_like(getattr(view, name), view.truth)
    colour = table[np.searchsorted(ids, labels)]
    edge = np.zeros(labels.shape, bool)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    shown = 0.4 * raw[..., None] + 0.6 * colour
    shown[edge] *= 0.45
    return np.asarray(np.where((labels == 0)[..., None], raw[..., None] * 0.5, shown))


def _flat(section: np.ndarray) -> np.ndarray:
    """A section without its axis of length one."""
    return section[0] if section.shape[0] == 1 else section[:, 0]


def _scale_bar(axis: Axes, width_vx: int, voxel_nm: float) -> None:
    """A bar of a round length, about a quarter of the picture."""
    target = width_vx * voxel_nm / 4
    power = 10 ** np.floor(np.log10(target))
    length = max(step * power for step in (1, 2, 5) if step * power <= target)
    text = f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"
    right, low = 0.96, 0.05
    span = length / (width_vx * voxel_nm)
    axis.plot([right - span, right], [low, low], color="w", lw=3, transform=axis.transAxes)
    axis.text(
        right - span / 2, low + 0.02, text, color="w", ha="center", va="bottom",
        transform=axis.transAxes, fontsize=9,
    )
