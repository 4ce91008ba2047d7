"""The border mask is CREMI's, by SciPy's exact distance transform, and no tiling shows in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.border import Border
from pipeline.geometry import NO_HALO, ZYX, Nm
from tests import score_oracles
from tests.test_tiling import SIZES_NM, drawn_ids, tilings

distances_nm = st.one_of(
    st.sampled_from((0.5, 4.04, 8, 10, 12, 20.2, 25, 30, 60)), st.floats(0.125, 90, width=16)
)


@given(tilings(longest=(2, 9, 12)), st.sampled_from(SIZES_NM), distances_nm, st.integers(1, 4))
def test_borders_are_those_of_the_distance_transform_for_any_tiling(
    tiling, size, border_nm, distinct
):
    truth, voxel_size = drawn_ids(tiling, distinct), Nm.of(size)
    border = Border.of(border_nm, voxel_size)
    _, blocks = tiling.blocks(border.halo_vx, border.halo_vx)
    found = np.full_like(truth, 7)
    for block in blocks:
        read = truth[tiling.index(block.read)]
        found[tiling.index(block.write)] = border.blanked(read)[block.inner]
    near = score_oracles.near_border(truth, border_nm, [float(side) for side in voxel_size])
    assert np.array_equal(found, np.where(near, np.uint64(0), truth))


def test_no_distance_leaves_nothing_out():
    border = Border.of(0.0, Nm.of([40, 4, 4]))
    truth = np.arange(24, dtype=np.uint64).reshape(2, 3, 4)
    assert border.halo_vx == NO_HALO
    assert border.blanked(truth) is truth


def test_a_distance_is_compared_exactly():
    truth = np.ones((1, 1, 20), np.uint64)
    truth[..., 10:] = 2
    voxel_size = Nm.of(["40", "4.04", "4.04"])
    within = Border.of(20.2, voxel_size)  # five voxels
    short = Border.of(20.19, voxel_size)
    assert within.halo_vx == ZYX(0, 6, 6)
    assert np.flatnonzero(within.blanked(truth) == 0).tolist() == list(range(4, 16))
    assert np.flatnonzero(short.blanked(truth) == 0).tolist() == list(range(5, 15))


def test_a_border_is_within_a_section_and_not_the_edge_of_the_volume():
    truth = np.ones((2, 6, 7), np.uint64)
    truth[1] = 2
    assert np.array_equal(Border.of(50.0, Nm.of([1, 4, 4])).blanked(truth), truth)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint64])
def test_labels_keep_their_type(dtype):
    truth = np.repeat(np.array([[[1, 2]]], dtype), 4, axis=2)
    found = Border.of(1.0, Nm.of([40, 4, 4])).blanked(truth)
    assert found.dtype == dtype
    assert found.tolist() == [[[1, 1, 1, 0, 0, 2, 2, 2]]]
