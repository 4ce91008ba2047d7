"""Colours of labels: the same in every panel, neighbours apart, for any kind of colour vision."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from pipeline.report.colours import (
    GREY,
    PALETTE,
    SHADES,
    colour_tables,
    colours,
    neighbours_in,
    object_colours,
    part_colours,
    shaded,
    smallest_last,
    spread,
)
from tests.drawn import drawn_labels

# Machado, Oliveira and Fernandes (2009): what people without one kind of cones see, in linear RGB.
VISION = {
    "all cones": np.eye(3),
    "no long-wave cones": np.array(
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    ),
    "no middle-wave cones": np.array(
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    ),
    "no short-wave cones": np.array(
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]
    ),
}


def planes(volume: np.ndarray) -> list[np.ndarray]:
    return [np.take(volume, side // 2, axis) for axis, side in enumerate(volume.shape)]


@pytest.mark.parametrize("vision", VISION)
def test_colours_of_the_palette_differ_for_any_kind_of_vision(vision: str) -> None:
    unit = PALETTE / 255.0
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    seen = (linear @ VISION[vision].T).clip(0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
    distance = deltaE_ciede2000(lab[:, None], lab[None])
    assert distance[np.triu_indices(len(PALETTE), 1)].min() > 9


def test_an_object_has_one_colour_of_the_palette_and_background_is_black() -> None:
    labels = drawn_labels((9, 60, 70))
    table = object_colours(planes(labels))
    assert {tuple(rgb) for rgb in table.rgb.tolist()} <= {tuple(rgb) for rgb in PALETTE.tolist()}
    assert np.array_equal(table.of(np.array([0, 2**63], np.uint64)), np.zeros((2, 3)))
    assert np.array_equal(table.rgb, object_colours(planes(labels)).rgb)


@pytest.mark.parametrize("seed", range(4))
def test_objects_beside_each_other_differ_in_colour(seed: int) -> None:
    sections = planes(drawn_labels((9, 60, 70), seed))[:1]
    table = object_colours(sections)
    pairs = [(a, b) for a, near in enumerate(neighbours_in(sections, table.ids)) for b in near]
    assert len(pairs) > 50
    alike = [pair for pair in pairs if np.array_equal(*table.rgb[list(pair)])]
    assert not alike


def test_ids_beyond_the_integers_of_a_float_keep_their_own_colours() -> None:
    large = 2**63 + np.arange(1, 5, dtype=np.uint64)
    table = object_colours([np.repeat(large, 4)[None]])
    assert table.ids.tolist() == large.tolist()
    assert len(np.unique(table.of(large), axis=0)) == 4


def test_the_largest_part_of_an_object_has_its_colour_and_the_others_shades() -> None:
    wholes = [np.array([[1, 1, 1, 1, 1, 1, 2, 2, 0, 0]], np.uint64)]
    parts = [np.array([[7, 7, 7, 8, 8, 9, 9, 9, 4, 4]], np.uint64)]
    objects = object_colours(wholes)
    table = part_colours(parts, wholes, objects)
    assert table.ids.tolist() == [4, 7, 8, 9]
    one, two = objects.rgb
    assert np.array_equal(table.rgb[[1, 3]], [one, two])
    assert np.array_equal(table.rgb[0], GREY)
    assert any(
        np.array_equal(table.rgb[2], shaded(one[None], np.array([s]))[0]) for s in SHADES[1:]
    )


def test_parts_beside_each_other_in_one_object_differ_in_shade() -> None:
    whole = np.ones((1, 40), np.uint64)
    parts = np.repeat(np.arange(1, 11, dtype=np.uint64), 4)[None]
    table = part_colours([parts], [whole], object_colours([whole]))
    assert (np.abs(np.diff(table.rgb.astype(int), axis=0)).max(axis=1) > 20).all()


def test_without_truth_fragments_have_shades_of_their_segments() -> None:
    segments = [np.array([[5, 5, 5, 6]], np.uint64)]
    tables = colour_tables({"segmentation": segments, "fragments": [segments[0] * np.uint64(10)]})
    assert np.array_equal(tables["fragments"].rgb, tables["segmentation"].rgb)
    assert colour_tables({}) == {}


def test_a_planar_graph_needs_no_more_than_six_colours() -> None:
    # A wheel: the hub touches every node of the rim, so a bad order needs many.
    rim = 30
    neighbours = [[(n - 1) % rim, (n + 1) % rim, rim] for n in range(rim)] + [list(range(rim))]
    order = smallest_last(neighbours)
    assert sorted(order) == list(range(rim + 1))
    earlier = [len(set(near) & set(order[: order.index(n)])) for n, near in enumerate(neighbours)]
    assert max(earlier) <= 5
    chosen = spread(neighbours, order, np.zeros(rim + 1, int), 6)
    assert all(chosen[n] != chosen[m] for n, near in enumerate(neighbours) for m in near)


def test_an_id_has_one_colour_in_pictures_of_many_steps() -> None:
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
