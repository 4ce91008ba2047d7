"""Heights are a smoothed boundary, and fragments their basins."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import Nm
from pipeline.segment.fragments import FragmentRule, boundary, fragments, heights
from tests import oracles

shapes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 9))


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, *shape)).astype(np.uint8)


def smoothed(values: np.ndarray, sigma: tuple[float, ...]) -> np.ndarray:
    """A Gaussian, weight by weight in float64; the border is continued."""
    radius = [int(4 * s + 0.5) for s in sigma]
    found = np.zeros(values.shape)
    weights = 0.0
    for step in product(*(range(-r, r + 1) for r in radius)):
        weight = np.exp(-sum(0.5 * (d / s) ** 2 for d, s in zip(step, sigma, strict=True) if s > 0))
        places = [
            np.clip(np.arange(n) + d, 0, n - 1) for n, d in zip(values.shape, step, strict=True)
        ]
        found += weight * values[np.ix_(*places)]
        weights += weight
    return found / weights


@given(shapes, st.booleans(), st.integers(0, 2**32))
def test_the_boundary_is_the_mean_over_the_pairs_on_both_sides(shape, per_section, seed):
    affinities = noise(shape, seed)
    expected = oracles.boundary(affinities, per_section)
    assert np.array_equal(boundary(affinities, (0, 0, 0), per_section), expected)


def test_what_is_stored_at_the_rim_is_never_read():
    # The pair of a voxel in the first plane lies outside: its value must not matter.
    affinities = noise((3, 4, 5), 1)
    changed = affinities.copy()
    for axis in range(3):
        np.moveaxis(changed[axis], axis, 0)[0] ^= 255
    rule = FragmentRule(Nm.of([10, 10, 10]), per_section=False)
    assert np.array_equal(fragments(affinities, rule), fragments(changed, rule))


@pytest.mark.parametrize(
    ("size", "per_section"), [((10, 10, 10), False), ((40, 9, 8), False), ((40, 8, 8), True)]
)
def test_heights_are_the_mixture_of_two_gaussians_in_1023_steps(size, per_section):
    affinities = noise((5, 8, 9), 2)
    rule = FragmentRule(Nm.of(size), per_section, narrow_nm=7.5, wide_nm=14.0, wide_share=0.3)
    raw = oracles.boundary(affinities, per_section).astype(np.float64)
    z = 0.0 if per_section else 1.0
    narrow, wide = (smoothed(raw, (z * s / size[0], s / size[1], s / size[2])) for s in (7.5, 14.0))
    expected = np.rint(1023 * (0.7 * narrow + 0.3 * wide))
    found = heights(affinities, (0, 0, 0), rule).astype(np.float64)
    # float32 and float64 may round a half to different sides.
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.01


@given(shapes, st.sampled_from((0.0, 7.5)), st.sampled_from((0.0, 12.0)), st.integers(0, 2**32))
def test_per_section_a_volume_is_its_sections_one_by_one(shape, narrow_nm, wide_nm, seed):
    affinities = noise(shape, seed)
    rule = FragmentRule(Nm.of([40, 8, 8]), True, narrow_nm, wide_nm)
    found = fragments(affinities, rule)
    for z in range(shape[0]):
        alone = fragments(affinities[:, z : z + 1], rule)
        assert np.array_equal(found[z], alone[0] + np.uint64(z * shape[1] * shape[2]))


def test_the_halo_is_the_reach_of_the_wider_gaussian_and_of_the_watershed():
    rule = FragmentRule(Nm.of([40, 8, 10]), per_section=False, narrow_nm=7.5, wide_nm=30)
    assert rule.halo_below_vx == (3 + 2, 15 + 2, 12 + 2)
    assert rule.halo_above_vx == (6, 18, 15)
    in_plane = FragmentRule(Nm.of([40, 8, 10]), per_section=True, narrow_nm=0, wide_nm=0)
    assert in_plane.halo_below_vx == (0, 2, 2)
    assert in_plane.halo_above_vx == (0, 3, 3)


def test_two_cells_are_two_fragments_and_the_mask_is_background():
    # One row of pairs: strong, a membrane between the fourth and the fifth voxel, strong.
    affinities = np.zeros((3, 1, 1, 8), np.uint8)
    affinities[2, 0, 0] = [0, 250, 255, 240, 10, 250, 255, 255]
    rule = FragmentRule(Nm.of([10, 10, 10]), per_section=False, narrow_nm=0, wide_nm=0)
    found = fragments(affinities, rule)[0, 0]
    assert len(np.unique(found[:4])) == len(np.unique(found[4:])) == 1
    assert found[0] != found[7]
    valid = np.ones((1, 1, 8), bool)
    valid[0, 0, 2] = False
    assert (fragments(affinities, rule, valid)[0, 0] == 0).tolist() == [
        *[False, False, True],
        *[False] * 5,
    ]
