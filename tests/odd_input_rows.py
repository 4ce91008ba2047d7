"""Rows of input that looks bad and must work, and what must come of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.volume import Volume
from tests.bad_input_rows import Case, Fine, all_of, finished, key, labels_of, scored, with_mask
from tests.bad_input_volumes import long_offset


def half_floats(case: Case) -> None:
    case.plain("affinities", (case.read("affinities") / 255).astype(np.float16))


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
    assert said.count("done before") == 7


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
