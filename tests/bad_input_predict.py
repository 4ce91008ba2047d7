"""Rows of bad raw and bad settings of a prediction."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.errors import (
    ConfigError,
    DtypeError,
    LayoutError,
    NotFoundError,
    PipelineError,
    RoiError,
    ShapeError,
    StageError,
)
from tests.bad_input_rows import Bad, Case, Words
from tests.drawn import DIRECT, SHAPE, write_volume
from tests.predicted import CROP_VX, PATCH_VX, drawn_raw, write_checkpoint


def from_raw(
    change: Callable[[Case], object] | None = None, **predict: Any
) -> Callable[[Case], None]:
    """A run that starts from raw and would work, and a change of it."""

    def spoil(case: Case) -> None:
        write_volume(case.data / "raw", drawn_raw(), "raw")
        write_checkpoint(case.folder / "w.safetensors")
        case.set("run.data.affinities", None)
        case.set("run.data.raw", str(case.data / "raw"))
        case.set("run.predict", {
            "checkpoint": str(case.folder / "w.safetensors"), "device": "cpu",
            "patch_vx": list(PATCH_VX), "crop_vx": list(CROP_VX), **predict,
        })  # fmt: skip
        if change is not None:
            change(case)

    return spoil


def raw_of(
    dtype: str, values: Callable[[np.ndarray], np.ndarray] | None = None
) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        data = drawn_raw()
        case.plain("raw", (values(data) if values else data).astype(dtype))

    return from_raw(change)


def raw_with(place: tuple[int, ...] | slice, value: float) -> Callable[[Case], None]:
    """Raw of floats, some of them spoilt."""

    def values(data: np.ndarray) -> np.ndarray:
        found = data.astype(np.float32) / 255
        found[place] = value
        return found

    return raw_of("f4", values)


def raw_shape(*shape: int) -> Callable[[Case], None]:
    return from_raw(lambda case: case.plain("raw", np.ones(shape, np.uint8)))


def without_checkpoint(**settings: Any) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        (case.folder / "w.safetensors").unlink()
        case.set("run.predict", settings)

    return from_raw(change)


def direct_head(case: Case) -> None:
    write_checkpoint(case.folder / "w.safetensors", head="affinity", pyramid=False)


def lost_shard(case: Case) -> None:
    case.shard("raw").unlink()


def no_raw(case: Case) -> None:
    shutil.rmtree(case.data / "raw")


def refused(
    row: str, what: str, spoil: Callable[[Case], object], kind: type[PipelineError], *words: str
) -> Bad:
    return Bad(row, what, spoil, kind, words)


def scanned(row: str, what: str, spoil: Callable[[Case], object], *words: str) -> Bad:
    """Seen in the voxels."""
    found: Words = words
    return Bad(row, what, spoil, StageError, found, scans=True)


FAR = [*DIRECT, [0, 0, -6]]

REFUSED_PREDICT = [
    refused("1", "no raw", from_raw(no_raw), NotFoundError, "raw", "labels/s0"),
    refused("1", "a run with nothing to start from",
        from_raw(lambda c: c.set("run.data.raw", None)), ConfigError, "run.data.raw"),
    refused("7", "raw in two dimensions", raw_shape(40, 44), ShapeError, "2 axes", "raw"),
    refused("7", "raw with channels", raw_shape(3, *SHAPE), ShapeError,
        "raw must have axes (z, y, x)"),
    refused("7", "raw in five dimensions", raw_shape(1, 1, *SHAPE), ShapeError, "5 axes", "raw"),
    refused("8", "raw with an axis of length 0", from_raw(lambda c: c.change(
        "raw", lambda meta: meta.update(shape=[12, 0, 44]))), ShapeError, "none empty", "raw"),
    refused("11", "uint16 raw without a range", raw_of("u2"), DtypeError, "uint16", "raw_range",
        "[0, 65535]"),
    refused("11", "int16 raw without a range", raw_of("i2"), DtypeError, "int16", "raw_range"),
    refused("11", "a range that is none", from_raw(lambda c: c.set("run.data.raw_range", [9, 9])),
        ConfigError, "raw_range", "[9.0, 9.0]"),
    refused("12", "complex raw", raw_of("c8"), DtypeError, "complex64", "raw"),
    refused("12", "raw of bool", raw_of("?"), DtypeError, "bool", "raw"),
    refused("12", "raw of text", raw_of("U3"), PipelineError, "raw"),
    scanned("10", "raw floats of 0 to 255", raw_of("f4"), "[0, 1]", "raw_range", "DataError"),
    scanned("10", "a negative raw float", raw_with((3, 4, 5), -0.5), "1 values", "-0.5"),
    scanned("14", "NaN in raw", raw_with((slice(1, 2), 4, slice(5, 8)), np.nan), "finite",
        "3 values", "nan", "DataError", "log: "),
    scanned("14", "infinite raw", raw_with((3, 4, 5), np.inf), "finite", "1 values", "inf"),
    scanned("16", "a missing shard of raw", from_raw(lost_shard), "missing", "DataError"),
    refused("29", "a region outside raw", from_raw(lambda c: c.set("run.data.roi",
        {"offset": [0, 0, 0], "shape": [40, 8, 8]})), RoiError, "inside the raw"),
    refused("33", "a patch that the network does not divide", from_raw(patch_vx=[8, 21, 24]),
        LayoutError, "multiples of [1, 2, 2]", "[8, 21, 24]", "[8, 20, 24]"),
    refused("33", "a crop that leaves nothing", from_raw(crop_vx=[4, 10, 12]), LayoutError,
        "[4, 10, 12]", "[8, 20, 24]", "At most [3, 9, 11]"),
    refused("34", "an offset longer than the crop", from_raw(offsets=FAR), ConfigError,
        "[0, 0, -6]", "[2, 4, 5]", "crop_vx=[2, 4, 6]"),
    refused("34", "direct neighbours and no crop", from_raw(crop_vx=[0, 0, 0]), ConfigError,
        "crop_vx=[1, 1, 1]"),
    refused("18", "offsets that a network of affinities does not have",
        from_raw(direct_head, offsets=FAR), ConfigError, "trained on", "[[0, 0, -6]]"),
    refused("18", "embeddings of a network of affinities", from_raw(direct_head, embeddings=True),
        ConfigError, "run.predict.embeddings"),
    refused("1", "no training yet", without_checkpoint(), NotFoundError, "best.safetensors",
        "pea train", "run.predict.released"),
    refused("1", "no checkpoint at a path", without_checkpoint(checkpoint="a/b.safetensors"),
        NotFoundError, "a/b.safetensors"),
    refused("1", "released weights that there are not",
        without_checkpoint(released="nobody"), NotFoundError, "nobody", "Released are"),
    refused("48", "released without a name", without_checkpoint(checkpoint="released"), ConfigError,
        "run.predict.released"),
    refused("68", "bf16 on a CPU", from_raw(precision="bf16"), ConfigError, "bf16", "fp32"),
    refused("32", "a patch that needs too much memory", from_raw(patch_vx=[512, 2048, 2048],
        crop_vx=[8, 32, 32]), LayoutError, "predict_blockwise", "GB", "patch_vx"),
]  # fmt: skip
