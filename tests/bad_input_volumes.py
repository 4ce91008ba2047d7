"""Rows of bad volumes: affinities, labels, masks, and what they say of themselves."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.errors import (
    ConfigError,
    DataError,
    DtypeError,
    FormatError,
    MetadataError,
    NotFoundError,
    PipelineError,
    RoiError,
    ShapeError,
    StageError,
)
from tests.bad_input_rows import (
    Bad,
    Case,
    all_of,
    attribute,
    command,
    key,
    labels_of,
    scored,
    with_mask,
)
from tests.drawn import DIRECT, SHAPE, run_tree, write_volume


def group_path(case: Case) -> None:
    case.set("run.data.affinities", str(case.data))


def missing_path(case: Case) -> None:
    case.set("run.data.affinities", str(case.data / "affinitis"))


def file_path(case: Case) -> None:
    (case.folder / "file").write_text("no array")
    case.set("run.data.affinities", str(case.folder / "file"))


def no_metadata(case: Case) -> None:
    (case.folder / "empty").mkdir()
    case.set("run.data.affinities", str(case.folder / "empty"))


def codec(case: Case) -> None:
    case.change("affinities", lambda meta: meta.update(codecs=[{"name": "snappyish"}]))


def pickled(case: Case) -> None:
    """A pickle that makes a file when it is read, as an object array."""
    path = case.data / "affinities"
    shutil.rmtree(path)
    (path / "c").mkdir(parents=True)
    meta = {
        "zarr_format": 2, "shape": [3, *SHAPE], "chunks": [3, *SHAPE], "dtype": "|O", "order": "C",
        "compressor": None, "fill_value": None, "filters": [{"id": "pickle", "protocol": 5}],
    }  # fmt: skip
    (path / ".zarray").write_text(json.dumps(meta))
    (path / ".zattrs").write_text(json.dumps({"voxel_size": [40, 8, 8]}))
    (path / "0.0.0.0").write_bytes(canary(case))  # noqa: S104 - a chunk


def pickled_bytes(case: Case) -> None:
    """The same behind numbers: a compressor that unpickles."""
    pickled(case)
    path = case.data / "affinities" / ".zarray"
    meta = json.loads(path.read_text()) | {"dtype": "|u1", "fill_value": 0, "filters": None}
    path.write_text(json.dumps(meta | {"compressor": {"id": "pickle", "protocol": 5}}))


def canary(case: Case) -> bytes:
    class Canary:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return Path.touch, (case.folder / "executed",)

    return pickle.dumps(Canary())


def escaping_level(case: Case) -> None:
    path = case.data / "affinities" / "zarr.json"
    path.write_text(path.read_text().replace('"path": "s0"', '"path": "../labels/s0"'))


def other_order(case: Case) -> None:
    case.change("affinities", lambda meta: meta.update(dimension_names=["c", "x", "y", "z"]))


def huge_shape(case: Case) -> None:
    case.change("affinities", lambda meta: meta.update(shape=[3, 2**31, 2**31, 2**31]))


def floats(change: Callable[[np.ndarray], object]) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        values = case.read("affinities").astype(np.float32) / 255
        change(values)
        case.plain("affinities", values)

    return spoil


def affinities_of(dtype: str) -> Callable[[Case], None]:
    return lambda case: case.plain("affinities", case.read("affinities").astype(dtype))


def cut_shard(keep: int | None) -> Callable[[Case], None]:
    """Truncate a file of affinities, or delete it."""

    def spoil(case: Case) -> None:
        shard = case.shard("affinities")
        if keep is None:
            shard.unlink()
        else:
            shard.write_bytes(shard.read_bytes()[:keep])

    return spoil


def no_truth(name: str) -> Callable[[Case], None]:
    return lambda case: case.plain(name, np.zeros(SHAPE, np.uint64))


def moved(name: str) -> Callable[[Case], None]:
    return attribute(name, "offset", [80, 8000, 8])


def small_mask(case: Case) -> None:
    shutil.rmtree(case.data / "mask")
    write_volume(case.data / "mask", np.ones((12, 40, 32), np.uint8), "mask")


def anchored(case: Case) -> None:
    case.attribute("affinities", "neighborhood_anchor", "target")


def long_offset(reach: int) -> Callable[[Case], None]:
    """A fourth channel that reaches far along y."""

    def spoil(case: Case) -> None:
        case.tree = run_tree(case.data, block_vx=(6, 16, 24))
        values = case.read("affinities")
        shutil.rmtree(case.data / "affinities")
        more = np.concatenate([values, values[1:2]])
        write_volume(
            case.data / "affinities", more, "affinities", [*DIRECT, (0, -reach, 0)], (8, 16, 16)
        )

    return spoil


def without_size(case: Case) -> None:
    case.plain("affinities", case.read("affinities"))
    attributes = case.data / "affinities" / ".zattrs"
    attributes.write_text(attributes.read_text().replace("voxel_size", "voxelsize"))


POSITIVE = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]

REFUSED_VOLUMES = [
    Bad("1", "missing path", missing_path, NotFoundError, ("affinitis",
        "affinities/s0, labels/s0")),
    Bad("1", "path too long", key("run.data.affinities", "a" * 300), NotFoundError, ("aaa",)),
    Bad("2", "a file instead of an array", file_path, FormatError, ("file",)),
    Bad("2", "an empty folder", no_metadata, FormatError, ("empty",)),
    Bad("3", "a group of arrays", group_path, FormatError, ("group", "affinities/s0, labels/s0")),
    Bad("4", "broken JSON", lambda c: c.metadata("affinities").write_text("{"), FormatError,
        ("affinities", "JSON")),
    Bad("4", "JSON of something else", lambda c: c.metadata("affinities").write_text("[1]"),
        FormatError, ("affinities",)),
    Bad("4", "no attributes", lambda c: c.change("affinities", lambda m: m.pop("attributes")),
        MetadataError, ("offsets", "neighborhood")),
    Bad("4", "broken multiscales",
        lambda c: (c.data / "affinities/zarr.json").write_text(
            '{"zarr_format": 3, "node_type": "group", '
            '"attributes": {"ome": {"multiscales": [7]}}}'),
        MetadataError, ("affinities", "metadata")),
    Bad("5", "unknown codec", codec, FormatError, ("snappyish",)),
    Bad("6", "object dtype with a pickle filter", pickled, FormatError, ("affinities",)),
    Bad("6", "a pickle behind numbers", pickled_bytes, FormatError, ("pickle",)),
    Bad("6", "complex numbers", affinities_of("c8"), DtypeError, ("complex64",)),
    Bad("7", "two axes", lambda c: c.plain("labels", np.ones((9, 9), np.uint64)), ShapeError,
        ("2 axes", "labels")),
    Bad("7", "five axes", lambda c: c.plain("labels", np.ones((1, 1, 9, 9, 9), np.uint64)),
        ShapeError, ("5 axes", "labels")),
    Bad("7", "affinities without channels", key("run.data.affinities", "{data}/labels"), ShapeError,
        ("channel, z, y, x", "boundary|interior")),
    Bad("7", "labels with channels", key("run.data.labels", "{data}/affinities"), ShapeError,
        ("labels must have axes (z, y, x)",)),
    Bad("8", "an axis of length 0", lambda c: c.change("affinities", lambda m: m.update(
        shape=[3, 0, 40, 44])), ShapeError, ("none empty", "affinities")),
    Bad("12", "a mask of floats", with_mask(labels_of("f4", "mask")), DtypeError, ("mask",
        "float32")),
    Bad("15", "NaN affinities", floats(lambda a: a.__setitem__((0, 3, 4, slice(5, 9)), np.nan)),
        StageError, ("DataError", "4 values", "nan", "log: "), scans=True),
    Bad("15", "infinite affinities", floats(lambda a: a.__setitem__((2, 1, 1, 1), np.inf)),
        StageError, ("1 values", "inf"), scans=True),
    Bad("16", "affinities of 0 to 255 in floats", floats(lambda a: np.multiply(a, 255, out=a)),
        StageError, ("[0, 1]", "DataError"), scans=True),
    Bad("16", "negative affinities", floats(lambda a: a.__setitem__((1, 0, 0, 0), -0.5)),
        StageError,
        ("-0.5", "[0, 1]"), scans=True),
    Bad("17", "int8 affinities", affinities_of("i1"), DtypeError, ("uint8", "int8")),
    Bad("17", "uint16 affinities", affinities_of("u2"), DtypeError, ("uint8", "uint16")),
    Bad("18", "more offsets than channels",
        attribute("affinities", "neighborhood", [*DIRECT, (-2, 0, 0)]), ShapeError,
        ("3 channels, 4 offsets", "affinities")),
    Bad("18", "offsets contradict the attribute",
        key("run.data.offsets", [*DIRECT, [-2, 0, 0]]), MetadataError, ("contradict",
        "affinities")),
    Bad("18", "no offsets", lambda c: c.without("affinities", "neighborhood"), MetadataError,
        ("run.data.offsets", "affinities")),
    Bad("19", "offsets in two dimensions", attribute("affinities", "neighborhood", [[-1, 0]]),
        ConfigError, ("three whole numbers", "affinities")),
    Bad("19", "offsets that are no list", attribute("affinities", "neighborhood", 7), ConfigError,
        ("7", "affinities")),
    Bad("19", "fractional offsets", key("run.data.offsets", [[-1, 0, 0.5]]), ConfigError,
        ("run.data.offsets", "0.5")),
    Bad("19", "a zero offset", key("run.data.offsets", [*DIRECT, [0, 0, 0]]), ConfigError,
        ("distinct and not zero",)),
    Bad("19", "an offset twice", key("run.data.offsets", [*DIRECT, [-1, 0, 0]]), ConfigError,
        ("distinct",)),
    Bad("19", "an offset beyond the volume", long_offset(40), ConfigError,
        ("shorter than the volume", "[0, -40, 0]")),
    Bad("20", "offsets of the other sign", attribute("affinities", "neighborhood", POSITIVE),
        ConfigError, ("direct neighbours", "negate", "affinities")),
    Bad("20", "values stored at the other voxel", anchored, MetadataError, ("target", "negate")),
    Bad("21", "no voxel size", without_size, MetadataError,
        ("voxel size is not known", "--voxel-size")),
    Bad("22", "voxel sizes of text", attribute("affinities", "voxel_size", ["a", 8, 8]),
        MetadataError, ("three numbers", "'a'")),
    Bad("22", "a voxel size in one word", attribute("affinities", "voxel_size", "488"),
        MetadataError, ("three numbers", "488")),
    Bad("22", "a voxel size of null", attribute("affinities", "voxel_size", None), MetadataError,
        ("three numbers", "None")),
    Bad("22", "a voxel size of NaN", attribute("affinities", "voxel_size", ["nan", 8, 8]),
        MetadataError, ("three numbers",)),
    Bad("22", "a voxel size beyond the world", attribute("affinities", "voxel_size", [1e300, 8, 8]),
        MetadataError, ("1e15",)),
    Bad("23", "voxel size 0", attribute("affinities", "voxel_size", [40, 0, 8]), MetadataError,
        ("positive", "(40, 0, 8)")),
    Bad("23", "negative voxel size", attribute("labels", "voxel_size", [40, -8, 8]), MetadataError,
        ("positive", "labels")),
    Bad("24", "two lengths", attribute("affinities", "voxel_size", [40, 8]), MetadataError,
        ("three numbers", "[40, 8]")),
    Bad("24", "an offset of two lengths", attribute("affinities", "offset", [0, 8]), MetadataError,
        ("three numbers", "affinities")),
    Bad("25", "axes x, y, z by attribute", attribute("affinities", "axis_names",
        ["c^", "x", "y", "z"]), MetadataError, ("axes must end in z, y, x",)),
    Bad("25", "axes x, y, z by dimension names", other_order, MetadataError,
        ("dimension_names", "x, y, z")),
    Bad("25", "axes z, y, x of 7", attribute("affinities", "axis_names", 7), MetadataError,
        ("affinities", "metadata")),
    Bad("26", "labels with other voxels", lambda c: c.place("labels", [50, 8, 8], [100, 16, 8]),
        MetadataError, ("(50, 8, 8)", "(40, 8, 8)", "labels")),
    Bad("26", "voxel size against resolution", attribute("labels", "resolution", [4, 4, 40]),
        MetadataError, ("contradict", "(4, 4, 40)")),
    Bad("26", "a mask with other voxels", with_mask(
        lambda c: c.place("mask", [40, 8, 9], [80, 16, 9])), MetadataError, ("mask", "(40, 8, 9)")),
    Bad("27", "units um", attribute("affinities", "units", ["um", "um", "um"]), MetadataError,
        ("nm", "um", "affinities")),
    Bad("27", "one unit for all", attribute("labels", "units", "pixel"), MetadataError, ("pixel",)),
    Bad("27", "units of 7", attribute("labels", "units", 7), MetadataError, ("labels",)),
    Bad("28", "an offset between voxels", attribute("affinities", "offset", [81, 16, 8]), RoiError,
        ("whole voxels", "(81, 16, 8)", "affinities")),
    Bad("28", "a voxel size that is no divisor", attribute("labels", "offset", [80, 16, 12]),
        RoiError, ("whole voxels", "labels")),
    Bad("29", "labels elsewhere", moved("labels"), RoiError, ("overlap", "8000", "labels")),
    Bad("29", "a mask elsewhere", with_mask(moved("mask")), RoiError, ("overlap", "mask")),
    Bad("29", "a mask too small", with_mask(small_mask), RoiError, ("cover the region", "mask")),
    Bad("35", "signed labels", labels_of("i8"), DtypeError, ("unsigned", "int64", "labels")),
    Bad("36", "labels of floats", labels_of("f8"), DtypeError, ("unsigned", "float64")),
    Bad("35", "evaluate signed labels", scored(labels_of("i4", "truth")), DtypeError, ("int32",)),
    Bad("36", "evaluate labels of floats", scored(labels_of("f4")), DtypeError, ("float32",)),
    Bad("41", "more voxels than ids", all_of(huge_shape, key("run.data.labels", None)), RoiError,
        ("2^63", "run.data.roi")),
    Bad("43", "a truth of 0", no_truth("labels"), DataError, ("0 everywhere", "run.evaluate.roi"),
        scans=True),
    Bad("43", "evaluate against a truth of 0", scored(no_truth("truth")), DataError,
        ("scores need voxels with a truth",)),
    Bad("43", "evaluate within a border of everything", all_of(
        lambda c: shutil.copytree(c.data / "labels", c.data / "truth"),
        command("evaluate", "{data}/labels", "{data}/truth", "--border", "900")), DataError,
        ("scores need voxels with a truth", "within 900 nm of a border")),
    Bad("66", "evaluate with a negative border",
        command("evaluate", "{data}/labels", "{data}/labels", "--border", "-1"), ConfigError,
        ("--border", "-1")),
    Bad("66", "evaluate with a border of NaN",
        command("evaluate", "{data}/labels", "{data}/labels", "--border", "nan"), ConfigError,
        ("--border", "nan")),
    Bad("43", "evaluate on other voxels", scored(
        lambda c: c.place("truth", [40, 8, 4], [80, 16, 8])), MetadataError,
        ("one voxel size", "the segmentation")),
    Bad("43", "evaluate elsewhere", scored(moved("truth")), RoiError, ("overlap", "truth")),
    Bad("43", "evaluate affinities", command("evaluate", "{data}/affinities", "{data}/labels"),
        PipelineError, ("affinities",)),
    Bad("52", "a level outside its group", escaping_level, FormatError, ("inside its group",)),
    Bad("16", "a shard cut short", cut_shard(40), StageError, ("DataError", "damaged"), scans=True),
    Bad("16", "an empty shard", cut_shard(0), StageError, ("DataError", "damaged"), scans=True),
    Bad("16", "a missing shard", cut_shard(None), StageError, ("DataError", "missing"), scans=True),
]  # fmt: skip
