"""The transformed view of cross-correlation, and how it is turned back."""

from itertools import product

import numpy as np
import pytest
import torch

from pipeline.config import View
from pipeline.train.view import IN_PLACE, Transform, drawn_order, orders, view_of

ALL = [
    Transform(flip, order) for flip in product((False, True), repeat=3) for order in orders("zyx")
]
STILL = {"flip": False, "transpose": "none", "intensity": 0.0, "max_cutouts": 0}


def raw(seed=1, shape=(7, 10, 12)):
    return np.random.default_rng(seed).random(shape, np.float32)


@pytest.mark.parametrize("transform", ALL)
def test_undo_is_the_inverse_of_apply_for_arrays_and_tensors(transform):
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    there = transform.apply(array)
    assert np.array_equal(transform.undo(there), array)
    tensor = torch.from_numpy(array)
    assert np.array_equal(transform.apply(tensor).numpy(), there)
    assert torch.equal(transform.undo(transform.apply(tensor)), tensor)


def test_the_transforms_are_the_group_of_the_cube_and_of_the_square_prism():
    cube = np.arange(27).reshape(3, 3, 3)
    assert len({transform.apply(cube).tobytes() for transform in ALL}) == 48
    flat = [transform for transform in ALL if transform.order in orders("yx")]
    assert len({transform.apply(cube).tobytes() for transform in flat}) == 16
    assert orders("none") == [IN_PLACE]


def test_a_transform_mirrors_before_it_transposes():
    array = np.arange(6).reshape(1, 2, 3)
    turned = Transform((False, True, False), (0, 2, 1)).apply(array)
    assert np.array_equal(turned[0], array[0, ::-1].T)


@pytest.mark.parametrize("transpose", ["yx", "zyx", "none"])
def test_a_view_without_changes_of_intensity_is_the_crop_turned(transpose):
    rule = View.model_validate(STILL | {"flip": True, "transpose": transpose})
    crop, seen = raw(), set()
    for seed in range(400):
        rng = np.random.default_rng(seed)
        view, transform = view_of(crop, rule, drawn_order(rule, rng), rng)
        assert np.array_equal(transform.undo(view), crop)
        seen.add(transform)
    assert len(seen) == {"yx": 16, "zyx": 48, "none": 8}[transpose]


def test_nothing_happens_to_a_view_that_may_not_change():
    crop = raw()
    view, transform = view_of(crop, View.model_validate(STILL), IN_PLACE, np.random.default_rng(1))
    assert np.array_equal(view, crop)
    assert transform == Transform()


def test_intensities_of_a_view_change_section_by_section_and_stay_in_range():
    rule = View.model_validate(STILL | {"intensity": 1.0, "gamma": 0.0, "contrast": 0.5})
    crop = raw()
    before = crop.copy()
    view, _ = view_of(crop, rule, IN_PLACE, np.random.default_rng(1))
    assert np.array_equal(crop, before)
    assert view.min() >= 0
    assert view.max() <= 1
    inner = (view > 0) & (view < 1)
    gains = [np.polyfit(crop[z][inner[z]], view[z][inner[z]], 1)[0] for z in range(len(crop))]
    assert len(set(np.round(gains, 3))) == len(crop)
    assert 0.5 <= min(gains) < max(gains) <= 1.5


def test_cutouts_are_boxes_of_one_size_in_range():
    rule = View.model_validate(
        STILL | {"max_cutouts": 1, "cutout_min_vx": [2, 3, 3], "cutout_max_vx": [4, 5, 5]}
    )
    crop, sizes = raw() + np.float32(0.5), set()
    for seed in range(300):
        view, _ = view_of(crop, rule, IN_PLACE, np.random.default_rng(seed))
        cut = np.argwhere(view == 0)
        assert np.array_equal(view[view != 0], crop[view != 0])
        if len(cut):
            sides = cut.max(0) - cut.min(0) + 1
            assert len(cut) == sides.prod()
            sizes.add(tuple(sides))
    assert sizes == {(z, y, y) for z in (2, 3, 4) for y in (3, 4, 5)}


def test_cutouts_larger_than_the_crop_are_cut_to_it():
    rule = View.model_validate(
        STILL | {"max_cutouts": 1, "cutout_min_vx": [50, 50, 50], "cutout_max_vx": [60, 60, 60]}
    )
    sums = {
        view_of(raw(), rule, IN_PLACE, np.random.default_rng(seed))[0].sum() for seed in range(20)
    }
    assert sums == {0, raw().sum()}
