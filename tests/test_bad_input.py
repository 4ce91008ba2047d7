"""Every bad input of the list in RELIABILITY.md, section 5, is refused in a few clear lines.

Rows 1 to 49 and 66 to 70, as far as they concern what exists: volumes, affinities, labels, masks,
regions, run files, machines, outputs and scores. Elsewhere, or not built yet:

- 9 to 11, 13, 14, 33: the network reads raw; nothing here does.
- 12, 35 to 37 for source files, 53 to 65: the door for data of others, tests/test_ingest.py.
- 34: halos follow from the offsets and the rule; nobody can set one (tests/test_tiling.py).
- 38: every label on disk is uint64 (tests/test_geometry.py, tests/test_ingest.py).
- 46: the convention for 0, against scikit-image: tests/test_scores.py.
- 67: there is no multicut yet. 70, `--overwrite`: pea ingest, tests/test_ingest.py.
"""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.config import checked_settings, dump_settings, load_settings, load_yaml
from pipeline.errors import (
    ConfigError,
    DataError,
    DtypeError,
    ExistsError,
    FormatError,
    LayoutError,
    MetadataError,
    NotFoundError,
    PipelineError,
    RoiError,
    ShapeError,
    StageError,
)
from pipeline.volume import Volume
from tests.drawn import DIRECT, SHAPE, files_state, run_tree, set_at, write_inputs, write_volume
from workers import cli

Words = tuple[str, ...]


@dataclass
class Case:
    """A valid small run, to be broken: its inputs, run file and command line."""

    folder: Path
    data: Path = field(init=False)
    tree: dict[str, Any] = field(init=False)
    text: str | None = None
    """The run file itself, instead of ``tree``."""
    command: list[str] | None = None

    def __post_init__(self) -> None:
        self.data = self.folder / "data.zarr"
        self.tree = run_tree(self.data, block_vx=(16, 40, 48), retries=0)

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def root(self) -> Path:
        return self.runs / "small"

    def set(self, key: str, value: Any) -> None:
        set_at(self.tree, key, value)

    def words(self, *changes: str) -> list[str]:
        """The command line, once the run file is written."""
        path = self.folder / "run.yaml"
        text = self.text if self.text is not None else yaml.safe_dump(self.tree)
        path.write_text(text.replace("{data}", str(self.data)))
        if self.command is not None:
            return self.command
        return ["run", "all", str(path), *changes, "--runs", str(self.runs)]

    def metadata(self, name: str) -> Path:
        return self.data / name / "s0" / "zarr.json"

    def change(self, name: str, edit: Callable[[dict[str, Any]], None]) -> None:
        """Edit the zarr.json of an input."""
        path = self.metadata(name)
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    def attribute(self, name: str, key: str, value: Any) -> None:
        self.change(name, lambda meta: meta["attributes"].__setitem__(key, value))

    def without(self, name: str, *keys: str) -> None:
        def edit(meta: dict[str, Any]) -> None:
            for key in keys:
                del meta["attributes"][key]

        self.change(name, edit)

    def place(self, name: str, size: list[float], offset: list[float]) -> None:
        for key in ("voxel_size", "resolution"):
            self.attribute(name, key, size)
        self.attribute(name, "offset", offset)

    def plain(self, name: str, data: np.ndarray, zarr_format: int = 2, **settings: Any) -> None:
        """Replace an input by an array as other programs write it."""
        path = self.data / name
        shutil.rmtree(path, ignore_errors=True)
        array = zarr.create_array(
            path,
            data=data,
            zarr_format=zarr_format,
            chunks=(*data.shape[:-3], 8, 16, 16)[-data.ndim :],
            config={"write_empty_chunks": True},
            **settings,
        )
        array.attrs.update({"voxel_size": [40, 8, 8], "offset": [80, 16, 8]})
        if data.ndim == 4:
            array.attrs["neighborhood"] = [list(v) for v in DIRECT][: data.shape[0]]

    def read(self, name: str) -> np.ndarray:
        volume = Volume.open(self.data / name)
        return volume.read(volume.roi)

    def shard(self, name: str) -> Path:
        """One file of voxels of an input."""
        return next(p for p in sorted((self.data / name / "s0" / "c").rglob("*")) if p.is_file())


@dataclass(frozen=True)
class Bad:
    """A row: what is wrong, how to make it so, and what must be said."""

    row: str
    what: str
    spoil: Callable[[Case], object]
    kind: type[PipelineError]
    words: Words
    scans: bool = False
    """Seen in the voxels only: blocks fail, and nothing is published."""
    changes: Words = ()
    """On the command line."""


@dataclass(frozen=True)
class Fine:
    """A row that looks bad, and must work."""

    row: str
    what: str
    spoil: Callable[[Case], object]
    check: Callable[[Case, str], None]


def key(name: str, value: Any) -> Callable[[Case], None]:
    return lambda case: case.set(name, value)


def text(content: str) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        case.text = content

    return spoil


def attribute(name: str, attr: str, value: Any) -> Callable[[Case], None]:
    return lambda case: case.attribute(name, attr, value)


def command(*words: str) -> Callable[[Case], None]:
    """Words with {data} and {folder} filled in."""

    def spoil(case: Case) -> None:
        case.command = [word.format(data=case.data, folder=case.folder) for word in words]

    return spoil


EVALUATE = command("evaluate", "{data}/labels", "{data}/truth")


def scored(spoil: Callable[[Case], object]) -> Callable[[Case], None]:
    """`pea evaluate` of the labels against a copy of them, one of which is spoilt."""

    def both(case: Case) -> None:
        shutil.copytree(case.data / "labels", case.data / "truth")
        spoil(case)
        EVALUATE(case)

    return both


def all_of(*parts: Callable[[Case], object]) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        for part in parts:
            part(case)

    return spoil


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


def half_floats(case: Case) -> None:
    case.plain("affinities", (case.read("affinities") / 255).astype(np.float16))


def affinities_of(dtype: str) -> Callable[[Case], None]:
    return lambda case: case.plain("affinities", case.read("affinities").astype(dtype))


def labels_of(dtype: str, name: str = "labels") -> Callable[[Case], None]:
    return lambda case: case.plain(name, case.read(name).astype(dtype))


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


def with_mask(spoil: Callable[[Case], object]) -> Callable[[Case], None]:
    return all_of(lambda case: case.set("run.data.mask", str(case.data / "mask")), spoil)


def small_mask(case: Case) -> None:
    shutil.rmtree(case.data / "mask")
    write_volume(case.data / "mask", np.ones((12, 40, 32), np.uint8), "mask")


def finished(case: Case) -> None:
    assert cli.main(case.words()) == 0


def half_finished(case: Case) -> None:
    """Stop after the arrays were made and before the first block: no affinities to read."""
    case.attribute("affinities", "content_digest", "of what it should hold")
    hidden = case.folder / "hidden"
    shutil.move(case.shard("affinities").parents[3], hidden)
    case.set("run.data.labels", None)
    assert cli.main(case.words()) == 1
    shutil.move(hidden, case.data / "affinities" / "s0" / "c")


def foreign_output(name: str) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        write_volume(case.root / "volumes.zarr" / name, np.ones(SHAPE, np.uint64), "mine")

    return spoil


def occupied(relative: str) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        path = case.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")

    return spoil


def inside_input(case: Case) -> None:
    case.command = [*case.words()[:-1], str(case.data / "affinities")]


def around_input(case: Case) -> None:
    """A run directory that holds its own input: dropping must never reach it."""
    shutil.copytree(case.data, case.root / "data.zarr")
    case.set("run.data.affinities", str(case.root / "data.zarr" / "affinities"))


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


BOMB = "run: &a0 [x, x]\n" + "".join(
    f"k{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 12)
)
DEEP = "run: " + "[" * 5000 + "]" * 5000
POSITIVE = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]

REFUSED = [
    Bad("1", "missing path", missing_path, NotFoundError, ("affinitis",
        "affinities/s0, labels/s0")),
    Bad("1", "path too long", key("run.data.affinities", "a" * 300), NotFoundError, ("aaa",)),
    Bad("1", "no run file", command("run", "all", "{folder}/no.yaml"), NotFoundError, ("no.yaml",)),
    Bad("1", "run file is a folder", command("plan", "{folder}"), ConfigError, ("run file",)),
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
    Bad("30", "a region outside", key("run.data.roi", {"offset": [0, 0, 0], "shape": [40, 8, 8]}),
        RoiError, ("(0, 0, 0)", "(80, 16, 8)", "inside the affinities")),
    Bad("30", "a region too large", key("run.data.roi",
        {"offset": [80, 16, 8], "shape": [4000, 80, 80]}), RoiError, ("4080",)),
    Bad("30", "an empty region", key("run.data.roi", {"offset": [80, 16, 8], "shape": [0, 80, 80]}),
        RoiError, ("inside the affinities",)),
    Bad("30", "a negative region", key("run.data.roi",
        {"offset": [80, 16, 8], "shape": [-40, 80, 80]}), RoiError, ("inside the affinities",)),
    Bad("31", "a region between voxels", key("run.data.roi",
        {"offset": [80, 17, 8], "shape": [40, 80, 80]}), RoiError,
        ("run.data.roi.offset", "whole voxels", "nearest")),
    Bad("31", "a region of NaN", key("run.data.roi",
        {"offset": [80, math.nan, 8], "shape": [40, 80, 80]}), ConfigError,
        ("run.data.roi.offset",)),
    Bad("31", "a region of 1e300 nm", key("run.data.roi",
        {"offset": [80, 16, 8], "shape": [40, 1e300, 80]}), ConfigError, ("run.data.roi.shape",)),
    Bad("32", "another block in a half-finished stage",
        all_of(half_finished, key("machine.fragments.block_vx", [16, 24, 48])), LayoutError,
        ("fragments_blockwise", "[16, 40, 48]", "[16, 24, 48]", "pea drop")),
    Bad("32", "a block of no size", key("machine.edges.block_vx", [8, 0, 32]), ConfigError,
        ("machine.edges.block_vx", "[8, 0, 32]")),
    Bad("32", "a block of two sides", key("machine.edges.block_vx", [8, 8]), ConfigError,
        ("machine.edges.block_vx", "three whole numbers")),
    Bad("32", "a block beyond memory", key("machine.fragments.block_vx", [4096, 4096, 4096]),
        LayoutError, ("GB", "fragments_blockwise", "memory_gb")),
    Bad("32", "a block of 1e400", key("machine.edges.block_vx", [8, 8, 10**400]), ConfigError,
        ("machine.edges.block_vx",)),
    Bad("35", "signed labels", labels_of("i8"), DtypeError, ("unsigned", "int64", "labels")),
    Bad("36", "labels of floats", labels_of("f8"), DtypeError, ("unsigned", "float64")),
    Bad("35", "evaluate signed labels", scored(labels_of("i4", "truth")), DtypeError, ("int32",)),
    Bad("36", "evaluate labels of floats", scored(labels_of("f4")), DtypeError, ("float32",)),
    Bad("41", "more voxels than ids", all_of(huge_shape, key("run.data.labels", None)), RoiError,
        ("2^63", "run.data.roi")),
    Bad("43", "a truth of 0", no_truth("labels"), DataError, ("0 everywhere", "run.data.roi"),
        scans=True),
    Bad("43", "evaluate against a truth of 0", scored(no_truth("truth")), DataError,
        ("scores need voxels with a truth",)),
    Bad("43", "evaluate on other voxels", scored(
        lambda c: c.place("truth", [40, 8, 4], [80, 16, 8])), MetadataError,
        ("one voxel size", "the segmentation")),
    Bad("43", "evaluate elsewhere", scored(moved("truth")), RoiError, ("overlap", "truth")),
    Bad("43", "evaluate affinities", command("evaluate", "{data}/affinities", "{data}/labels"),
        PipelineError, ("affinities",)),
    Bad("47", "an unknown key", key("run.agglomerate.treshold", 0.5), ConfigError,
        ("run.agglomerate.treshold: no such key",)),
    Bad("47", "an unknown section", key("model", {}), ConfigError, ("model: no such key",)),
    Bad("47", "no name", lambda c: c.tree["run"].pop("name"), ConfigError,
        ("run.name: must be given",)),
    Bad("47", "no affinities", lambda c: c.tree["run"]["data"].pop("affinities"), ConfigError,
        ("run.data.affinities", "pea ingest")),
    Bad("47", "nothing", text(""), ConfigError, ("mapping",)),
    Bad("47", "an unknown key on the command line", key("run.name", "small"), ConfigError,
        ("run.fragments.narow_nm: no such key",), changes=("run.fragments.narow_nm=3",)),
    Bad("47", "a change without a value", key("run.name", "small"), ConfigError, ("KEY=VALUE",),
        changes=("run.name",)),
    Bad("47", "a change below a value", key("run.name", "small"), ConfigError,
        ("name has no keys below it",), changes=("run.name.x=3",)),
    Bad("47", "a change that is no YAML", key("run.name", "small"), ConfigError, ("YAML",),
        changes=("run.name=[",)),
    Bad("48", "a threshold of text", key("run.agglomerate.threshold", "high"), ConfigError,
        ("run.agglomerate.threshold", "'high'")),
    Bad("48", "a list for a section", key("run.agglomerate", [1]), ConfigError,
        ("run.agglomerate",)),
    Bad("48", "null for a section", key("machine.edges", None), ConfigError, ("machine.edges",)),
    Bad("48", "a number for a path", key("run.data.affinities", 7), ConfigError,
        ("run.data.affinities", "7")),
    Bad("48", "yes for a number", key("machine.edges.workers", True), ConfigError,
        ("machine.edges.workers",)),
    Bad("48", "another method", key("run.agglomerate.method", "magic"), ConfigError,
        ("mean_affinity", "'magic'")),
    Bad("48", "another runner", key("machine.runner", "spark"), ConfigError, ("serial", "'spark'")),
    Bad("48", "a list of runs", text("- run\n- machine\n"), ConfigError, ("mapping",)),
    Bad("48", "bytes", all_of(lambda c: (c.folder / "b.yaml").write_bytes(b"\xff\xfe\x00"),
        command("plan", "{folder}/b.yaml")), ConfigError, ("b.yaml",)),
    Bad("49", "a key twice", text("run:\n  name: a\n  name: b\n"), ConfigError, ("'name'",
        "twice")),
    Bad("50", "a tag that makes objects", text('run: !!python/object/apply:os.system ["true"]\n'),
        ConfigError, ("YAML", "python/object")),
    Bad("51", "an alias bomb", text(BOMB), ConfigError, ("aliases",)),
    Bad("51", "deep nesting", text(DEEP), ConfigError, ("deep",)),
    Bad("51", "deep nesting on the command line", key("run.name", "small"), ConfigError, ("deep",),
        changes=("run.name=" + "[" * 3000,)),
    Bad("51", "a file of megabytes", text("run: " + "x" * 3_000_000), ConfigError, ("100000",)),
    Bad("52", "a name with ..", key("run.name", "../other"), ConfigError, ("run.name", "../other")),
    Bad("52", "an absolute name", key("run.name", "/etc/x"), ConfigError, ("run.name",)),
    Bad("52", "a name from the environment", key("run.name", "${HOME}"), ConfigError,
        ("run.name",)),
    Bad("52", "a level outside its group", escaping_level, FormatError, ("inside its group",)),
    Bad("16", "a shard cut short", cut_shard(40), StageError, ("DataError", "damaged"), scans=True),
    Bad("16", "an empty shard", cut_shard(0), StageError, ("DataError", "damaged"), scans=True),
    Bad("16", "a missing shard", cut_shard(None), StageError, ("DataError", "missing"), scans=True),
    Bad("66", "a threshold below 0", key("run.agglomerate.threshold", -0.1), ConfigError,
        ("run.agglomerate.threshold", "-0.1")),
    Bad("66", "a threshold above 1", key("run.agglomerate.threshold", 1.5), ConfigError, ("1.5",)),
    Bad("66", "a threshold of NaN", key("run.agglomerate.threshold", math.nan), ConfigError,
        ("run.agglomerate.threshold", "nan")),
    Bad("66", "thresholds out of order", key("run.evaluate.thresholds", [0.5, 0.2]), ConfigError,
        ("run.evaluate.thresholds", "ascending")),
    Bad("66", "a threshold twice", key("run.evaluate.thresholds", [0.5, 0.5]), ConfigError,
        ("repeats",)),
    Bad("66", "no thresholds", key("run.evaluate.thresholds", []), ConfigError,
        ("run.evaluate.thresholds",)),
    Bad("66", "NaN among thresholds", key("run.evaluate.thresholds", [0.1, math.nan]), ConfigError,
        ("run.evaluate.thresholds",)),
    Bad("66", "negative dust", key("run.agglomerate.dust_vx", -1), ConfigError, ("dust_vx",)),
    Bad("66", "dust beyond uint64", key("run.agglomerate.dust_vx", 10**30), ConfigError,
        ("dust_vx",)),
    Bad("66", "a negative sigma", key("run.fragments.wide_nm", -1), ConfigError, ("wide_nm",)),
    Bad("68", "no workers", key("machine.fragments.workers", 0), ConfigError,
        ("machine.fragments.workers", "found 0")),
    Bad("68", "minus one worker", key("machine.fragments.workers", -1), ConfigError, ("found -1",)),
    Bad("68", "half a worker", key("machine.fragments.workers", 0.5), ConfigError, ("0.5",)),
    Bad("69", "negative memory", key("machine.fragments.memory_gb", -2), ConfigError,
        ("machine.fragments.memory_gb", "-2")),
    Bad("69", "infinite memory", key("machine.fragments.memory_gb", math.inf), ConfigError,
        ("inf",)),
    Bad("69", "no time", key("machine.fragments.timeout_s", 0), ConfigError, ("timeout_s",)),
    Bad("69", "endless time", key("machine.fragments.timeout_s", 1e300), ConfigError,
        ("timeout_s",)),
    Bad("70", "an array of others", foreign_output("basins"), ExistsError, ("basins", "--rerun")),
    Bad("70", "an array of others further on", foreign_output("fragments"), ExistsError,
        ("fragments", "edges_blockwise")),
    Bad("70", "a file for the run directory", occupied("runs/small"), ExistsError, ("small",
        "file")),
    Bad("70", "a file for the runs", occupied("runs"), ExistsError, ("runs", "file")),
    Bad("70", "a file for the volumes", occupied("runs/small/volumes.zarr"), ExistsError,
        ("volumes.zarr",)),
    Bad("70", "a file for an array", occupied("runs/small/volumes.zarr/basins"), ExistsError,
        ("basins",)),
    Bad("70", "a run inside its input", inside_input, ExistsError, ("apart", "affinities")),
    Bad("70", "an input inside its run", around_input, ExistsError, ("apart", "affinities")),
    Bad("70", "other settings", all_of(finished, key("run.fragments.wide_share", 0.1)), ConfigError,
        ("wide_share: 0.4 -> 0.1", "--rerun")),
]  # fmt: skip


def same_scores(case: Case, said: str) -> None:
    """As the run of the undamaged inputs; sums are in the order of the labels."""
    scores = scores_of(case)
    for found, expected in zip(scores["thresholds"], REFERENCE["thresholds"], strict=True):
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12), said


def empty(case: Case, said: str) -> None:
    assert "WARNING: fragments_blockwise wrote nothing but background" in said
    volume = Volume.open(case.root / "volumes.zarr" / "segmentation")
    assert not volume.read(volume.roi).any()
    assert scores_of(case)["num_segments"] == 1


def defined(case: Case, said: str) -> None:
    scores = scores_of(case)
    assert all(math.isfinite(scores[name]) for name in ("voi", "arand")), said


def one_object(case: Case, said: str) -> None:
    assert scores_of(case)["num_objects"] == 1
    assert scores_of(case)["voi_merge"] == 0


def perfect(case: Case, said: str) -> None:
    scores = json.loads(said)
    assert (scores["voi"], scores["arand"]) == (0, 0)


def nothing_done(case: Case, said: str) -> None:
    assert said.count("done before") == 6


def scores_of(case: Case) -> dict[str, Any]:
    scores = dict(json.loads((case.root / "scores.json").read_text()))
    for name in ("truth", "fingerprint"):
        del scores[name]
    return scores


REFERENCE: dict[str, Any] = {}
"""Scores of the undamaged run, filled in by the fixture ``template``."""


def constant(name: str, value: int) -> Callable[[Case], None]:
    return lambda case: case.plain(name, np.full_like(case.read(name), value))


def relabelled(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Case], None]:
    return lambda case: case.plain(name, change(case.read(name)))


def largest(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == 3, np.uint64(2**64 - 1), labels)


def smaller_truth(case: Case) -> None:
    """Truth of another shape that lies inside the segmentation."""
    part = case.read("truth")[2:9, 10:30]
    case.plain("truth", part)
    attributes = case.data / "truth" / ".zattrs"
    attributes.write_text(json.dumps({"voxel_size": [40, 8, 8], "offset": [160, 96, 8]}))


def resolution_only(case: Case) -> None:
    case.without("affinities", "voxel_size")


def fractional(case: Case) -> None:
    for name in ("affinities", "labels"):
        case.place(name, [40.4, 4.04, 4.04], [80.8, 8.08, 4.04])


def one_section(case: Case) -> None:
    case.plain("affinities", case.read("affinities")[:, :1])
    case.set("run.fragments.per_section", True)


WORKS = [
    Fine("19", "an offset larger than the block", long_offset(25), defined),
    Fine("21", "resolution instead of voxel_size", resolution_only, same_scores),
    Fine("22", "voxels of 4.04 nm", fractional, defined),
    Fine("8", "a single section", one_section, defined),
    Fine("15", "floats of 16 bits", half_floats, defined),
    Fine("31", "a region of a few voxels", key("run.data.roi",
        {"offset": [120, 24, 16], "shape": [80, 80, 88]}), defined),
    Fine("39", "label 2^64 - 1", relabelled("labels", largest), same_scores),
    Fine("40", "sparse labels", relabelled("labels", lambda a: a * np.uint64(2**40 + 1)),
        same_scores),
    Fine("38", "labels of 32 bits", labels_of("u4"), same_scores),
    Fine("42", "affinities of 0", constant("affinities", 0), defined),
    Fine("42", "affinities of 255", constant("affinities", 255), defined),
    Fine("42", "a mask of 0", with_mask(constant("mask", 0)), empty),
    Fine("42", "a mask of bool", with_mask(relabelled("mask", lambda a: np.ones_like(a, bool))),
        same_scores),
    Fine("42", "one true object", constant("labels", 7), one_object),
    Fine("43", "evaluate on a part", all_of(scored(smaller_truth),
        lambda c: c.command.append("--json")), perfect),
    Fine("44", "Fortran order", lambda c: c.plain("labels", c.read("labels"), order="F"),
        same_scores),
    Fine("44", "Fortran order of affinities",
        lambda c: c.plain("affinities", c.read("affinities"), order="F"), same_scores),
    Fine("39", "evaluate label 2^64 - 1", all_of(scored(relabelled("truth", largest)),
        lambda c: c.command.append("--json")), perfect),
    Fine("46", "0 is an ordinary segment", all_of(scored(relabelled("labels", lambda a: a - 1)),
        lambda c: c.command.append("--json")), perfect),
    Fine("70", "a finished run", finished, nothing_done),
]  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs that nobody has spoilt yet."""
    folder = tmp_path_factory.mktemp("template")
    write_inputs(folder)
    case = Case(folder)
    assert cli.main(case.words()) == 0
    REFERENCE.update(scores_of(case))
    shutil.rmtree(case.runs)
    return folder


@pytest.fixture
def case(template: Path, tmp_path: Path) -> Case:
    shutil.copytree(template / "data.zarr", tmp_path / "data.zarr")
    return Case(tmp_path)


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """What the command line raised before it became a message."""
    errors: list[BaseException] = []
    app = cli.app

    def recorded(*words: Any, **options: Any) -> object:
        try:
            return app(*words, **options)
        except BaseException as error:
            errors.append(error)
            raise

    monkeypatch.setattr(cli, "app", recorded)
    return errors


def name_of(row: Bad | Fine) -> str:
    return f"{row.row}: {row.what}"


@pytest.mark.filterwarnings("ignore")  # of the libraries, about what they are given here
@pytest.mark.parametrize("bad", REFUSED, ids=name_of)
def test_bad_input_is_refused_in_a_few_lines_and_nothing_is_written(
    bad: Bad, case: Case, raised: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    bad.spoil(case)
    words = case.words(*bad.changes)
    raised.clear()
    capsys.readouterr()
    before = files_state(case.folder)
    started = time.monotonic()
    status = cli.main(words)
    seconds = time.monotonic() - started
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()

    assert status == 1, said
    assert len(raised) == 1
    assert isinstance(raised[0], bad.kind), repr(raised[0])
    assert lines[0].startswith("error: ")
    assert 1 <= len(lines) <= 4, said.err
    assert max(len(line) for line in lines) < 600, said.err
    assert "Traceback" not in said.err + said.out
    for word in bad.words:
        assert word in said.err, said.err
    assert not (case.folder / "executed").exists()
    if bad.scans:
        assert not (case.root / "scores.json").exists()
    else:
        assert files_state(case.folder) == before
        assert seconds < 2, f"metadata show it, yet it took {seconds:.1f} s"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fine", WORKS, ids=name_of)
def test_odd_input_works(fine: Fine, case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    fine.spoil(case)
    words = case.words()
    capsys.readouterr()
    status = cli.main(words)
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "Traceback" not in said.err
    fine.check(case, said.out)


def test_count_of_rows(capsys: pytest.CaptureFixture[str]) -> None:
    rows = sorted({int(row.row) for row in (*REFUSED, *WORKS)})
    with capsys.disabled():
        print(
            f"\nbad input: {len(REFUSED)} ways refused and {len(WORKS)} odd ones that work, "
            f"of {len(rows)} rows: {rows}"
        )
    assert len(REFUSED) + len(WORKS) >= 120


VALID = yaml.safe_dump(run_tree(Path("data.zarr")))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 3),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["..", "", "\0", "1e400", "2001-02-30", "nan", "*a", "<<", "a/b"]),
    st.dates(),
    st.binary(max_size=4),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        "run", "machine", "run.name", "run.data", "run.data.affinities", "run.data.offsets",
        "run.data.labels", "run.data.roi", "run.data.roi.offset", "run.data.roi.shape",
        "run.data.mask", "run.fragments", "run.fragments.narrow_nm", "run.fragments.per_section",
        "run.agglomerate", "run.agglomerate.threshold", "run.agglomerate.dust_vx",
        "run.evaluate.thresholds", "machine.runner", "machine.edges", "machine.edges.workers",
        "machine.edges.block_vx", "machine.edges.memory_gb", "machine.edges.timeout_s", "new",
    ]
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=3))
@example([("run.data.offsets", [[float("inf"), 0, 0]])])
@example([("run.data.roi.offset", [True, 1, 1])])
@example([("run.evaluate.thresholds", {"a": 1})])
def test_mutated_run_files_are_read_or_refused(changes: list[tuple[str, Any]]) -> None:
    tree = yaml.safe_load(VALID)
    for name, value in changes:
        parent = tree
        for part in name.split(".")[:-1]:
            parent = parent.get(part) if isinstance(parent.get(part), dict) else {}
        parent[name.rpartition(".")[2]] = value
    with contextlib.suppress(PipelineError):
        read = checked_settings(load_yaml(yaml.dump(tree), "run.yaml"), "run.yaml")
        assert checked_settings(load_yaml(dump_settings(read), "again"), "again") == read


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(VALID) - 1), st.text(max_size=3), st.integers(0, 3))
def test_mutated_text_of_run_files_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, inserted: str, dropped: int
) -> None:
    path = tmp_path_factory.mktemp("text") / "run.yaml"
    path.write_bytes((VALID[:place] + inserted + VALID[place + dropped :]).encode(errors="replace"))
    with contextlib.suppress(PipelineError):
        load_settings(path)
