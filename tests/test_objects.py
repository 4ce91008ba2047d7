"""Overlaps join like counts do, and the parts of objects sum to the scores."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.objects import Parts, worst_objects
from pipeline.evaluate.overlaps import Overlaps
from pipeline.evaluate.scores import Scores
from pipeline.geometry import ZYX, Nm
from pipeline.graph import Assignment
from tests import oracles, score_oracles
from tests.test_tiling import assert_equal_tables, drawn_ids, tilings

SIZE = Nm.of(["40", "4.04", "4.04"])


def table_of(expected: dict[oracles.Edge, score_oracles.Overlap]) -> Overlaps:
    pairs = np.array(list(expected), np.uint64).reshape(-1, 2)
    return Overlaps(
        pairs[:, 0],
        pairs[:, 1],
        np.array([overlap.voxels for overlap in expected.values()], np.uint64),
        np.array([overlap.begin for overlap in expected.values()], np.int64).reshape(-1, 3),
        np.array([overlap.end for overlap in expected.values()], np.int64).reshape(-1, 3),
    )


@given(tilings(), st.sampled_from((1, 4, 30)), st.integers(0, 3))
def test_overlaps_do_not_depend_on_the_tiling(tiling, distinct, shift):
    segments = drawn_ids(tiling, distinct)
    truth = np.roll(drawn_ids(tiling, 1 + distinct // 2), shift, axis=2)
    _, blocks = tiling.blocks(ZYX(0, 0, 0), ZYX(0, 0, 0))
    found = Overlaps.sum_of(
        Overlaps.count(segments[index], truth[index], block.write.begin)
        for block in blocks
        for index in [tiling.index(block.write)]
    )
    assert_equal_tables(found, table_of(score_oracles.overlaps(segments, truth, tiling.begin)))
    assert_equal_tables(found.contingency, Contingency.count(segments, truth))

    ids = np.unique(segments[segments > 0])
    assignment = Assignment(ids, tiling.rng().permutation(ids) % np.uint64(5))
    assert_equal_tables(
        found.relabel(assignment),
        Overlaps.count(assignment.apply(segments), truth, tiling.begin),
    )


def test_no_overlaps_are_a_table_too():
    nothing = Overlaps.sum_of([])
    assert len(nothing) == 0
    assert_equal_tables(Overlaps.sum_of([nothing, nothing]), nothing)
    assert worst_objects(nothing, SIZE, 9, 9) == {"splits": [], "merges": []}
    assert len(Parts.among(nothing, "truth")) == 0


@given(tilings(), st.sampled_from((1, 4, 30)), st.integers(0, 3))
def test_parts_of_objects_sum_to_the_scores(tiling, distinct, shift):
    segments = drawn_ids(tiling, distinct)
    truth = np.roll(drawn_ids(tiling, 1 + distinct // 2), shift, axis=2)
    truth[0, 0, 0] = 1
    overlaps = Overlaps.count(segments, truth)
    scores = Scores.of(overlaps.contingency)
    for side, expected, labels in (
        ("truth", scores.voi_split, truth),
        ("segment", scores.voi_merge, segments),
    ):
        parts = Parts.among(overlaps, side)
        assert parts.voi.sum() == pytest.approx(expected, abs=1e-9)
        assert parts.voxels.sum() == scores.num_voxels
        assert (np.diff(parts.voi) <= 0).all(), "worst first"
        assert (parts.voi[parts.partners == 1] == 0).all(), "no error without a second partner"
        known = np.where(truth > 0, labels, 2**63 + 1)
        for row, label in enumerate(parts.ids):
            places = np.argwhere((known == label) & (truth > 0))
            assert parts.begin[row].tolist() == places.min(0).tolist()
            assert parts.end[row].tolist() == (places.max(0) + 1).tolist()


def test_the_worst_split_and_merge_are_named_with_their_places():
    truth = np.repeat(np.array([9, 8, 0], np.uint64), [8, 4, 4]).reshape(1, 1, 16)
    segments = np.repeat(np.array([1, 2, 3], np.uint64), [3, 9, 4]).reshape(1, 1, 16)
    found = worst_objects(Overlaps.count(segments, truth, (5, 6, 10)), SIZE, 3, 1)
    (split,), (merge,) = found["splits"], found["merges"]
    assert (split["truth"], split["voxels"], split["num_segment"]) == (9, 8, 2)
    assert split["box_vx"] == [[5, 6, 10], [6, 7, 18]]
    assert split["roi_nm"] == {"offset": [200, 24.24, 40.4], "shape": [40, 4.04, 32.32]}
    assert [each["segment"] for each in split["largest"]] == [2]
    assert split["largest"][0]["box_vx"] == [[5, 6, 13], [6, 7, 18]]
    assert (merge["segment"], merge["voxels"], merge["num_truth"]) == (2, 9, 2)
    assert [each["truth"] for each in merge["largest"]] == [9]
    scores = Scores.of(Contingency.count(segments, truth))
    assert (split["voi"], merge["voi"]) == pytest.approx((scores.voi_split, scores.voi_merge))
    json.dumps(found)


def test_equal_parts_are_in_the_order_of_ids():
    truth = np.repeat(np.array([7, 3, 5], np.uint64), 4).reshape(1, 3, 4)
    segments = np.arange(1, 13, dtype=np.uint64).reshape(1, 3, 4)
    assert Parts.among(Overlaps.count(segments, truth), "truth").ids.tolist() == [3, 5, 7]
