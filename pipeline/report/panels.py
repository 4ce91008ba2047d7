"""Pictures of sections: raw, affinities, and labels to lay over raw."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.report.colours import ColourTable, colour_tables
from pipeline.report.sections import LABELS, Section

SHOWN, SHOWN_ALONE, DIMMED = 150, 255, 45
"""How far labels cover what is beneath, of 255: over raw, without raw, and beside the point."""
EDGE = 0.35
"""How bright the outline of a label is."""
BLACK_AND_WHITE = (0.5, 99.5)
"""Percentiles of raw that are shown black and white."""


@dataclass(frozen=True)
class Palette:
    """What sections have in common, so that their pictures agree: contrast and colours."""

    black: float
    white: float
    tables: Mapping[str, ColourTable]

    @classmethod
    def of(cls, sections: Sequence[Section]) -> Palette:
        """That of all sections of a picture or a report."""
        raw = [s.images["raw"].ravel() for s in sections if "raw" in s.images]
        black, white = np.percentile(np.concatenate(raw), BLACK_AND_WHITE) if raw else (0.0, 1.0)
        labels = {
            name: [section.images[name] for section in sections]
            for name in LABELS
            if all(name in section.images for section in sections)
        }
        return cls(float(black), float(white), colour_tables(labels))


def picture(
    section: Section, name: str, palette: Palette, only: Collection[int] = ()
) -> np.ndarray:
    """One volume of a section as an image.

    Args:
        only: labels to show; the others are dimmed. All are shown if there are none.

    Returns:
        uint8 ``(row, column)`` of raw, ``(row, column, 3)`` of affinities, z, y, x as red, green,
        blue; and ``(row, column, 4)`` of labels, to be laid over raw.
    """
    image = section.images[name]
    if name == "raw":
        span = max(palette.white - palette.black, 1e-12)
        unit = np.clip((image.astype(np.float64) - palette.black) / span, 0, 1)
        return np.rint(255 * unit).astype(np.uint8)
    if name == "affinities":
        top = 255.0 if image.dtype == np.uint8 else 1.0
        return np.rint(255 * np.moveaxis(image, 0, -1).clip(0, top) / top).astype(np.uint8)
    edges = outlines(image)
    colour = palette.tables[name].of(image) * np.where(edges, EDGE, 1.0)[..., None]
    shown = SHOWN if "raw" in section.images else SHOWN_ALONE
    cover = np.where(edges, (shown + 255) // 2, shown)
    if only:
        kept = np.isin(image, np.array(sorted(only), np.uint64))
        cover = np.where(kept, cover, DIMMED)
    cover[image == 0] = 0
    return np.concatenate([np.rint(colour), cover[..., None]], axis=-1).astype(np.uint8)


def outlines(labels: np.ndarray) -> np.ndarray:
    """Where two labels touch. Fragments of one section each touch everywhere: that is left out."""
    edges = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis, append=np.take(labels, [-1], axis=axis)) != 0
        if differs.mean() < 0.5:
            edges |= differs
    return edges


def data_uri(image: np.ndarray) -> str:
    """A uint8 image as a PNG in the text of a page."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@dataclass(frozen=True)
class ScaleBar:
    """A bar of a round length."""

    length_nm: float
    label: str

    @classmethod
    def within(cls, width_nm: float) -> ScaleBar:
        """About a quarter of a width."""
        power = 10 ** np.floor(np.log10(width_nm / 4))
        length = float(max(step * power for step in (1, 2, 5) if step * power <= width_nm / 4))
        return cls(length, f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm")
