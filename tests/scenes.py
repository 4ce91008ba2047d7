"""Small volumes on disk, run in one way after another, and what must come of it by the oracles."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy.ndimage import gaussian_filter
from skimage.metrics import adapted_rand_error, variation_of_information

from pipeline.config import (
    Fragments,
    Workers,
    checked_settings,
)
from pipeline.geometry import ZYX, BlockGrid, Nm, Offsets, Roi, nanometres
from pipeline.graph import MergeTree
from pipeline.plan import Plan, make_plan
from pipeline.segment.edges import fragment_sizes, region_edges
from pipeline.segment.segments import Rule, merge_tree, segments_at
from pipeline.spec import VolumeSpec
from pipeline.stages.agglomerate import read_tree
from pipeline.stages.stage import Stage
from pipeline.volume import Volume
from tests import oracles
from workers.drive import drive
from workers.runner import Progress, Runner
from workers.serial_runner import SerialRunner
from workers.state import StageReport

Sides = tuple[int, int, int]
DIRECT = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
LONG = (*DIRECT, (-3, 0, 0), (0, -9, 0), (0, 0, -27), (1, -2, 4))
STAGES = ("fragments", "edges", "relabel", "downsample", "evaluate")
SWEEP = (0.2, 0.4, 0.6)
SMALL, MEDIUM, WHOLE = (3, 5, 40), (4, 6, 47), (7, 14, 130)


@dataclass(frozen=True)
class Scene:
    """Arrays, and how to segment them. Longest along x, so that two coarser levels follow."""

    size_nm: tuple[object, object, object]
    vectors: tuple[tuple[int, int, int], ...]
    fragments: dict[str, Any]
    shape: Sides = (7, 14, 130)
    begin: Sides = (-3, 10, 7)
    """World voxel of the first voxel."""
    roi: tuple[Sides, Sides] | None = None
    """Begin in world voxels, and shape."""
    is_float: bool = False
    is_masked: bool = False
    value: float = 0.45
    """The threshold, or beta."""
    dust_vx: int = 0
    method: dict[str, Any] = field(default_factory=lambda: {"method": "mean_affinity"})
    parameter: str = "threshold"

    @property
    def region(self) -> tuple[slice, ...]:
        """The region segmented, as an index into the arrays."""
        begin, shape = self.roi or (self.begin, self.shape)
        return tuple(
            slice(b - o, b - o + n) for b, n, o in zip(begin, shape, self.begin, strict=True)
        )

    def affinities(self) -> np.ndarray:
        rng = np.random.default_rng(7)
        noise = gaussian_filter(rng.random((len(self.vectors), *self.shape)), (0, 1, 2, 2))
        values = (noise - noise.min()) / (noise.max() - noise.min())
        if self.is_float:
            return values.astype(np.float32)
        return np.rint(values * 40).astype(np.uint8) * np.uint8(6)

    def mask(self) -> np.ndarray:
        found = np.ones(self.shape, np.uint8)
        found[:, :8, 40:100] = 0
        found[3] = 0
        found[5:, 10:, :33] = 0
        return found

    def truth(self) -> tuple[np.ndarray, Sides]:
        """Labels of a box that only overlaps the region, and its place in world voxels."""
        rng = np.random.default_rng(8)
        labels = rng.integers(0, 6, (5, 4, 20)).repeat(3, 1).repeat(5, 2).astype(np.uint64)
        return labels * np.uint64(2**50 + 1), (self.begin[0] + 1, self.begin[1] - 2, self.begin[2])


PLAIN = Scene(("4.04", "4.04", "4.04"), LONG, {"narrow_nm": 4.0, "wide_nm": 9.0})
MASKED = Scene(
    (40, 8, 8),
    LONG[:5],
    {"per_section": True, "narrow_nm": 4.0, "wide_nm": 16.0, "wide_share": 0.7},
    roi=((-2, 11, 9), (6, 13, 121)),
    is_masked=True,
    value=0.6,
    dust_vx=40,
)
FLOATS = Scene((16, 9, "12.5"), DIRECT, {"narrow_nm": 0.0, "wide_nm": 12.0}, is_float=True)
QUANTILE = replace(PLAIN, method={"method": "quantile", "quantile": 75}, dust_vx=9)
DOMAINS = {"domain_vx": [4, 6, 50], "weighting": "populations", "merge_small_vx": 30}
MULTICUT = replace(PLAIN, method={"method": "multicut"} | DOMAINS, parameter="beta", dust_vx=40)
SCENES = {
    "plain": PLAIN,
    "masked": MASKED,
    "floats": FLOATS,
    "quantile": QUANTILE,
    "multicut": MULTICUT,
}


@dataclass(frozen=True)
class Result:
    """What a run file decides."""

    volumes: dict[str, np.ndarray]
    """Fragments, and every level of the segmentation."""
    merges: list[oracles.Merge]
    sizes: dict[int, int]
    scores: dict[str, Any]
    reports: list[StageReport] = field(compare=False)
    said: str = field(compare=False)

    def assert_equals(self, other: Result) -> None:
        assert self.volumes.keys() == other.volumes.keys()
        for name, labels in other.volumes.items():
            assert self.volumes[name].dtype == labels.dtype == np.uint64
            assert np.array_equal(self.volumes[name], labels), name
        assert self.merges == other.merges
        assert self.sizes == other.sizes


class ShuffledRunner(SerialRunner):
    """Serial, in an order that nobody asked for, and every seventh block twice."""

    def run(
        self, stage: Stage, blocks: Sequence[int], workers: Workers, progress: Progress
    ) -> str | None:
        order = np.random.default_rng(len(blocks)).permutation(list(blocks)).tolist()
        return super().run(stage, order + order[::7], workers, progress)


class Bench:
    """Writes the arrays of a scene, and runs it in one way after the other."""

    def __init__(self, folder: Path, scene: Scene) -> None:
        self.folder = folder
        self.scene = scene
        self._runs = 0
        self._expected: Result | None = None
        root = folder / "data.zarr"
        self.write(root / "affinities", scene.affinities(), scene.begin, Offsets.of(scene.vectors))
        self.write(root / "labels", *scene.truth())
        self.write(root / "mask", scene.mask(), scene.begin)

    def write(
        self, path: Path, data: np.ndarray, begin: Sides, offsets: Offsets | None = None
    ) -> None:
        size = Nm.of(self.scene.size_nm)
        spec = VolumeSpec(
            shape=data.shape,
            dtype=str(data.dtype),
            voxel_size_nm=size,
            offset_nm=nanometres(begin, size),
            meaning=path.name,
            shard_vx=ZYX(3, 8, 32),
            offsets=offsets,
        )
        volume = Volume.create(path, spec)
        volume.write(volume.roi, data)

    def tree(self, blocks: Sides | dict[str, Sides], workers: int = 1) -> dict[str, Any]:
        """A run file."""
        root, scene = self.folder / "data.zarr", self.scene
        data: dict[str, Any] = {name: str(root / name) for name in ("affinities", "labels")}
        if scene.is_masked:
            data["mask"] = str(root / "mask")
        if scene.roi:
            place, size = scene.roi, Nm.of(scene.size_nm)
            data["roi"] = {
                "offset": [str(n) for n in nanometres(place[0], size)],
                "shape": [str(n) for n in nanometres(place[1], size)],
            }
        sides = blocks if isinstance(blocks, dict) else dict.fromkeys(STAGES, blocks)
        return {
            "run": {
                "name": f"run{self._runs}",
                "data": data,
                "fragments": scene.fragments,
                "agglomerate": {
                    scene.parameter: scene.value,
                    "dust_vx": scene.dust_vx,
                    **scene.method,
                },
                "evaluate": {f"{scene.parameter}s": list(SWEEP)},
            },
            "machine": {
                stage: {"block_vx": list(side), "workers": workers} for stage, side in sides.items()
            },
        }

    def plan(self, blocks: Sides | dict[str, Sides], workers: int = 1) -> Plan:
        self._runs += 1
        settings = checked_settings(self.tree(blocks, workers), "the test")
        return make_plan(settings, self.folder / "runs")

    def run(self, runner: Runner, blocks: Sides | dict[str, Sides], workers: int = 1) -> Result:
        plan, text = self.plan(blocks, workers), io.StringIO()
        with runner:
            reports = drive(plan, plan.steps, runner, [], Console(file=text, width=200))
        assert [report.name for report in reports] == [step.stage.name for step in plan.steps]
        tree, sizes = read_tree(plan.run, identity_of(plan, "agglomerate"))
        return Result(
            volumes={
                f"{level.parent.name}/{level.name}": read_all(level)
                for level in sorted((plan.run.root / "volumes.zarr").glob("*/s*"))
                if level.parent.name != "basins"
            },
            merges=rows_of(tree),
            sizes=dict(zip(sizes.fragment.tolist(), sizes.size_vx.tolist(), strict=True)),
            scores=json.loads(plan.run.scores.read_text()),
            reports=reports,
            said=text.getvalue(),
        )

    @property
    def expected(self) -> Result:
        """The result by ``oracles``; without the scores of the sweep."""
        if self._expected is None:
            self._expected = expected_of(self.scene)
        return self._expected


def identity_of(plan: Plan, stage: str) -> Any:
    (step,) = plan.select(stage)
    return step.stage.identity


def read_all(path: Path) -> np.ndarray:
    volume = Volume.open(path).at_origin()
    return volume.read(Roi((0, 0, 0), volume.spec.shape))


def expected_of(scene: Scene) -> Result:
    affinities = scene.affinities()[(slice(None), *scene.region)]
    if scene.is_float:
        affinities = oracles.quantised(affinities)
    valid = scene.mask()[scene.region] != 0
    if not scene.is_masked:
        valid[:] = True
    settings = Fragments(**scene.fragments)
    heights = oracles.heights(
        affinities[:3],
        [float(str(size)) for size in scene.size_nm],
        settings.per_section,
        settings.narrow_nm,
        settings.wide_nm,
        settings.wide_share,
    )
    fragments = oracles.watershed(heights, valid, settings.per_section).labels
    merges, segmentation = agglomerated(scene, affinities, fragments)
    sizes = oracles.sizes(fragments)
    levels = {"fragments/s0": fragments, "segmentation/s0": segmentation(scene.value)}
    size, finest = [float(str(n)) for n in scene.size_nm], levels["segmentation/s0"]
    while max(finest.shape) > 64:
        factors = [2 if n < 2 * min(size) else 1 for n in size]
        finest = oracles.most_frequent(finest, factors)
        size = [n * f for n, f in zip(size, factors, strict=True)]
        levels[f"segmentation/s{len(levels) - 1}"] = finest
    assert len(levels) >= 3

    labels, place = scene.truth()
    begin, shape = scene.roi or (scene.begin, scene.shape)
    low = np.maximum(place, begin)
    high = np.minimum(np.add(place, labels.shape), np.add(begin, shape))
    in_truth = labels[tuple(slice(a - p, b - p) for a, b, p in zip(low, high, place, strict=True))]
    in_region = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, begin, strict=True))
    assert in_truth.shape != labels.shape, "the truth overhangs"
    scores = {
        str(value): scores_of(segmentation(value)[in_region], in_truth)
        for value in (*SWEEP, scene.value)
    }
    return Result(levels, merges, sizes, scores, [], "")


def agglomerated(
    scene: Scene, affinities: np.ndarray, fragments: np.ndarray
) -> tuple[list[oracles.Merge], Callable[[float], np.ndarray]]:
    """Merges of the scene, and the segmentation at a threshold or beta.

    A multicut is that of the whole graph at once, box by box: its solvers have tests of their own.
    """
    sizes = oracles.sizes(fragments)
    if scene.method["method"] == "multicut":
        settings = {"beta": scene.value, "dust_vx": scene.dust_vx, **scene.method}
        domains = BlockGrid(Roi(scene.begin, scene.shape), ZYX.of(settings.pop("domain_vx")))
        rule = Rule(domains=domains, **settings)
        graph = region_edges(affinities, fragments, Offsets.of(scene.vectors))
        table = fragment_sizes(fragments)
        tree = merge_tree(rule, graph, table)

        def solved(beta: float) -> np.ndarray:
            ((_, segments),) = segments_at(rule, [beta], tree, table, graph)
            return segments.apply(fragments)

        return rows_of(tree), solved
    if scene.method["method"] == "quantile":
        counts = oracles.histograms(affinities, fragments)
        merges, _ = oracles.quantile_merges(counts, scene.method["quantile"])
    else:
        edges = oracles.region_edges(affinities, fragments, scene.vectors)
        merges, _ = oracles.merges(oracles.direct(edges))

    def cut(threshold: float) -> np.ndarray:
        names = oracles.cut(merges, sizes, threshold, scene.dust_vx)
        return oracles.relabelled(fragments, names)

    return merges, cut


def rows_of(tree: MergeTree) -> list[oracles.Merge]:
    columns = (tree.a.tolist(), tree.b.tolist(), tree.score.tolist())
    return [oracles.Merge(*row) for row in zip(*columns, strict=True)]


def scores_of(segments: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """By scikit-image, which needs small ids."""
    small = [np.unique(labels, return_inverse=True)[1] for labels in (truth, segments)]
    assert (truth == 0).any()
    split, merge = variation_of_information(*small, ignore_labels=(0,))
    error, _, _ = adapted_rand_error(*small, ignore_labels=(0,))
    return {"voi_split": split, "voi_merge": merge, "voi": split + merge, "arand": error}
