"""Contingency tables add, and scores are those of scikit-image wherever it can run."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from skimage.metrics import adapted_rand_error, variation_of_information

from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.scores import Scores
from pipeline.evaluate.sweep import best_of, sweep
from pipeline.graph import Assignment
from tests import score_oracles

shapes = st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 9))
counts = st.integers(1, 12)
seeds = st.integers(0, 2**32)


def patches(rng: np.random.Generator, shape: tuple[int, ...], distinct: int) -> np.ndarray:
    """Labels from 0 in runs, so that some voxels agree."""
    runs = rng.integers(0, distinct + 1, math.prod(shape)).repeat(rng.integers(1, 6))
    return runs[: math.prod(shape)].reshape(shape).astype(np.uint64)


@given(shapes, counts, counts, seeds)
def test_scores_are_those_of_scikit_image(shape, num_segments, num_objects, seed):
    rng = np.random.default_rng(seed)
    segments, truth = patches(rng, shape, num_segments), patches(rng, shape, num_objects)
    found = Scores.of(Contingency.count(segments, truth))
    here = (truth.astype(np.int64), segments.astype(np.int64))
    with warnings.catch_warnings():
        # It divides by zero where there is no truth, or where no two voxels share a label.
        warnings.simplefilter("error")
        try:
            split, merge = variation_of_information(*here, ignore_labels=(0,))
            error, precision, recall = adapted_rand_error(*here, ignore_labels=(0,))
        except RuntimeWarning:
            assume(False)
    assert found.voi_split == pytest.approx(split, abs=1e-9)
    assert found.voi_merge == pytest.approx(merge, abs=1e-9)
    assert found.voi == pytest.approx(split + merge, abs=1e-9)
    assert found.arand == pytest.approx(error, abs=1e-9)
    # scikit-image returns precision in the place of recall: see `Scores`.
    assert sorted([found.arand_precision, found.arand_recall]) == pytest.approx(
        sorted([precision, recall]), abs=1e-9
    )
    assert found.num_voxels == np.count_nonzero(truth)
    assert found.num_objects == len(np.unique(truth[truth > 0]))
    assert found.num_segments == len(np.unique(segments[truth > 0]))


@given(shapes, counts, seeds)
def test_scores_do_not_depend_on_the_names_of_segments(shape, distinct, seed):
    rng = np.random.default_rng(seed)
    segments, truth = patches(rng, shape, distinct), patches(rng, shape, distinct)
    assume(truth.any())
    names = rng.choice(2**60, distinct + 1, replace=False).astype(np.uint64)
    one = Scores.of(Contingency.count(segments, truth)).as_dict()
    other = Scores.of(Contingency.count(names[segments], truth)).as_dict()
    assert one == pytest.approx(other, abs=1e-12)


@given(shapes, counts, counts, seeds)
def test_a_table_counts_every_pair_of_labels(shape, num_segments, num_objects, seed):
    rng = np.random.default_rng(seed)
    names = rng.integers(0, 2**64, 40, dtype=np.uint64)
    segments = names[patches(rng, shape, num_segments)]
    truth = names[patches(rng, shape, num_objects)]
    table = Contingency.count(segments, truth)
    rows = zip(table.segment.tolist(), table.truth.tolist(), strict=True)
    found = dict(zip(rows, table.voxels.tolist(), strict=True))
    expected = score_oracles.contingency(segments, truth)
    assert found == expected
    assert list(found) == list(expected), "sorted"


def test_a_table_outgrows_its_first_hash_table():
    rng = np.random.default_rng(3)
    segments, truth = rng.integers(0, 2**60, (2, 20, 20, 20), dtype=np.uint64)
    assert len(Contingency.count(segments, truth)) == segments.size
    table = Contingency.count(segments, truth % np.uint64(3))
    rows = zip(table.segment.tolist(), table.truth.tolist(), strict=True)
    assert dict(zip(rows, table.voxels.tolist(), strict=True)) == (
        score_oracles.contingency(segments, truth % np.uint64(3))
    )


def test_split_is_one_object_in_two_segments_and_merge_the_reverse():
    truth, segments = np.array([1, 1, 1, 1], np.uint64), np.array([5, 5, 6, 6], np.uint64)
    split = Scores.of(Contingency.count(segments, truth))
    merge = Scores.of(Contingency.count(truth, segments))
    assert (split.voi_split, split.voi_merge) == (1.0, 0.0)
    assert (merge.voi_split, merge.voi_merge) == (0.0, 1.0)
    assert (split.arand_precision, split.arand_recall) == (1.0, pytest.approx(4 / 12))
    assert (merge.arand_precision, merge.arand_recall) == (pytest.approx(4 / 12), 1.0)


def test_voxels_without_truth_do_not_count_and_background_is_a_segment():
    truth = np.array([0, 0, 0, 7, 7, 7], np.uint64)
    segments = np.array([1, 2, 3, 0, 0, 0], np.uint64)
    found = Scores.of(Contingency.count(segments, truth))
    assert (found.voi, found.arand, found.num_segments, found.num_voxels) == (0.0, 0.0, 1, 3)


def test_without_any_truth_there_is_no_score():
    found = Scores.of(Contingency.count(np.ones(4, np.uint64), np.zeros(4, np.uint64)))
    assert math.isnan(found.voi)
    assert math.isnan(found.arand)
    assert found.num_voxels == 0


def test_where_no_two_voxels_share_a_label_nothing_is_wrong():
    labels = np.arange(1, 9, dtype=np.uint64)
    found = Scores.of(Contingency.count(labels, labels))
    assert (found.voi, found.arand) == (0.0, 0.0)


@given(shapes, counts, counts, seeds)
def test_a_sweep_scores_what_relabelled_voxels_would(shape, num_fragments, num_objects, seed):
    rng = np.random.default_rng(seed)
    fragments, truth = patches(rng, shape, num_fragments), patches(rng, shape, num_objects)
    assume(truth.any())
    ids = np.arange(1, num_fragments + 1, dtype=np.uint64)
    segmentations = [(beta, Assignment(ids, rng.permutation(ids) // 2)) for beta in (0.2, 0.3)]
    found = sweep(Contingency.count(fragments, truth), "beta", segmentations)
    for scores, (beta, segments) in zip(found, segmentations, strict=True):
        counted = Contingency.count(segments.apply(fragments), truth)
        assert scores == {"beta": beta} | Scores.of(counted).as_dict()
    assert best_of(found)["voi"]["voi"] == min(scores["voi"] for scores in found)
    assert best_of(found)["arand"]["arand"] == min(scores["arand"] for scores in found)
