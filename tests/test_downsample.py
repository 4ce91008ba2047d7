"""A coarser voxel shows the label that most of its voxels have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import ZYX, Nm
from pipeline.segment.downsample import halved_axes, most_frequent
from tests import oracles


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 7)),
    st.tuples(*(st.integers(1, 2),) * 3),
    st.integers(1, 6),
    st.integers(0, 2**32),
)
def test_the_most_frequent_label_of_each_window_remains(shape, factors, distinct, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 2**63, distinct).astype(np.uint64)
    labels = rng.choice(ids, shape)
    found = most_frequent(labels, ZYX.of(factors))
    assert found.dtype == np.uint64
    assert np.array_equal(found, oracles.most_frequent(labels, factors))


def test_of_equally_frequent_labels_the_smallest_remains_and_rims_are_cut_short():
    labels = np.array([[[9, 2, 7], [2, 9, 7], [5, 5, 0]]], np.uint64)
    assert most_frequent(labels, ZYX(1, 2, 2)).tolist() == [[[2, 7], [5, 0]]]


@pytest.mark.parametrize(
    ("size", "factors"),
    [
        ((10, 10, 10), (2, 2, 2)),
        ((40, 4, 4), (1, 2, 2)),
        ((40, 16, 16), (1, 2, 2)),
        ((30, 16, 16), (2, 2, 2)),
        (("4.04", "4.04", "4.04"), (2, 2, 2)),
        ((8, 16, 4), (1, 1, 2)),
    ],
)
def test_only_axes_of_fine_voxels_are_halved(size, factors):
    assert halved_axes(Nm.of(size)) == factors
