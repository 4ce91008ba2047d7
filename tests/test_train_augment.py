"""Crops and their augmentation, one at a time."""

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.geometry import ZYX
from pipeline.train import source
from pipeline.train.crops import Crops
from pipeline.train.warp import coordinates, elastic_displacement, resampled
from pipeline.train.widen import widened
from tests.drawn import SHAPE, drawn_labels
from tests.trained_on import CROP, EVERYTHING, GEOMETRY, NOTHING, data_of, numbered, train_with

GEOMETRIC = {
    "flip": True, "transpose": "yx", "rotate": 1.0, "scale": 0.3, "elastic": 1.0,
    "shifted_section": 0.5,
}  # fmt: skip
PHOTOMETRIC = {
    "intensity": 1.0, "missing_section": 0.5, "faint_section": 0.5, "blur": 1.0, "noise": 1.0,
}  # fmt: skip


def crops_of(data, augment, count=8, **settings):
    """Raw and labels of some crops, each ``(n, z, y, x)``."""
    crops = Crops(data, train_with(augment, **{"batch": 1, "widen_border_vx": 0} | settings), False)
    batches = [crops.batch(step) for step in range(count)]
    return np.concatenate([b.raw[:, 0] for b in batches]), np.concatenate(
        [b.labels for b in batches]
    )


def places(raw: np.ndarray) -> np.ndarray:
    """Where crops of ``numbered()`` begin: ``(n, 3)``."""
    first = np.rint(raw[:, 0, 0, 0] * 65535).astype(int)
    return np.stack(np.unravel_index(first, SHAPE), -1)


def widened_by_hand(labels: np.ndarray, radius: Sequence[int]) -> np.ndarray:
    """Each window cut out of the reflected labels."""
    padded = np.pad(labels, [(r, r) for r in radius], "reflect")
    result = labels.copy()
    for voxel in np.ndindex(labels.shape):
        window = padded[tuple(slice(v, v + 2 * r + 1) for v, r in zip(voxel, radius, strict=True))]
        if len(set(window[window > 0].tolist())) > 1:
            result[voxel] = 0
    return result


# Where crops come from ------------------------------------------------------------------------


def test_without_augmentation_a_crop_is_a_piece_of_the_volumes(tmp_path):
    truth = drawn_labels()
    truth[3:6, 10:20] = 0
    raw, labels = crops_of(data_of(tmp_path, labels=truth), NOTHING)
    for begin, crop, ids in zip(places(raw), raw, labels, strict=True):
        box = tuple(slice(b, b + n) for b, n in zip(begin, CROP, strict=True))
        assert np.array_equal(np.rint(crop * 65535), numbered()[box])
        pairs = np.unique(np.stack([ids, truth[box]]).reshape(2, -1).astype(int), axis=1)
        assert sorted(pairs[1]) == np.unique(truth[box]).tolist()
        assert set(pairs[0]) - {0} == set(range(1, 1 + np.count_nonzero(pairs[1])))
        assert np.array_equal(ids == 0, truth[box] == 0)
        assert ids.dtype == np.int32


def test_every_place_where_a_crop_fits_is_taken(tmp_path):
    raw, _ = crops_of(data_of(tmp_path, margin=(2, 14, 14)), NOTHING, 150)
    found = {tuple(int(n) for n in place) for place in places(raw)}
    assert found == {(z, y, x) for z in (2, 3, 4) for y in (14, 15, 16) for x in (14, 15, 16)}


@pytest.mark.parametrize("margin", [(3, 8, 8), (3, 15, 15)])
def test_nothing_outside_the_region_shows_up(tmp_path, margin):
    inside = tuple(slice(m, n - m) for m, n in zip(margin, SHAPE, strict=True))
    raw, labels = np.full(SHAPE, 255, np.uint8), np.full(SHAPE, 7, np.uint64)
    raw[inside] = np.random.default_rng(1).integers(50, 100, raw[inside].shape)
    labels[inside] = 0
    crop = {"crop_vx": [6, 10, 10]}
    data = data_of(tmp_path, raw, labels, margin, (0, 255))
    found, ids = crops_of(data, {"elastic_sigma_z_vx": 2.0} | GEOMETRY, 20, **crop)
    assert not ids.any()
    assert found.max() < 100 / 255
    assert found.min() >= 50 / 255


def test_crops_are_the_same_when_the_region_is_not_held_in_memory(tmp_path, monkeypatch):
    truth = drawn_labels() + np.uint64(2**60)
    data = data_of(tmp_path, labels=truth)
    settings = {"min_labelled": 0.5, "widen_border_vx": 1}
    held = crops_of(data, EVERYTHING, 4, **settings)
    monkeypatch.setattr(source, "IN_MEMORY_BYTES", 0)
    for one, other in zip(held, crops_of(data, EVERYTHING, 4, **settings), strict=True):
        assert np.array_equal(one, other)


def test_crops_have_the_labelled_share_that_is_asked_for(tmp_path):
    truth = drawn_labels()
    truth[:, 20:] = 0
    _, labels = crops_of(data_of(tmp_path, labels=truth), NOTHING, 20, min_labelled=0.8)
    shares = (labels > 0).mean((1, 2, 3))
    assert shares.min() >= 0.8
    assert shares.min() < 1


# Borders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0, 1, 2])
@pytest.mark.parametrize("per_section", [True, False])
@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_widened_borders_agree_with_windows_cut_by_hand(radius, per_section, dtype):
    labels = drawn_labels((7, 11, 13), spacing=5).astype(dtype)
    labels[np.random.default_rng(1).random(labels.shape) < 0.3] = 0
    expected = widened_by_hand(labels, (0 if per_section else radius, radius, radius))
    found = widened(labels, radius, per_section)
    assert np.array_equal(found, expected)
    assert found.dtype == dtype


def test_the_border_of_an_object_with_background_stays():
    labels = np.zeros((3, 5, 5), np.int32)
    labels[:, 1:3, 1:3] = 4
    assert np.array_equal(widened(labels, 1, False), labels)


def test_borders_are_widened_in_the_crop_as_it_is_seen(tmp_path):
    data = data_of(tmp_path)
    _, plain = crops_of(data, GEOMETRY)
    _, narrow = crops_of(data, GEOMETRY, widen_border_vx=1)
    for before, after in zip(plain, narrow, strict=True):
        kept = widened_by_hand(before, (0, 1, 1)) > 0
        assert np.array_equal(after > 0, kept)
        assert 0 < kept.mean() < 1


# Geometry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("transpose", ["yx", "zyx"])
def test_raw_and_labels_stay_aligned(tmp_path, axis, transpose):
    place = np.indices(SHAPE)[axis]
    data = data_of(tmp_path, place.astype(np.uint8), (place + 1).astype(np.uint64), scale=(0, 255))
    augment = GEOMETRY | {"transpose": transpose, "elastic_sigma_z_vx": 1.0}
    raw, labels = crops_of(data, augment, crop_vx=[6, 8, 10])
    for came_from, ids in zip(raw * 255, labels, strict=True):
        nearest = np.rint(came_from).astype(int)
        sure = np.abs(np.abs(came_from - nearest) - 0.5) > 1e-3
        pairs = np.unique(np.stack([ids, nearest])[:, sure], axis=1)
        assert len(np.unique(pairs[0])) == len(pairs.T) == len(np.unique(pairs[1]))


def test_mirrors_and_transposes_make_all_sixteen_orientations(tmp_path):
    data = data_of(tmp_path)
    raw, _ = crops_of(data, NOTHING | {"flip": True, "transpose": "yx"}, 150, crop_vx=[3, 4, 5])
    steps = [np.rint([np.diff(c, axis=a).mean() * 65535 for a in range(3)]) for c in raw]
    assert len({tuple(step) for step in steps}) == 16


def test_the_plain_warp_changes_nothing():
    raw = np.random.default_rng(1).random((4, 6, 7), np.float32)
    labels = drawn_labels((4, 6, 7), spacing=3)
    new, ids = resampled(raw, labels, coordinates((4, 6, 7), 0, 1, None))
    assert np.array_equal(new, raw)
    assert np.array_equal(ids, labels)


def test_a_quarter_turn_is_a_rotation_about_z():
    raw = np.random.default_rng(1).random((3, 7, 7), np.float32)
    labels = drawn_labels(raw.shape, spacing=3)
    new, ids = resampled(raw, labels, coordinates(raw.shape, np.pi / 2, 1, None))
    assert np.allclose(new, np.rot90(raw, -1, axes=(1, 2)), atol=1e-5)
    assert np.array_equal(ids, np.rot90(labels, -1, axes=(1, 2)))


def test_zoom_enlarges_the_middle():
    where = coordinates((3, 5, 9), 0, 2, None)
    assert np.allclose(where[1, 0, :, 0], [1, 1.5, 2, 2.5, 3])
    assert np.allclose(where[2, 0, 0], 4 + (np.arange(9) - 4) / 2)
    assert np.array_equal(where[0, :, 0, 0], [0, 1, 2])


def test_elastic_fields_have_the_given_width_at_control_points_and_are_smooth_between():
    rng = np.random.default_rng(1)
    field = elastic_displacement((40, 120, 120), ZYX(4, 10, 10), (0, 2, 3), rng)
    assert not field[0].any()
    points = field[:, ::4, ::10, ::10]
    assert points.std((1, 2, 3)) == pytest.approx([0, 2, 3], rel=0.1)
    bends = np.abs(np.diff(field[1], 2, axis=2))
    assert bends.max() < 0.05 * np.ptp(field[1])


# Each augmentation ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*GEOMETRIC, *PHOTOMETRIC])
def test_each_augmentation_alone_has_its_effect(tmp_path, name):
    data = data_of(tmp_path, np.random.default_rng(1).integers(0, 65535, SHAPE, np.uint16))
    plain, ids = crops_of(data, NOTHING, crop_vx=[8, 12, 16])
    value = (GEOMETRIC | PHOTOMETRIC)[name]
    raw, labels = crops_of(data, NOTHING | {name: value}, crop_vx=[8, 12, 16])
    changed = (raw != plain).any((1, 2, 3))
    assert changed.mean() > 0.3
    assert raw.dtype == np.float32
    assert raw.min() >= 0
    assert raw.max() <= 1
    # Photometric changes leave the labels of the same places as they were.
    assert np.array_equal(labels, ids) == (name in PHOTOMETRIC)


@pytest.mark.parametrize(
    ("switch", "settings"),
    [
        ("elastic", {"elastic_sigma_vx": 9.0, "elastic_sigma_z_vx": 3.0}),
        ("intensity", {"contrast": 1.0, "brightness": 1.0, "gamma": 3.0}),
        ("shifted_section", {"shift_vx": 9}),
        ("blur", {"blur_sigma_vx": 9.0}),
        ("noise", {"noise_sigma": 1.0}),
    ],
)
def test_an_augmentation_of_share_0_has_no_effect(tmp_path, switch, settings):
    data = data_of(tmp_path)
    plain, ids = crops_of(data, NOTHING)
    raw, labels = crops_of(data, NOTHING | settings | {switch: 0.0})
    assert np.array_equal(raw, plain)
    assert np.array_equal(labels, ids)


def test_missing_sections_are_black_and_faint_ones_keep_a_tenth_of_their_contrast(tmp_path):
    data = data_of(tmp_path)
    plain, _ = crops_of(data, NOTHING)
    missing, _ = crops_of(data, NOTHING | {"missing_section": 1.0})
    assert not missing.any()
    faint, _ = crops_of(data, NOTHING | {"faint_section": 1.0})
    assert np.allclose(faint.std((2, 3)), plain.std((2, 3)) / 10, rtol=1e-3)
    assert np.allclose(faint.mean((2, 3)), plain.mean((2, 3)), atol=1e-5)


def test_shifted_sections_come_from_the_places_beside_theirs(tmp_path):
    raw, _ = crops_of(
        data_of(tmp_path), NOTHING | {"shifted_section": 0.4, "shift_vx": 3}, 30, crop_vx=[8, 6, 6]
    )
    starts = np.stack(np.unravel_index(np.rint(raw[:, :, 0, 0] * 65535).astype(int), SHAPE), -1)
    assert np.array_equal(np.diff(starts[..., 0], axis=1), np.ones((30, 7)))
    assert set(np.unique(np.diff(starts[..., 1:], axis=1))) >= set(range(-3, 4))


def test_intensity_changes_the_whole_crop_or_section_by_section(tmp_path):
    rule = NOTHING | {"intensity": 1.0, "gamma": 0.0, "contrast": 0.4, "brightness": 0.1}
    data = data_of(tmp_path)
    plain, _ = crops_of(data, NOTHING, 20)
    raw, _ = crops_of(data, rule, 20)
    kinds = []
    for old, new in zip(plain, raw, strict=True):
        inner = (new > 0) & (new < 1)
        gains = [
            np.polyfit(a[i], b[i], 1)[0] for a, b, i in zip(old, new, inner, strict=True) if i.any()
        ]
        assert 0.6 - 1e-3 <= min(gains) <= max(gains) <= 1.4 + 1e-3
        kinds.append(np.ptp(gains) < 1e-3)
    assert 0.2 < np.mean(kinds) < 0.8
