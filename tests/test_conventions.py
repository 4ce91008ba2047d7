"""Every convention is what its program computes, and says what it counts."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given

from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.conventions import CONVENTIONS, all_scores
from pipeline.evaluate.scores import HEADLINE, Scores
from tests import score_oracles
from tests.test_scores import counts, patches, seeds, shapes


def scores_of(segments: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, float | None]]:
    named = all_scores(Contingency.count(segments, truth))["conventions"]
    return {name: convention["scores"] for name, convention in named.items()}


@given(shapes, counts, counts, seeds)
def test_conventions_are_those_of_their_definitions(shape, num_segments, num_objects, seed):
    rng = np.random.default_rng(seed)
    segments, truth = patches(rng, shape, num_segments), patches(rng, shape, num_objects)
    assume((segments[truth > 0] > 0).any())
    found, expected = scores_of(segments, truth), score_oracles.conventions(segments, truth)
    assert found.keys() == expected.keys() == CONVENTIONS.keys()
    for name, scores in expected.items():
        # A score is the root of a product: near 0 it keeps half of the digits.
        assert found[name] == pytest.approx(scores, abs=1e-7), name


def test_the_headline_is_the_first_convention():
    rng = np.random.default_rng(2)
    table = Contingency.count(*rng.integers(0, 5, (2, 4, 5, 6)).astype(np.uint64))
    scores = all_scores(table)
    assert scores["convention"] == HEADLINE == next(iter(CONVENTIONS))
    same = scores["conventions"][HEADLINE]["scores"]
    assert {name: scores[name] for name in same} == same
    assert Scores.of(table).as_dict().items() <= scores.items()


def test_conventions_differ_where_0_does():
    truth = np.array([0, 0, 1, 1, 1, 1, 2, 2, 2, 2], np.uint64)
    segments = np.array([5, 5, 5, 5, 0, 0, 6, 6, 6, 6], np.uint64)
    found = scores_of(segments, truth)
    assert found["scikit-image"]["voi_split"] == found["cremi"]["voi_split"] == 0.5
    assert found["gala"]["voi_split"] == 0
    # Of 12 + 12 ordered pairs of two voxels in objects, 4 + 12 stay together.
    assert found["scikit-image"]["arand"] == pytest.approx(1 - 2 * 16 / (16 + 24))
    # Of 16 + 16 with self-pairs, 4 + 16 and the two of ten voxels without a segment.
    assert found["gala"]["arand"] == pytest.approx(1 - 2 * 20.2 / (20.2 + 32))
    assert found["funlib"]["rand_split"] == pytest.approx(24 / 32)
    assert found["funlib"]["rand_merge"] == 1
    assert found["natural logarithm"]["voi_split"] == pytest.approx(0.5 * math.log(2))
    assert found["natural logarithm"]["arand"] == found["scikit-image"]["arand"]


@pytest.mark.parametrize("truth", [0, 3])
def test_a_score_that_a_convention_does_not_define_is_none(truth):
    found = scores_of(np.zeros((2, 3, 4), np.uint64), np.full((2, 3, 4), truth, np.uint64))
    assert found["gala"]["voi"] is None
    assert (found["scikit-image"]["voi"] is None) == (truth == 0)
    assert (found["cremi"]["cremi_score"] is None) == (truth == 0)
    json.dumps(found, allow_nan=False)


def test_every_convention_says_what_it_counts():
    for name, convention in all_scores(Contingency.count(*np.ones((2, 9), np.uint64)))[
        "conventions"
    ].items():
        assert set(convention["definition"]) == {"truth 0", "segment 0", "voi", "rand"}, name
        assert all(convention["definition"].values()), name
