"""Affinities relate ``v`` and ``v + offset``, and say nothing where the partner does not exist."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import Offsets
from pipeline.segment.affinities import (
    affinities_from_interior,
    affinities_from_labels,
    pair_slices,
)
from tests import oracles

DIRECT = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
long_offsets = st.lists(
    st.tuples(*(st.integers(-9, 9),) * 3).filter(lambda o: any(o) and o not in DIRECT),
    unique=True,
    max_size=4,
)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 8))
seeds = st.integers(0, 2**32)


@given(shapes, long_offsets, seeds)
def test_affinities_of_labels_are_those_of_every_pair(shape, more, seed):
    labels = np.random.default_rng(seed).integers(0, 4, shape)
    offsets = Offsets.of([*DIRECT, *more])
    found = affinities_from_labels(labels, offsets)
    assert found.dtype == np.uint8
    for channel, offset in enumerate(offsets.vectors):
        for voxel in oracles.voxels(shape):
            partner = oracles.plus(voxel, offset)
            same = oracles.is_in(partner, shape) and labels[voxel] == labels[partner] > 0
            assert found[(channel, *voxel)] == (255 if same else 0)


@given(shapes, long_offsets, seeds)
def test_affinities_of_an_interior_map_are_the_smaller_probability(shape, more, seed):
    interior = np.random.default_rng(seed).random(shape).astype(np.float32)
    offsets = Offsets.of([*DIRECT, *more])
    found = affinities_from_interior(interior, offsets)
    for channel, offset in enumerate(offsets.vectors):
        for voxel in oracles.voxels(shape):
            partner = oracles.plus(voxel, offset)
            if oracles.is_in(partner, shape):
                expected = round(255 * float(min(interior[voxel], interior[partner])))
                assert abs(int(found[(channel, *voxel)]) - expected) <= 1
            else:
                assert found[(channel, *voxel)] == 0


def test_a_value_is_stored_at_the_higher_voxel_of_its_pair():
    found = affinities_from_labels(np.array([[[1, 1, 2, 2, 2, 0, 0]]]), Offsets())
    assert found[2].tolist() == [[[0, 255, 0, 255, 255, 0, 0]]]
    assert not found[:2].any()


def test_an_offset_longer_than_the_array_has_no_pairs():
    here, there = pair_slices((0, 9, -9), (2, 4, 4))
    empty = np.zeros((2, 4, 4))
    assert empty[here].shape == empty[there].shape == (2, 0, 0)
