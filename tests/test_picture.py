"""Pictures show what is there: the right volumes, aligned, in stable colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.geometry import Nm
from pipeline.report.picture import View, colours, colours_like, draw

TRUTH = np.repeat(np.arange(1, 5, dtype=np.uint64), 6).reshape(1, 1, 24)


def sections(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An xy section of 12 rows and an xz section of 5 rows, each row the same."""
    return np.tile(values, (1, 12, 1)), np.tile(values, (5, 1, 1))


def test_an_id_has_one_colour_and_background_is_black() -> None:
    ids = np.array([0, 1, 2, 2**63 + 7], np.uint64)
    table = colours(ids)
    assert np.array_equal(table, colours(ids))
    assert np.array_equal(table[0], np.zeros(3))
    assert len(np.unique(table.round(3), axis=0)) == 4
    assert table.min() >= 0
    assert table.max() <= 1


def test_many_ids_in_a_row_have_colours_far_apart() -> None:
    table = colours(np.arange(1, 200, dtype=np.uint64))
    steps = np.abs(np.diff(table, axis=0)).max(axis=1)
    assert np.median(steps) > 0.2


def test_a_segment_has_the_colour_of_the_object_it_shares_most_voxels_with() -> None:
    segments = np.array([7, 7, 7, 9, 9, 8], np.uint64)
    truth = np.array([1, 1, 2, 2, 0, 0], np.uint64)
    ids, table = colours_like(segments, truth)
    assert ids.tolist() == [7, 8, 9]
    assert np.array_equal(table, colours(np.array([1, 8, 2], np.uint64)))


def test_a_picture_has_a_panel_for_each_volume_and_none_is_blank(tmp_path: Path) -> None:
    raw = np.arange(24, dtype=np.uint8).reshape(1, 1, 24) * 10
    affinities = np.stack([np.tile(raw, (1, 12, 1))] * 3), np.stack([np.tile(raw, (5, 1, 1))] * 3)
    view = View(
        {
            "raw": sections(raw),
            "affinities": affinities,
            "fragments": sections(TRUTH * 10),
            "segmentation": sections(TRUTH * 10),
            "truth": sections(TRUTH),
        },
        Nm.of([40, 4, 4]),
    )
    draw(view, tmp_path / "a.png", "a title")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    panels = np.array_split(pixels[pixels.shape[0] // 4 : -20], 5, axis=1)
    assert all(panel.std() > 10 for panel in panels)
    grey, coloured = panels[0], panels[3]
    assert np.ptp(grey, axis=-1).max() == 0
    assert np.ptp(coloured, axis=-1).max() > 50


def test_a_picture_needs_neither_raw_nor_truth(tmp_path: Path) -> None:
    view = View({"segmentation": sections(TRUTH)}, Nm.of([10, 10, 10]))
    draw(view, tmp_path / "a.png", "a title")
    assert (tmp_path / "a.png").stat().st_size > 1000
