"""A source that is not sound is refused in a few clear lines, and becomes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import errors
from pipeline.geometry import Nm, Offsets
from pipeline.ingest import Planes
from tests.files_to_ingest import (
    RAW,
    SHAPE,
    Make,
    bring,
    group_of_arrays,
    hdf5,
    huge_page,
    image,
    ome_zarr,
    pngs,
    spoiled,
    tiff,
    tiffs,
    truncated,
    two,
    with_link,
    written,
    zarr2,
    zarr3,
)

E, C4 = errors, (4, *SHAPE)
TWO24 = "2^24"
BAD: dict[str, tuple[Make, dict[str, Any], type[Exception], tuple[str, ...]]] = {
    # what there is
    "nothing there": (lambda d: d / "a.h5", {}, E.NotFoundError, ("a.h5",)),
    "no zarr there": (lambda d: d / "a.zarr", {}, E.NotFoundError, ("a.zarr",)),
    "unknown suffix": (written("a.nii", b"x"), {}, E.FormatError, ("a.nii", "HDF5")),
    "no such data set": (two, {"dataset": "x"}, E.NotFoundError, ("volumes/raw", "(5, 6, 7)")),
    "several data sets": (two, {}, E.NotFoundError, ("--dataset", "neuron_ids")),
    "group of hdf5": (two, {"dataset": "volumes"}, E.NotFoundError, ("group", "neuron_ids")),
    "group of zarr": (
        group_of_arrays,
        {},
        E.FormatError,
        ("a.zarr", "has: one, two"),
    ),
    "data set of a tiff": (tiff, {"dataset": "x"}, E.ConfigError, ("a.tif", "Leave it out")),
    "data set outside": (zarr3, {"dataset": "../b"}, E.ConfigError, ("--dataset",)),
    # formats
    "hdf5 cut short": (truncated(hdf5, 0.9), {}, E.FormatError, ("a.h5", "cut short")),
    "not hdf5": (written("a.h5", b"hello"), {}, E.FormatError, ("a.h5",)),
    "external link": (with_link("external"), {"dataset": "raw"}, E.FormatError, ("a.h5", "link")),
    "soft link": (with_link("soft"), {"dataset": "raw"}, E.FormatError, ("a.h5", "target")),
    "virtual": (with_link("virtual"), {}, E.FormatError, ("a.h5", "virtual", "Copy")),
    "external storage": (with_link("storage"), {}, E.FormatError, ("a.h5", "Copy")),
    "not tiff": (written("a.tif", b"hello"), {}, E.FormatError, ("a.tif",)),
    "tiff without a byte": (written("a.tif"), {}, E.FormatError, ("a.tif",)),
    "tiff cut in its voxels": (truncated(tiff, 0.3), {}, E.FormatError, ("a.tif", "copy")),
    "tiff cut in its pages": (
        truncated(tiff, 0.7, compression="zlib", metadata=None),
        {},
        E.FormatError,
        ("a.tif", "copy"),
    ),
    "tiff cut before its pages": (
        truncated(tiff, 0.98, compression="zlib"),
        {},
        E.FormatError,
        ("a.tif", "page 4"),
    ),
    "stack cut behind its page": (
        truncated(tiff, 0.8, truncate=True),
        {},
        E.FormatError,
        ("a.tif", "cut short"),
    ),
    "tiff of rgb": (
        lambda d: tiff(d, np.zeros((5, 6, 7, 3), "u1"), photometric="rgb"),
        {},
        E.FormatError,
        ("a.tif", "grey", "Export"),
    ),
    "imagej with channels": (
        lambda d: tiff(d, np.zeros((5, 2, 6, 7), "u1"), imagej=True, metadata={"axes": "ZCYX"}),
        {},
        E.FormatError,
        ("a.tif", "2 channels", "Split"),
    ),
    "tiff of four axes": (lambda d: tiff(d, np.zeros(C4, "u1")), {}, E.FormatError, ("HDF5",)),
    "tiff of absurd size": (huge_page, {}, E.FormatError, ("a.tif", "2^40")),
    "ome-tiff with entities": (
        lambda d: tiff(
            d, description='<?xml version="1.0"?><!DOCTYPE x><OME></OME>', metadata=None
        ),
        {},
        E.FormatError,
        ("a.tif", "document type"),
    ),
    "folder without images": (
        lambda d: written("planes/a.txt", b"x")(d).parent,
        {},
        E.FormatError,
        ("planes", "0 images"),
    ),
    "png and tiff": (
        lambda d: tiff(pngs(d)).parent,
        {},
        E.FormatError,
        ("planes", "not both"),
    ),
    "not a png": (written("z9.png", b"x", base=pngs), {}, E.FormatError, ("z9.png",)),
    "png of another size": (image("z20.png", "L", (6, 7)), {}, E.ShapeError, ("z20.png", "(7, 6)")),
    "png of another type": (image("z20.png", "I;16"), {}, E.ShapeError, ("z20.png", "uint16")),
    "png of rgb": (image("z20.png", "RGB"), {}, E.FormatError, ("z20.png", "RGB", "Convert")),
    "png of one bit": (image("z20.png", "1"), {}, E.FormatError, ("z20.png", "8 or 16 bits")),
    "pages in a folder": (
        lambda d: tiff(tiffs(d)).parent,
        {},
        E.ShapeError,
        ("a.tif", "5", "give the file"),
    ),
    "single png": (lambda d: pngs(d) / "z8.png", {}, E.ShapeError, ("z8.png", "folder")),
    "zarr of broken json": (written(".zarray", b"{", zarr2), {}, E.FormatError, ("a.zarr",)),
    "zarr of unknown codec": (
        lambda d: zarr2(d, compressor={"id": "nonsense"}),
        {},
        E.FormatError,
        ("a.zarr", "nonsense"),
    ),
    "zarr of objects": (
        lambda d: zarr2(d, dtype="|O", filters=[{"id": "pickle"}], fill_value=None),
        {},
        E.FormatError,
        ("a.zarr", "pickle"),
    ),
    "zarr that unpickles": (
        lambda d: zarr2(d, filters=[{"id": "pickle"}]),
        {},
        E.FormatError,
        ("a.zarr", "pickle"),
    ),
    "zarr of absurd chunks": (
        lambda d: zarr2(d, shape=[2**40] * 3, chunks=[2**40, 2**20, 1]),
        {},
        E.FormatError,
        ("a.zarr", "2^40"),
    ),
    "zarr with a damaged chunk": (
        written("0.1.1", b"nonsense", zarr2),
        {},
        E.FormatError,
        ("a.zarr", "planes 0 to 2"),
    ),
    # axes and types
    "two axes": (lambda d: hdf5(d, RAW[0]), {"dataset": "raw"}, E.ShapeError, ("(6, 7)",)),
    "five axes": (lambda d: zarr3(d, RAW[None, None]), {}, E.ShapeError, ("(1, 1, 5, 6, 7)",)),
    "an empty side": (lambda d: hdf5(d, RAW[:0]), {}, E.ShapeError, ("(0, 6, 7)", "Export")),
    "single page": (lambda d: tiff(d, RAW[0]), {}, E.ShapeError, ("(6, 7)",)),
    "raw of four axes": (lambda d: hdf5(d, RAW[None]), {"kind": "raw"}, E.ShapeError, ("--as",)),
    "affinities of three": (hdf5, {"kind": "affinities"}, E.ShapeError, ("--as",)),
    "unknown kind": (hdf5, {"kind": "skeleton"}, E.ConfigError, ("skeleton", "boundary")),
    "floats of no kind": (
        lambda d: hdf5(d, RAW / 255, "x"),
        {"name": "y"},
        E.ConfigError,
        ("--as",),
    ),
    "complex": (lambda d: hdf5(d, RAW.astype("c8")), {}, E.DtypeError, ("complex64", "Convert")),
    "strings": (
        lambda d: hdf5(d, np.full(SHAPE, "x", object)),
        {},
        E.DtypeError,
        ("object", "Convert"),
    ),
    "raw of int16": (lambda d: hdf5(d, RAW.astype("i2")), {}, E.DtypeError, ("int16", "Rescale")),
    "raw of bool": (lambda d: hdf5(d, RAW > 9), {"kind": "raw"}, E.DtypeError, ("bool", "--as")),
    "affinities of uint16": (
        lambda d: hdf5(d, np.zeros((3, *SHAPE), "u2")),
        {},
        E.DtypeError,
        ("uint16", "uint8"),
    ),
    "labels of float32": (
        lambda d: hdf5(d, RAW.astype("f4"), "labels"),
        {},
        E.DtypeError,
        ("float32", TWO24, "uint64"),
    ),
    "negative labels": (
        lambda d: hdf5(d, RAW.astype("i8") - 150, "labels"),
        {},
        E.DtypeError,
        ("-150", "(0, 0, 0)", "--background"),
    ),
    "one negative label": (
        lambda d: hdf5(d, np.where(RAW == 200, -1, 7), "labels"),
        {},
        E.DtypeError,
        ("-1", "(4, 4, 4)"),
    ),
    "float mask": (lambda d: hdf5(d, RAW / 1, "mask"), {}, E.DtypeError, ("Threshold",)),
    # values
    "raw of 0 to 255 floats": (
        lambda d: hdf5(d, RAW.astype("f4")),
        {},
        E.DataError,
        ("uint8", "(0, 0, 2)"),
    ),
    "nan": (lambda d: hdf5(d, spoiled(np.nan)), {}, E.DataError, ("1 voxels", "(3, 2, 1)", "NaN")),
    "infinite": (lambda d: hdf5(d, spoiled(-np.inf)), {}, E.DataError, ("(3, 2, 1)", "Replace")),
    "negative boundary": (
        lambda d: hdf5(d, spoiled(-0.1, "f8"), "boundary"),
        {},
        E.DataError,
        ("-0.1", "(3, 2, 1)", "boundary"),
    ),
    "nan in affinities": (
        lambda d: hdf5(d, spoiled(np.nan, "f2", (3, *SHAPE))),
        {},
        E.DataError,
        ("3 voxels", "(0, 3, 2, 1)"),
    ),
    "affinities of 0 to 255 floats": (
        lambda d: hdf5(d, spoiled(200, "f4", (3, *SHAPE))),
        {},
        E.DataError,
        ("200", "uint8"),
    ),
    "background of raw": (hdf5, {"background": [1]}, E.ConfigError, ("--background",)),
    "background below 0": (
        hdf5,
        {"background": [-1], "kind": "labels"},
        E.ConfigError,
        ("--background", "-1"),
    ),
    # place
    "no voxel size": (pngs, {"voxel_size": None}, E.MetadataError, ("planes", "--voxel-size")),
    "voxel size zero": (
        lambda d: hdf5(d, resolution=[40, 0, 4]),
        {"voxel_size": None},
        E.MetadataError,
        ("a.h5", "positive"),
    ),
    "voxel size of two": (
        lambda d: hdf5(d, resolution=[40, 4]),
        {"voxel_size": None},
        E.MetadataError,
        ("a.h5", "--voxel-size"),
    ),
    "voxel sizes that differ": (
        lambda d: hdf5(d, resolution=[40, 4, 4], voxel_size=[4, 4, 40]),
        {"voxel_size": None},
        E.MetadataError,
        ("a.h5", "contradict", "--voxel-size"),
    ),
    "unit of hdf5": (
        lambda d: hdf5(d, resolution=[40, 4, 4], units="mm"),
        {"voxel_size": None},
        E.MetadataError,
        ("a.h5", "mm", "--voxel-size"),
    ),
    "unit of ome-zarr": (
        lambda d: ome_zarr(d, "parsec"),
        {"voxel_size": None},
        E.MetadataError,
        ("a.zarr", "parsec", "--voxel-size"),
    ),
    "no unit of ome-zarr": (
        lambda d: ome_zarr(d, None),
        {"voxel_size": None},
        E.MetadataError,
        ("a.zarr", "--voxel-size"),
    ),
    "ome-zarr without scale": (
        lambda d: ome_zarr(d, datasets=[{"path": "0"}]),
        {"voxel_size": None},
        E.MetadataError,
        ("a.zarr", "--voxel-size"),
    ),
    "unit of imagej": (
        lambda d: tiff(d, imagej=True, metadata={"axes": "ZYX", "spacing": 1, "unit": "inch"}),
        {"voxel_size": None},
        E.MetadataError,
        ("a.tif", "inch", "--voxel-size"),
    ),
    "imagej without spacing": (
        lambda d: tiff(d, imagej=True, metadata={"axes": "ZYX", "unit": "nm"}),
        {"voxel_size": None},
        E.MetadataError,
        ("a.tif", "--voxel-size"),
    ),
    "offset between voxels": (
        hdf5,
        {"offset": Nm.of([20, 0, 0])},
        E.RoiError,
        ("a.h5", "nearest", "--offset"),
    ),
    "axes of ome-zarr": (
        lambda d: ome_zarr(d, axes=[{"name": n, "unit": "nm"} for n in "xyz"]),
        {},
        E.MetadataError,
        ("a.zarr", "x", "Transpose"),
    ),
    "axes of funlib": (
        lambda d: zarr3(d, axis_names=["x", "y", "z"]),
        {},
        E.MetadataError,
        ("a.zarr", "Transpose"),
    ),
    "four channels without offsets": (
        lambda d: hdf5(d, np.zeros(C4, "u1")),
        {},
        E.MetadataError,
        ("a.h5", "neighborhood"),
    ),
    "offsets of the other sign": (
        lambda d: hdf5(d, np.zeros((3, *SHAPE), "u1"), neighborhood=np.eye(3)),
        {},
        E.ConfigError,
        ("a.h5", "negate"),
    ),
    "fewer offsets than channels": (
        lambda d: hdf5(d, np.zeros(C4, "u1"), neighborhood=-np.eye(3)),
        {},
        E.ShapeError,
        ("a.h5", "4 channels, 3 offsets"),
    ),
    "stored at the other end": (
        lambda d: zarr3(d, np.zeros((3, *SHAPE), "u1"), neighborhood_anchor="destination"),
        {},
        E.MetadataError,
        ("a.zarr", "shift"),
    ),
    "offsets of raw": (hdf5, {"offsets": Offsets()}, E.ConfigError, ("a.h5",)),
    # planes
    "planes behind the end": (
        hdf5,
        {"planes": Planes(0, 6)},
        E.RoiError,
        ("a.h5", "0:5", "0:6:1"),
    ),
    "planes that begin at the end": (pngs, {"planes": Planes(5)}, E.RoiError, ("planes", "5::1")),
    "planes left out of affinities": (
        lambda d: hdf5(d, np.zeros((3, *SHAPE), "u1")),
        {"planes": Planes(0, None, 2)},
        E.ConfigError,
        ("a.h5", "affinities", "boundary"),
    ),
    "planes between the voxels of the world": (
        tiff,
        {"planes": Planes(1, None, 2)},
        E.RoiError,
        ("a.tif", "(40, 0, 0)", "(80, 4, 4.04)", "--offset (of the first plane taken)"),
    ),
    # destination
    "no zarr in the destination": (hdf5, {"name": ""}, E.ConfigError, ("DEST.zarr/NAME",)),
    "name that climbs": (hdf5, {"name": "a/../../b"}, E.ConfigError, ("DEST.zarr/NAME",)),
    "hidden name": (hdf5, {"name": ".raw"}, E.ConfigError, ("DEST.zarr/NAME",)),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of tifffile, as it writes what is not sound
@pytest.mark.parametrize(("make", "options", "error", "texts"), BAD.values(), ids=BAD)
def test_what_is_not_sound_is_refused_and_leaves_nothing(
    tmp_path: Path,
    make: Make,
    options: dict[str, Any],
    error: type[Exception],
    texts: tuple[str, ...],
) -> None:
    source = make(tmp_path)
    with pytest.raises(error) as caught:
        bring(source, **options)
    message = str(caught.value)
    assert [text for text in texts if text not in message] == [], message
    assert 1 <= len(message.splitlines()) <= 4, message
    assert list(tmp_path.rglob("*out.zarr*")) == []


@pytest.mark.parametrize(
    "text",
    ["", "3", "a:b", "-3:", "0:-1", "0:5:0", "5:5", "7:3", "0:5:1:1", " 0:5", "1.0:2", "²:3"],
)
def test_planes_are_written_as_start_stop_step(text: str) -> None:
    with pytest.raises(errors.ConfigError, match="--planes"):
        Planes.of(text)


def test_a_png_of_too_many_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pngs(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(errors.FormatError, match=r"(?s)z8\.png.*TIFF"):
        bring(path)


def test_a_pickle_in_a_zarr_is_never_run(tmp_path: Path) -> None:
    shuffle, pickled = {"id": "shuffle", "elementsize": 1}, {"id": "pickle"}
    for index, filters in enumerate([[pickled], [shuffle, pickled], [pickled, shuffle]]):
        (tmp_path / str(index)).mkdir()
        path = zarr2(tmp_path / str(index), filters=filters)
        (path / "0.0.0").write_bytes(b"cos\nmkdir\n(V" + bytes(path / "run") + b"\ntR.")
        with pytest.raises(errors.FormatError):
            bring(path)
        assert not (path / "run").exists()
