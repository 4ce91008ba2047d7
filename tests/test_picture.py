"""Pictures show what is there: the right planes, aligned, in stable colours."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.geometry import ZYX, Nm, Roi, nanometres
from pipeline.report.mistakes import mistakes, telling_plane
from pipeline.report.panels import DIMMED, Palette, ScaleBar, data_uri, outlines, picture
from pipeline.report.picture import draw
from pipeline.report.sections import Section, common, middle, plane, read_section, window
from pipeline.volume import Volume
from tests.drawn import DIRECT, OFFSET_NM, SIZE_NM, drawn_affinities, drawn_labels, write_volume

SHAPE = (7, 30, 44)
TRUTH = drawn_labels(SHAPE)
BEGIN = ZYX(*(offset // size for offset, size in zip(OFFSET_NM, SIZE_NM, strict=True)))


@pytest.fixture
def volumes(tmp_path: Path) -> dict[str, Volume]:
    raw = np.arange(TRUTH.size, dtype=np.uint32).reshape(SHAPE).astype(np.uint8)
    return {
        "raw": write_volume(tmp_path / "raw", raw, "raw"),
        "affinities": write_volume(
            tmp_path / "affinities", drawn_affinities(TRUTH), "affinities", DIRECT
        ),
        "segmentation": write_volume(
            tmp_path / "segmentation", TRUTH * np.uint64(7), "segmentation"
        ),
        "truth": write_volume(tmp_path / "truth", TRUTH, "labels"),
    }


@pytest.mark.parametrize(("axis", "name"), [(0, "xy"), (1, "zx"), (2, "zy")])
def test_a_section_is_a_plane_of_every_volume(
    volumes: dict[str, Volume], axis: int, name: str
) -> None:
    roi = volumes["truth"].roi
    section = read_section(volumes, plane(roi, middle(roi), axis), axis)
    assert section.name == name
    index = SHAPE[axis] // 2
    assert np.array_equal(section.images["truth"], np.take(TRUTH, index, axis))
    assert section.images["affinities"].shape == (3, *section.images["truth"].shape)
    sides = [n * size for n, size in zip(SHAPE, SIZE_NM, strict=True)]
    assert section.size_nm == tuple(side for other, side in enumerate(sides) if other != axis)
    assert section.place_nm == (BEGIN[axis] + index) * SIZE_NM[axis]


def test_raw_of_other_voxels_or_another_place_is_left_out(
    volumes: dict[str, Volume], tmp_path: Path
) -> None:
    region = volumes["truth"].roi
    assert common(volumes, region) == (volumes, region)
    elsewhere = region.shift(region.shape)
    kept, covered = common({**volumes, "raw": moved(volumes["raw"], elsewhere)}, region)
    assert list(kept) == ["affinities", "segmentation", "truth"]
    assert covered == region


def moved(volume: Volume, roi: Roi) -> Volume:
    size = volume.spec.voxel_size_nm
    spec = replace(volume.spec, offset_nm=nanometres(roi.begin, size))
    return Volume(volume.path, volume._array, spec)


@pytest.mark.parametrize(
    ("centre", "begin", "shape"),
    [
        ((50, 500, 500), (48, 490, 490), (4, 20, 20)),
        ((0, 0, 999), (0, 0, 980), (4, 20, 20)),
    ],
)
def test_a_window_is_a_cube_in_nm_inside_its_region(
    centre: ZYX, begin: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    found = window(centre, Roi((0, 0, 0), (100, 1000, 1000)), Nm.of([40, 8, 8]), 20)
    assert found == Roi(begin, shape)


def test_a_window_larger_than_its_region_is_the_region() -> None:
    inside = Roi((5, 5, 5), (1, 30, 7))
    assert window((5, 20, 8), inside, Nm.of([40, 8, 8]), 100) == Roi((5, 5, 5), (1, 30, 7))


def test_labels_lie_over_raw_and_their_colours_are_those_of_the_truth(
    volumes: dict[str, Volume],
) -> None:
    roi = volumes["truth"].roi
    section = read_section(volumes, plane(roi, middle(roi), 0), 0)
    palette = Palette.of([section])
    truth, segments = (picture(section, name, palette) for name in ("truth", "segmentation"))
    assert np.array_equal(truth, segments)
    assert set(np.unique(truth[..., 3])) <= set(range(1, 255))
    grey = picture(section, "raw", palette)
    assert grey.min() == 0
    assert grey.max() == 255


def test_labels_beside_the_point_are_dimmed() -> None:
    labels = np.array([[1, 1, 1, 2, 2, 2]] * 6, np.uint64)
    section = Section(0, Roi((0, 0, 0), (1, 6, 6)), Nm.of([8, 8, 8]), {"truth": labels})
    cover = picture(section, "truth", Palette.of([section]), only={2})[..., 3]
    assert (cover[:, :3] == DIMMED).all()
    assert (cover[:, 3:] > DIMMED).all()


def test_fragments_of_one_section_each_have_no_outlines_across_sections() -> None:
    labels = np.arange(30, dtype=np.uint64).reshape(6, 5).repeat(4, axis=1)
    edges = outlines(labels)
    assert edges[:, 3::4][:, :-1].all()
    assert not edges[:, 1::4].any()


def test_a_picture_in_a_page_is_a_png_of_the_same_pixels() -> None:
    image = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
    head, _, text = data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as read:
        assert np.array_equal(np.asarray(read), image)


@pytest.mark.parametrize(
    ("width", "length", "label"),
    [(2500, 500, "500 nm"), (4000, 1000, "1 µm"), (100, 20, "20 nm"), (1e5, 2e4, "20 µm")],
)
def test_scale_bars_have_round_lengths(width: float, length: float, label: str) -> None:
    assert ScaleBar.within(width) == ScaleBar(length, label)


def test_the_telling_plane_shows_most_of_the_smaller_part() -> None:
    first, second = np.zeros((2, 8, 9, 10), bool)
    first[1:7, :5, :] = True
    second[4, 5:, 2:6] = True
    second[5, 5, 2] = True
    assert telling_plane(first, second, Nm.of([8, 8, 8])) == (0, 4)


def entry(whole: str, part: str, numbers: tuple[int, int, int], box: Roi) -> Mapping[str, object]:
    """One of ``objects.json``, of an object in two parts."""
    named, *parts = numbers
    place = {"box_vx": [list(box.begin), list(box.end)]}
    return {
        whole: named, f"num_{part}": 2, "voi": 0.5, "voxels": 90, **place,
        "largest": [{part: number, "voxels": 45, **place} for number in parts],
    }  # fmt: skip


def test_a_mistake_is_shown_where_its_parts_come_together(tmp_path: Path) -> None:
    truth = np.full(SHAPE, 3, np.uint64)
    segments = np.full(SHAPE, 5, np.uint64)
    segments[:, :, 22:] = 6
    merged = np.full(SHAPE, 9, np.uint64)
    volumes = {
        "segmentation": write_volume(tmp_path / "s", segments, "segmentation"),
        "truth": write_volume(tmp_path / "t", truth, "labels"),
    }
    box = volumes["truth"].roi
    (split,) = mistakes("splits", [entry("truth", "segment", (3, 5, 6), box)], volumes, box)
    assert set(np.unique(split.section.images["segmentation"])) == {5, 6}
    assert split.shown == {"truth": {3}, "segmentation": {5, 6}}
    volumes = {
        "segmentation": write_volume(tmp_path / "m", merged, "segmentation"),
        "truth": write_volume(tmp_path / "u", segments, "labels"),
    }
    (merge,) = mistakes("merges", [entry("segment", "truth", (9, 5, 6), box)], volumes, box)
    assert set(np.unique(merge.section.images["truth"])) == {5, 6}
    assert merge.shown == {"segmentation": {9}, "truth": {5, 6}}


def test_a_picture_has_a_panel_for_each_volume_and_none_is_blank(
    volumes: dict[str, Volume], tmp_path: Path
) -> None:
    roi = volumes["truth"].roi
    sections = [read_section(volumes, plane(roi, middle(roi), axis), axis) for axis in (0, 1)]
    draw(sections, tmp_path / "a.png", "a title")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    panels = np.array_split(pixels[pixels.shape[0] // 4 : -20], 4, axis=1)
    assert all(panel.std() > 10 for panel in panels)
    grey, coloured = panels[0], panels[2]
    assert np.ptp(grey, axis=-1).max() == 0
    assert np.ptp(coloured, axis=-1).max() > 50


def test_a_picture_needs_neither_raw_nor_truth(tmp_path: Path) -> None:
    section = Section(
        0, Roi((0, 0, 0), (1, 30, 44)), Nm.of([10, 10, 10]), {"segmentation": TRUTH[3]}
    )
    draw([section], tmp_path / "a.png", "a title")
    assert (tmp_path / "a.png").stat().st_size > 1000
