"""The phantom is one endless volume, its truth is dense and connected, and its picture fits it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.phantom import Phantom

ISOTROPIC = (10.0, 10.0, 10.0)
SERIAL = (40.0, 8.0, 8.0)
SNEMI = (30.0, 6.0, 6.0)
PLACE = (-37, 5000, 123)
SHAPE = (60, 110, 130)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return Phantom(7, ISOTROPIC)


@pytest.fixture(scope="module")
def truth(phantom: Phantom) -> NDArray[np.uint64]:
    return phantom.labels(PLACE, SHAPE)


def borders(labels: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Voxels with a direct neighbour of another label, by comparing every pair."""
    found = np.zeros(labels.shape, bool)
    for axis in range(3):
        here = np.moveaxis(labels, axis, 0)
        view = np.moveaxis(found, axis, 0)
        differ = here[1:] != here[:-1]
        view[1:] |= differ
        view[:-1] |= differ
    return found


def triples(low: int, high: int) -> st.SearchStrategy[tuple[int, int, int]]:
    side = st.integers(low, high)
    return st.tuples(side, side, side)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([ISOTROPIC, SNEMI, SERIAL]),
    st.sampled_from(["labels", "raw", "boundary"]),
    triples(-100_000, 100_000),
    triples(1, 9),
    triples(0, 14),
    triples(0, 14),
)
def test_boxes_agree_bit_for_bit_where_they_overlap(
    voxel_size_nm: tuple[float, float, float],
    kind: str,
    offset: tuple[int, int, int],
    shape: tuple[int, int, int],
    before: tuple[int, int, int],
    after: tuple[int, int, int],
) -> None:
    picture = getattr(Phantom(3, voxel_size_nm), kind)
    small = picture(offset, shape)
    around = picture(
        tuple(o - b for o, b in zip(offset, before, strict=True)),
        tuple(b + n + a for b, n, a in zip(before, shape, after, strict=True)),
    )
    inside = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
    np.testing.assert_array_equal(small, around[inside])


@pytest.mark.parametrize("kind", ["labels", "raw", "boundary"])
def test_a_large_box_equals_its_tiles(phantom: Phantom, kind: str) -> None:
    picture = getattr(phantom, kind)
    whole = picture((-11, 40, -170), (30, 70, 90))
    tiled = np.zeros_like(whole)
    for z in (0, 13):
        for y in (0, 50):
            for x in (0, 31):
                end = (13 if z == 0 else 30, 50 if y == 0 else 70, 31 if x == 0 else 90)
                shape = (end[0] - z, end[1] - y, end[2] - x)
                tile = picture((z - 11, y + 40, x - 170), shape)
                tiled[z : end[0], y : end[1], x : end[2]] = tile
    np.testing.assert_array_equal(whole, tiled)


def test_a_seed_is_a_volume() -> None:
    first, again, other = (Phantom(s, SNEMI).raw((0, 0, 0), (3, 40, 50)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.mean(first != other) > 0.9


def test_shapes_types_and_ranges(phantom: Phantom) -> None:
    labels, raw, boundary = (
        getattr(phantom, kind)((0, -5, 9), (4, 6, 7)) for kind in ("labels", "raw", "boundary")
    )
    assert (labels.dtype, raw.dtype, boundary.dtype) == (np.uint64, np.uint8, np.float32)
    assert labels.shape == raw.shape == boundary.shape == (4, 6, 7)
    assert 0 <= boundary.min() <= boundary.max() <= 1


def test_every_voxel_belongs_to_a_neurite(truth: NDArray[np.uint64]) -> None:
    assert truth.min() > 0
    assert truth.max() < 2**61


def test_calibres_are_thin_thick_and_between(truth: NDArray[np.uint64]) -> None:
    # The largest inscribed ball of each neurite, in nm; rim effects make some too thin.
    depth = ndimage.distance_transform_edt(~borders(truth)) * 10
    ids, index = np.unique(truth, return_inverse=True)
    calibres = 2 * ndimage.maximum(depth, index.reshape(truth.shape), np.arange(len(ids)))
    assert 20 < len(ids) < 200
    assert np.quantile(calibres, 0.1) < 110
    assert 120 < np.median(calibres) < 220
    assert calibres.max() > 300
    assert np.bincount(index.ravel()).max() < 0.6 * truth.size


def test_neurites_are_connected(truth: NDArray[np.uint64]) -> None:
    crumbs = 0
    for who in np.unique(truth):
        parts, num_parts = ndimage.label(truth == who)
        rim = np.unique(np.concatenate([parts[cut].ravel() for cut in faces()]))
        sizes = np.bincount(parts.ravel(), minlength=num_parts + 1)
        # Parts that leave the box may meet outside of it.
        sizes[rim] = 0
        sizes[0] = 0
        if len(rim[rim > 0]) == 0:
            sizes[sizes.argmax()] = 0
        crumbs += int(sizes.sum())
    # Measured: 5e-6 in (160, 200, 240) voxels.
    assert crumbs < 1e-3 * truth.size


def faces() -> list[tuple[slice | int, ...]]:
    whole = slice(None)
    return [
        tuple(end if m == axis else whole for m in range(3)) for axis in range(3) for end in (0, -1)
    ]


def test_isotropic_and_serial_phantoms_show_the_same_tissue(phantom: Phantom) -> None:
    # The centre of section 5 at 50 nm is that of the middle one of five planes at 10 nm.
    serial = Phantom(phantom.seed, (50.0, 10.0, 10.0)).labels((5, 30, -20), (1, 40, 50))
    fine = phantom.labels((27, 30, -20), (1, 40, 50))
    np.testing.assert_array_equal(serial, fine)


def test_membranes_are_dark_and_the_boundary_map_follows_them(
    phantom: Phantom, truth: NDArray[np.uint64]
) -> None:
    raw = phantom.raw(PLACE, SHAPE).astype(float)
    boundary = phantom.boundary(PLACE, SHAPE)
    border = borders(truth)
    inside = ndimage.distance_transform_edt(~border) > 3
    assert 115 < raw.mean() < 150
    assert raw[border].mean() < raw[inside].mean() - 30
    assert boundary[border].mean() > 0.5
    assert boundary[inside].mean() < 0.1
    # It is a fair classifier, not an oracle: some membranes are missing, some are false.
    assert 0.01 < np.mean(boundary[border] < 0.3) < 0.25
    assert 0.002 < np.mean(boundary[inside] > 0.3) < 0.1


@pytest.mark.parametrize(
    ("size", "membrane"), [((0.0, 8.0, 8.0), 12.0), ((8.0, 8.0, 8.0), 0.0), ((8.0, 8.0, 8.0), 99.0)]
)
def test_impossible_sizes_are_refused(size: tuple[float, float, float], membrane: float) -> None:
    with pytest.raises(ValueError, match="nm"):
        Phantom(1, size, membrane_nm=membrane)
