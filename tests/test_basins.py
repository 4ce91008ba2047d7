"""Where water runs, drawn; and the same as an independent twin on whole volumes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.segment.basins import Seams, basins, resolve
from tests import oracles


def drawn(rows: str) -> np.ndarray:
    """Heights of one section from a drawing of digits."""
    return np.array([[[int(c) for c in row.split()] for row in rows.strip().split("\n")]], "u2")


def whole(heights: np.ndarray, valid: np.ndarray | None = None, in_plane: bool = False):
    """Labels of a volume in one block, which leaves no seams."""
    everything = tuple(slice(0, n) for n in heights.shape)
    mask = np.ones(heights.shape, bool) if valid is None else valid
    labels, seams = basins(heights, mask, everything, (0, 0, 0), heights.shape, in_plane)
    assert not any(len(column) for column in seams.columns().values())
    return labels


def test_a_ridge_parts_two_basins_named_after_their_lowest_voxels():
    # The ridge itself belongs to its lower side.
    labels = whole(drawn("2 1 3 9 4 0 2"))
    assert labels.tolist() == [[[2, 2, 2, 2, 6, 6, 6]]]


def test_of_two_equally_low_neighbours_the_first_is_taken():
    labels = whole(drawn("1 5 1"))
    assert labels.tolist() == [[[1, 1, 3]]]


def test_a_flat_bottom_is_one_basin_named_after_its_first_voxel():
    labels = whole(drawn("9 2 2\n2 2 9"))
    assert (labels == 2).all()


def test_a_plateau_drains_as_a_whole_at_its_first_outlet():
    # Sevens without a lower neighbour follow the first seven that has one.
    labels = whole(drawn("0 7 7 7 7 7 1"))
    assert labels.tolist() == [[[1, 1, 1, 1, 1, 7, 7]]]


def test_the_first_outlet_is_that_with_the_smallest_index_wherever_it_is_seen_first():
    # The first five of the plateau, in row 1, sees the outlet below it; the second sees the one
    # above, which comes first in the volume and leads to the 0 of row 0.
    labels = whole(drawn("9 5 0\n5 5 9\n5 9 9\n0 9 9"))
    assert labels[0, 1, :2].tolist() == [3, 3]
    assert labels[0, 2, 0] == 10


def test_sections_are_separate_in_plane_and_joined_in_three_dimensions():
    heights = np.array([[[3, 4]], [[2, 1]]], np.uint16)
    assert whole(heights, in_plane=True).tolist() == [[[1, 1]], [[4, 4]]]
    assert whole(heights).tolist() == [[[4, 4]], [[4, 4]]]


def test_voxels_that_are_not_valid_part_what_they_lie_between():
    labels = whole(drawn("3 2 1 0"), np.array([[[True, True, False, True]]]))
    assert labels.tolist() == [[[2, 2, 0, 4]]]


def test_linear_indices_go_far_beyond_32_bits():
    labels, _ = basins(
        np.array([[[5, 3, 4]]], np.uint16),
        np.ones((1, 1, 3), bool),
        (slice(0, 1), slice(0, 1), slice(0, 3)),
        (2**20, 5, 7),
        (2**20 + 1, 2**20, 2**20),
        False,
    )
    place = (2**20 * 2**20 + 5) * 2**20 + 8
    assert np.unique(labels).tolist() == [place + 1]


def test_blocks_without_voxels_resolve_to_nothing():
    assert len(resolve([Seams.none(), Seams.none()])) == 0


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 11)),
    st.sampled_from((1, 2, 3, 4, 10, 1000)),
    st.sampled_from((1.0, 0.9, 0.5)),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_basins_are_those_of_the_twin(shape, levels, share, in_plane, seed):
    rng = np.random.default_rng(seed)
    heights = rng.integers(0, levels, shape).astype(np.uint16)
    valid = rng.random(shape) < share
    expected = oracles.watershed(heights, valid, in_plane).labels
    assert np.array_equal(whole(heights, valid, in_plane), expected)
    assert np.array_equal(expected > 0, valid)
