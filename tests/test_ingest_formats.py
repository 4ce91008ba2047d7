"""Equal voxels become equal volumes, whatever their format, in their place and kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline import errors
from pipeline.geometry import ZYX, Nm, Offsets
from pipeline.ingest import Kind, Planes, ingest, open_source
from pipeline.ingest.planes import chosen_planes
from pipeline.ingest.tiff import _length_of
from pipeline.segment.affinities import affinities_from_interior
from pipeline.volume import Volume
from tests.files_to_ingest import (
    RAW,
    SHAPE,
    SHARD,
    SIZE,
    Make,
    bring,
    hdf5,
    ome_zarr,
    pngs,
    tiff,
    tiffs,
    voxels_of,
    zarr2,
    zarr3,
)

DATA = Path(__file__).parents[2] / "shared" / "data"

FORMATS: dict[str, Make] = {
    "hdf5": hdf5,
    "tiff": tiff,
    "tiff zlib": lambda folder: tiff(folder, compression="zlib"),
    "tiff big-endian": lambda folder: tiff(folder, byteorder=">"),
    "imagej": lambda folder: tiff(folder, imagej=True, metadata={"axes": "ZYX"}),
    "imagej of one page": lambda folder: tiff(folder, truncate=True),
    "tiff folder": tiffs,
    "png folder": pngs,
    "zarr 2": zarr2,
    "zarr 3": zarr3,
    "ome-zarr": ome_zarr,
}


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_voxels_and_the_same_digest(tmp_path: Path, make: Make) -> None:
    report = bring(make(tmp_path))
    (tmp_path / "other").mkdir()
    other = bring(hdf5(tmp_path / "other"), shard_vx=ZYX(64, 64, 64))
    assert np.array_equal(voxels_of(report), RAW)
    assert report.kind is Kind.RAW
    assert report.content_digest == other.content_digest
    volume = Volume.open(report.destination)
    assert volume.attributes["content_digest"] == report.content_digest
    assert volume.spec.voxel_size_nm == SIZE
    assert str(tmp_path) not in json.dumps(volume.attributes)
    assert zarr.open_group(tmp_path / "out.zarr", mode="r").metadata.zarr_format == 3
    assert [path.name for path in (tmp_path / "out.zarr").iterdir() if path.is_dir()] == ["raw"]
    assert report.warnings == ()


@pytest.mark.parametrize("make", [hdf5, tiff, tiffs, pngs, zarr2, zarr3])
def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path, make: Callable[..., Path]) -> None:
    data = RAW.astype(np.uint16) * 257 + 3
    report = bring(make(tmp_path, data))
    assert report.spec.dtype == "uint16"
    assert np.array_equal(voxels_of(report), data)


def test_the_digest_tells_voxels_shape_and_meaning_apart(tmp_path: Path) -> None:
    hdf5(tmp_path, RAW + 1, "other")
    hdf5(tmp_path, RAW.reshape(5, 7, 6), "turned")
    path = hdf5(tmp_path)
    digests = {
        bring(path, f"{name}_{kind}", dataset=name, kind=kind).content_digest
        for name in ("raw", "other", "turned")
        for kind in ("raw", "labels", "mask", "boundary", "interior")
    }
    assert len(digests) == 15


@settings(max_examples=20, deadline=None)
@given(
    data=hnp.arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32)),
    kind=st.sampled_from([Kind.BOUNDARY, Kind.INTERIOR]),
    slab=st.integers(1, 6),
)
def test_maps_become_the_same_affinities_in_any_slabs(
    tmp_path_factory: pytest.TempPathFactory, data: np.ndarray, kind: Kind, slab: int
) -> None:
    path = hdf5(tmp_path_factory.mktemp("map"), data, "map")
    report = bring(path, "affinities", kind=kind, shard_vx=ZYX(slab, 8, 8))
    interior = 1 - data if kind is Kind.BOUNDARY else data
    assert np.array_equal(voxels_of(report), affinities_from_interior(interior, Offsets()))
    assert report.spec.offsets == Offsets()
    assert report.spec.meaning == "affinities"


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65535)])
def test_integer_maps_are_fractions_of_their_largest_value(
    tmp_path: Path, dtype: str, top: int
) -> None:
    data = np.linspace(0, top, 210).reshape(SHAPE).astype(dtype)
    report = bring(hdf5(tmp_path, data, "membrane"))
    assert report.kind is Kind.BOUNDARY
    exact = affinities_from_interior(1 - data / np.float64(top), Offsets())
    assert np.array_equal(voxels_of(report), exact)


def test_an_affinity_lies_on_the_far_side_of_its_pair(tmp_path: Path) -> None:
    boundary = np.zeros((3, 3, 3), np.uint8)
    boundary[1] = 255
    found = voxels_of(bring(hdf5(tmp_path, boundary, "boundary"), "affinities"))
    assert found[0, :, 1, 1].tolist() == [0, 0, 0]
    assert found[1, :, 1, 1].tolist() == [255, 0, 255]


@settings(max_examples=20, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.dtype(kind) for kind in ("u1", ">u2", "u4", "u8", "i4", "?")]),
        SHAPE,
        elements={"min_value": 0},
    )
)
def test_labels_of_any_integer_type_become_uint64(
    tmp_path_factory: pytest.TempPathFactory, data: np.ndarray
) -> None:
    report = bring(hdf5(tmp_path_factory.mktemp("labels"), data, "volumes/labels/neuron_ids"))
    assert report.kind is Kind.LABELS
    assert report.spec.dtype == "uint64"
    assert np.array_equal(voxels_of(report), data.astype(np.uint64))


def test_background_ids_become_zero_and_no_other(tmp_path: Path) -> None:
    labels = RAW.astype(np.uint64)
    labels[0, 0], labels[4, 5] = 2**64 - 1, 2**64 - 2
    path = hdf5(tmp_path, labels, "labels")
    assert np.array_equal(voxels_of(bring(path, "kept")), labels)
    report = bring(path, "mapped", background=[2**64 - 1, 100, 250])
    expected = np.where((labels == 2**64 - 1) | (labels == 100), 0, labels)
    assert np.array_equal(voxels_of(report), expected)
    assert [line for line in report.warnings if "250" in line]
    assert len(report.warnings) == 1
    assert Volume.open(report.destination).attributes["background"] == [2**64 - 1, 100, 250]


@pytest.mark.parametrize("dtype", ["bool", "int16", "uint64"])
def test_a_mask_is_one_where_the_source_is_not_zero(tmp_path: Path, dtype: str) -> None:
    data = (RAW % 3).astype(dtype)
    report = bring(hdf5(tmp_path, data, "labels_mask"))
    assert report.kind is Kind.MASK
    assert report.spec.dtype == "uint8"
    assert np.array_equal(voxels_of(report), data != 0)


def test_raw_fractions_are_rounded_to_uint8(tmp_path: Path) -> None:
    data = (RAW / 255).astype(np.float16)
    report = bring(hdf5(tmp_path, data))
    assert np.array_equal(voxels_of(report), np.rint(255 * data.astype(float)))


@pytest.mark.parametrize("make", [hdf5, zarr2, zarr3])
def test_affinities_keep_their_offsets(tmp_path: Path, make: Callable[..., Path]) -> None:
    offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-2, 0, 0]]
    data = np.stack([RAW, RAW[::-1], RAW + 7, RAW + 31])
    path = make(tmp_path, data)
    if make is hdf5:
        with h5py.File(path, "a") as file:
            file["raw"].attrs["neighborhood"] = offsets
    else:
        zarr.open_array(path, mode="r+").attrs["neighborhood"] = offsets
    report = bring(path, "affs")
    assert np.array_equal(voxels_of(report), data)
    assert Volume.open(report.destination).spec.offsets == Offsets.of(offsets)


def test_float_affinities_of_three_channels_have_the_direct_neighbours(tmp_path: Path) -> None:
    data = np.stack([RAW, RAW[::-1], RAW + 7]) / np.float32(255)
    report = bring(hdf5(tmp_path, data), "affs")
    assert report.spec.offsets == Offsets()
    assert np.array_equal(voxels_of(report), np.rint(data * 255))


SMALL = np.zeros((2, 3, 4))
KINDS: dict[str, tuple[np.ndarray, str, str, Kind]] = {
    "four axes before any name": (np.zeros((3, 2, 3, 4), "u1"), "raw", "raw", Kind.AFFINITIES),
    "data set before destination": (SMALL.astype("u1"), "labels/gt", "raw", Kind.LABELS),
    "last part before the others": (SMALL.astype("u1"), "labels/mask", "x", Kind.MASK),
    "raw is a telling name": (SMALL.astype("u4"), "volumes/raw", "labels", Kind.RAW),
    "destination if nothing else": (SMALL.astype("u1"), "main", "supervoxels", Kind.LABELS),
    "membrane": (SMALL, "membrane_prediction", "x", Kind.BOUNDARY),
    "interior": (SMALL, "interior_probability", "x", Kind.INTERIOR),
    "wide integers": (SMALL.astype("u4"), "main", "x", Kind.LABELS),
    "narrow integers": (SMALL.astype("u2"), "main", "x", Kind.RAW),
    "bool": (SMALL.astype("?"), "main", "x", Kind.MASK),
}


@pytest.mark.parametrize(("data", "dataset", "name", "kind"), KINDS.values(), ids=KINDS)
def test_the_kind_is_inferred_by_rule(
    tmp_path: Path, data: np.ndarray, dataset: str, name: str, kind: Kind
) -> None:
    path = hdf5(tmp_path, data, dataset)
    if dataset == "volumes/raw":
        with pytest.raises(errors.DtypeError):
            bring(path, name)
        return
    report = bring(path, name)
    assert report.kind is kind
    assert report.reason
    told = any("tells of other data" in line for line in report.warnings)
    assert told == (name == "raw" and kind is not Kind.RAW)


PLACES: dict[str, tuple[Make, tuple[object, ...], tuple[object, ...]]] = {
    "cremi": (
        lambda folder: hdf5(folder, resolution=np.array([40, 4, 4]), offset=[80, 8, 4]),
        (40, 4, 4),
        (80, 8, 4),
    ),
    "float32": (
        lambda folder: hdf5(folder, resolution=np.array([40, 4, 4.04], "f4")),
        (40, 4, "4.04"),
        (0, 0, 0),
    ),
    "funlib": (
        lambda folder: zarr3(
            folder, voxel_size=[0.04, 4, 40.4], units=["um", "nm", "Å"], offset=[0.4, 8, 0]
        ),
        (40, 4, "4.04"),
        (400, 8, 0),
    ),
    "ome-zarr": (ome_zarr, (40, 4, "4.04"), (80, 0, "40.4")),
    "level of ome-zarr": (lambda folder: ome_zarr(folder) / "0", (40, 4, "4.04"), (80, 0, "40.4")),
    "ome-zarr scaled as a whole": (
        lambda folder: ome_zarr(
            folder,
            coordinateTransformations=[
                {"type": "scale", "scale": [2, 1, 1]},
                {"type": "translation", "translation": [0.08, 0, 0]},
            ],
        ),
        (80, 4, "4.04"),
        (240, 0, "40.4"),
    ),
    "imagej": (
        lambda folder: tiff(
            folder,
            imagej=True,
            resolution=(1 / 0.008, 1 / 0.004),
            metadata={"axes": "ZYX", "spacing": 0.03, "unit": "um"},
        ),
        (30, 4, 8),
        (0, 0, 0),
    ),
    "imagej, rounded by it": (
        lambda folder: tiff(
            folder,
            imagej=True,
            resolution=((166666667, 1000000), (247524752, 1000000)),
            metadata={"axes": "ZYX", "spacing": 0.03, "unit": "\\u00B5m"},
        ),
        (30, "4.04", 6),
        (0, 0, 0),
    ),
    "ome-tiff": (
        lambda folder: tiff(
            folder,
            ome=True,
            metadata={
                "axes": "ZYX",
                "PhysicalSizeZ": 0.03,
                "PhysicalSizeY": 4.04,
                "PhysicalSizeYUnit": "nm",
                "PhysicalSizeX": 60,
                "PhysicalSizeXUnit": "Å",
            },
        ),
        (30, "4.04", 6),
        (0, 0, 0),
    ),
}


@pytest.mark.parametrize(("make", "size", "offset"), PLACES.values(), ids=PLACES)
def test_the_place_is_read_from_the_file_exactly(
    tmp_path: Path, make: Make, size: tuple[object, ...], offset: tuple[object, ...]
) -> None:
    source = make(tmp_path)
    report = ingest(source, tmp_path / "out.zarr" / "raw", shard_vx=SHARD)
    spec = Volume.open(report.destination).spec
    assert (spec.voxel_size_nm, spec.offset_nm) == (Nm.of(size), Nm.of(offset))
    assert report.warnings == ()


def test_the_user_overrides_the_file_and_is_told(tmp_path: Path) -> None:
    path = hdf5(tmp_path, resolution=[10, 10, 10], offset=[20, 0, 0])
    report = bring(path, offset=Nm.of([80, 0, 0]))
    assert (report.spec.voxel_size_nm, report.spec.offset_nm) == (SIZE, Nm.of([80, 0, 0]))
    assert len(report.warnings) == 2


@pytest.mark.parametrize(
    "make", [lambda folder: ome_zarr(folder, "parsec"), lambda f: ome_zarr(f, None)]
)
def test_a_voxel_size_given_replaces_one_that_cannot_be_read(tmp_path: Path, make: Make) -> None:
    report = bring(make(tmp_path))
    assert report.spec.voxel_size_nm == SIZE
    assert "voxel size given is used" in report.warnings[0]


@given(st.integers(1, 10**5), st.sampled_from([1, 1000]))
def test_imagej_rounds_a_resolution_and_the_length_comes_back(length: int, scale: int) -> None:
    exact = Decimal(length) / scale / 100  # 0.00001 to 1000
    stored = round(1_000_000 / exact)
    assume(stored >= 10**6)  # else it has fewer digits than the length may have
    found = _length_of(stored, 1_000_000)
    assert found is not None
    assert round(1_000_000 / found) == stored
    assert len(found.normalize().as_tuple().digits) <= len(exact.normalize().as_tuple().digits)


def test_planes_are_stacked_by_number_and_a_gap_is_told(tmp_path: Path) -> None:
    folder = pngs(tmp_path)  # z8 to z12
    (folder / "z10.png").unlink()
    (folder / ".z10.png").write_bytes(b"left by a file manager")
    (folder / "notes.txt").touch()
    report = bring(folder)
    assert np.array_equal(voxels_of(report), RAW[[0, 1, 3, 4]])
    assert "9 to 11" in report.warnings[0]


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (np.full(SHAPE, 7, np.uint8), "raw", "every voxel has the value 7"),
        (np.zeros(SHAPE, np.uint8), "mask", "every voxel has the value 0"),
        (RAW % 2, "interior", "nearly black"),
    ],
)
def test_suspect_voxels_are_told(tmp_path: Path, data: np.ndarray, kind: str, text: str) -> None:
    (warning,) = bring(hdf5(tmp_path, data), "x", kind=kind).warnings
    assert text in warning


def test_a_missing_chunk_of_a_foreign_array_is_its_fill_value(tmp_path: Path) -> None:
    path = zarr2(tmp_path, fill_value=9)
    (path / "0.0.0").unlink()
    expected = RAW.copy()
    expected[:2, :2, :2] = 9
    assert np.array_equal(voxels_of(bring(path)), expected)


def test_a_stack_behind_its_only_page_is_read_in_its_byte_order(tmp_path: Path) -> None:
    data = RAW.astype(np.uint16) * 300
    report = bring(tiff(tmp_path, data, truncate=True, byteorder=">"))
    assert np.array_equal(voxels_of(report), data)


def test_progress_counts_planes(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    bring(hdf5(tmp_path), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


@settings(max_examples=15, deadline=None)
@given(data=st.data(), slab=st.integers(1, 9))
def test_neither_slabs_nor_format_change_what_is_stored(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, slab: int
) -> None:
    dtype = data.draw(st.sampled_from(["u1", "<u2", ">u2"]))
    voxels = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)))
    make = data.draw(st.sampled_from([tiffs, pngs, zarr2, zarr3]))
    folder = tmp_path_factory.mktemp("any")
    one = bring(hdf5(folder, voxels), "one")
    other = bring(make(folder, voxels.astype(voxels.dtype.newbyteorder("="))), "two")
    slabs = bring(folder / "a.h5", "three", shard_vx=ZYX(slab, 3, 5))
    assert np.array_equal(voxels_of(slabs), voxels)
    assert np.array_equal(voxels_of(other), voxels)
    assert len({one.content_digest, other.content_digest, slabs.content_digest}) == 1


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_some_planes_of_any_format_are_thicker_and_in_their_place(
    tmp_path: Path, make: Make
) -> None:
    path = make(tmp_path)
    first = bring(path).spec.offset_nm
    last = bring(path, "last", planes=Planes(2), kind="raw")
    assert np.array_equal(voxels_of(last), RAW[2:])
    assert last.spec.voxel_size_nm == SIZE
    assert last.spec.offset_nm == Nm(first.z + 80, first.y, first.x)
    thick = bring(path, "thick", planes=Planes.of("0::2"), kind="raw")
    assert np.array_equal(voxels_of(thick), RAW[::2])
    assert (thick.spec.voxel_size_nm, thick.spec.offset_nm) == (Nm.of([80, 4, "4.04"]), first)
    assert "[0::2]" in thick.source
    assert Volume.open(thick.destination).attributes["planes"] == "0::2"


@settings(max_examples=30, deadline=None)
@given(
    start=st.integers(0, 4),
    num=st.integers(1, 5),
    step=st.integers(1, 6),
    slab=st.integers(1, 6),
    kind=st.sampled_from([Kind.RAW, Kind.LABELS, Kind.BOUNDARY]),
)
def test_planes_are_those_of_a_slice(
    tmp_path_factory: pytest.TempPathFactory,
    start: int,
    num: int,
    step: int,
    slab: int,
    kind: Kind,
) -> None:
    stop = min(5, start + num)
    path = hdf5(tmp_path_factory.mktemp("planes"))
    hdf5(path.parent, RAW[start:stop:step], "sliced")
    origin, shard = Nm.of([0, 0, 0]), ZYX(slab, 8, 8)
    some = bring(
        path, "x", dataset="raw", kind=kind, planes=Planes(start, stop, step), offset=origin,
        shard_vx=shard,
    )  # fmt: skip
    sliced = bring(path, "y", dataset="sliced", kind=kind, shard_vx=shard)
    assert some.content_digest == sliced.content_digest
    assert some.spec.voxel_size_nm.z == 40 * step


def test_planes_are_counted_from_the_offset_of_the_file(tmp_path: Path) -> None:
    path = hdf5(tmp_path, resolution=[40, 4, 4], offset=[80, 8, 4])
    spec = bring(path, planes=Planes(2, 5, 2), voxel_size=None).spec
    assert (spec.voxel_size_nm, spec.offset_nm) == (Nm.of([80, 4, 4]), Nm.of([160, 8, 4]))


def test_reading_some_planes_does_not_load_the_others(tmp_path: Path) -> None:
    read: list[int] = []
    with open_source(hdf5(tmp_path)) as source:
        spied = replace(source, load=lambda a, b: read.append(b - a) or source.load(a, b))
        assert np.array_equal(chosen_planes(spied, Planes(0, None, 2)).read(0, 3), RAW[::2])
        assert max(read) <= 3


REAL = {
    "gala raw": ("gala_train.h5", "volumes/raw", Kind.RAW, "raw"),
    "gala labels": ("gala_train.h5", "volumes/labels/neuron_ids", Kind.LABELS, "labels"),
    "gala supervoxels": ("gala_train.h5", "volumes/supervoxels", Kind.LABELS, "labels"),
    "gala boundary": ("gala_train.h5", "volumes/boundary_probability", Kind.BOUNDARY, "affinities"),
    "snemi labels": ("snemi_mini.h5", "volumes/labels/neuron_ids", Kind.LABELS, "labels"),
    "snemi interior": (
        "snemi_mini.h5",
        "volumes/interior_probability",
        Kind.INTERIOR,
        "affinities",
    ),
}


@pytest.mark.parametrize(("file", "dataset", "kind", "meaning"), REAL.values(), ids=REAL)
def test_real_data_come_in_without_options(
    tmp_path: Path, file: str, dataset: str, kind: Kind, meaning: str
) -> None:
    if not (DATA / file).exists():
        pytest.skip(f"{file} is not in {DATA}, where the shared data lie")
    report = ingest(
        DATA / file, tmp_path / "out.zarr" / "x", dataset=dataset, shard_vx=ZYX(16, 128, 128)
    )
    with h5py.File(DATA / file) as source:
        data, size = source[dataset][...], source[dataset].attrs["resolution"].tolist()
    if meaning == "affinities":
        fractions = data if data.dtype.kind == "f" else data / 255
        interior = 1 - fractions if kind is Kind.BOUNDARY else fractions
        data = affinities_from_interior(interior, Offsets())
    assert (report.kind, report.spec.meaning, report.warnings) == (kind, meaning, ())
    assert report.spec.voxel_size_nm == Nm.of(size)
    assert np.array_equal(voxels_of(report), data)


def test_a_source_reads_only_the_planes_asked_for(tmp_path: Path) -> None:
    for make in (hdf5, tiff, pngs, zarr3):
        (tmp_path / make.__name__).mkdir()
        with open_source(make(tmp_path / make.__name__)) as source:
            assert source.shape == SHAPE
            assert np.array_equal(source.read(1, 4), RAW[1:4])
