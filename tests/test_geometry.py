"""Places are exact, and blocks partition their volume."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, LayoutError, MetadataError, RoiError
from pipeline.geometry import (
    ZYX,
    BlockGrid,
    Nm,
    Offsets,
    Roi,
    checked_voxel_size,
    nanometres,
    slices,
    voxels,
)

small = st.integers(1, 6)
triples = st.tuples(small, small, small)
places = st.tuples(*(st.integers(-30, 30),) * 3)
halos = st.tuples(*(st.integers(0, 9),) * 3)
lengths = st.decimals("0.0001", 5000, places=4)


@given(places, st.tuples(*(st.integers(1, 13),) * 3), triples, halos, halos)
def test_blocks_write_every_voxel_once_and_read_no_voxel_that_does_not_exist(
    begin, shape, block_vx, below, above
):
    grid = BlockGrid(Roi(begin, shape), ZYX.of(block_vx), ZYX.of(below), ZYX.of(above))
    written = np.zeros(shape, int)
    for index, block in enumerate(grid):
        assert block.index == index == grid.index_at(block.write.begin)
        written[slices(block.write, begin)] += 1
        for axis in range(3):
            low, high = begin[axis], begin[axis] + shape[axis]
            assert block.read.begin[axis] == max(low, block.write.begin[axis] - below[axis])
            assert block.read.end[axis] == min(high, block.write.end[axis] + above[axis])
        read = np.zeros(block.read.shape, bool)
        read[block.inner] = True
        assert np.argwhere(read)[0].tolist() == list(block.write.begin - block.read.begin)
        assert read.sum() == block.write.size
    assert (written == 1).all()
    assert len(grid) == index + 1


@given(st.tuples(*(st.integers(-(10**9), 10**9),) * 3), st.tuples(lengths, lengths, lengths))
def test_voxels_and_nanometres_are_two_names_of_one_place(place, size):
    voxel_size = checked_voxel_size(size, "here")
    assert voxels(nanometres(place, voxel_size), voxel_size, "a place") == place


def test_lengths_are_the_decimals_that_were_written():
    size = Nm.of([4.04, "4.04", 40])
    assert size == (Decimal("4.04"), Decimal("4.04"), Decimal(40))
    assert size.numbers() == [4.04, 4.04, 40]
    assert voxels(Nm.of(["404.0", "4.04", 80]), size, "a place") == (100, 1, 2)


def test_a_place_between_voxels_is_refused_with_the_nearest_one():
    with pytest.raises(RoiError, match=r"found \(11, 8, 4\) nm\nThe nearest is \(12, 8, 4\) nm"):
        voxels(Nm.of([11, 8, 4]), Nm.of([4, 4, 4]), "a place")


@pytest.mark.parametrize("size", [[0, 4, 4], [-4, 4, 4], [4, 4], ["nan", 4, 4], ["wide", 4, 4]])
def test_a_voxel_size_that_is_none_is_refused(size):
    with pytest.raises(MetadataError):
        checked_voxel_size(size, "here")


@pytest.mark.parametrize(
    "vectors",
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 0, -1], [0, -1, 0], [-1, 0, 0]],
        [[-1, 0, 0], [0, -1, 0]],
        [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, -1]],
        [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, 0]],
        [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0.5, 0]],
        [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 9]],
    ],
)
def test_offsets_that_begin_otherwise_or_repeat_are_refused(vectors):
    with pytest.raises(ConfigError):
        Offsets.of(vectors)


def test_the_halo_of_offsets_is_their_reach_on_each_side():
    offsets = Offsets.of([[-1, 0, 0], [0, -1, 0], [0, 0, -1], [2, -9, 3], [0, 4, -27]])
    assert offsets.halo_below_vx == (1, 9, 27)
    assert offsets.halo_above_vx == (2, 4, 3)
    assert Offsets().halo_above_vx == (0, 0, 0)


def test_a_grid_that_is_none_is_refused():
    with pytest.raises(LayoutError, match="block_vx must be positive"):
        BlockGrid(Roi((0, 0, 0), (4, 4, 4)), ZYX(4, 0, 4))
    with pytest.raises(RoiError, match="must have voxels"):
        BlockGrid(Roi((0, 0, 0), (4, 0, 4)), ZYX(4, 4, 4))
    with pytest.raises(RoiError, match=r"2\^63 - 2 voxels"):
        BlockGrid(Roi((0, 0, 0), (2**21, 2**21, 2**21)), ZYX(4, 4, 4))
