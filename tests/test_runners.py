"""On disk, through the whole chain: one run file has one result, whoever computes it.

Small volumes are segmented with several blocks, orders and runners. Every array, table and score
that follows from the fragments is compared with the whole-volume twins of ``oracles``.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy.ndimage import gaussian_filter
from skimage.metrics import adapted_rand_error, variation_of_information

from pipeline.config import (
    Agglomerate,
    Dask,
    Data,
    Evaluate,
    Fragments,
    Run,
    Tune,
    Workers,
    checked_settings,
)
from pipeline.errors import ConfigError
from pipeline.geometry import ZYX, BlockGrid, Nm, Offsets, Roi, nanometres
from pipeline.graph import MergeTree
from pipeline.plan import Plan, make_plan
from pipeline.segment.edges import fragment_sizes, region_edges
from pipeline.segment.segments import BUILT_IN, Rule, merge_tree, segments_at
from pipeline.spec import VolumeSpec
from pipeline.stages.agglomerate import read_tree
from pipeline.stages.stage import Stage
from pipeline.tables import read_table
from pipeline.volume import Volume
from tests import oracles
from tests.nifty_stand_in import nifty_stood_in, without_nifty
from workers.daisy_runner import DaisyRunner
from workers.dask_cluster import DaskCluster
from workers.dask_runner import DaskRunner
from workers.drive import drive
from workers.runner import Progress, Runner
from workers.serial_runner import SerialRunner
from workers.state import StageReport

Sides = tuple[int, int, int]
DIRECT = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
LONG = (*DIRECT, (-3, 0, 0), (0, -9, 0), (0, 0, -27), (1, -2, 4))
STAGES = ("fragments", "edges", "relabel", "downsample", "evaluate")
SWEEP = (0.2, 0.4, 0.6)


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


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    """The bench of a scene, by its name; made once."""
    benches: dict[str, Bench] = {}

    def of(name: str) -> Bench:
        if name not in benches:
            benches[name] = Bench(tmp_path_factory.mktemp(name), SCENES[name])
        return benches[name]

    return of


SMALL, MEDIUM, WHOLE = (3, 5, 40), (4, 6, 47), (7, 14, 130)
# Stages need not agree: an edge block then reads fragments of several fragment blocks, and so on.
MIXED = {
    "fragments": (2, 7, 50),
    "edges": (3, 5, 44),
    "relabel": (7, 4, 65),
    "downsample": (2, 3, 17),
    "evaluate": (5, 14, 31),
}
slow = pytest.mark.slow


@pytest.fixture
def dask(tmp_path: Path) -> DaskRunner:
    """On a cluster of this machine."""
    return DaskRunner(DaskCluster(Dask(), tmp_path / "dask"))


@pytest.mark.parametrize(
    ("scene", "runner", "blocks", "workers"),
    [
        pytest.param("plain", SerialRunner(), SMALL, 1, id="plain-serial-small"),
        pytest.param("plain", SerialRunner(), MEDIUM, 1, id="plain-serial-medium"),
        pytest.param("plain", SerialRunner(), WHOLE, 1, id="plain-serial-whole"),
        pytest.param("plain", DaisyRunner(), MEDIUM, 2, id="plain-daisy2-medium"),
        pytest.param("plain", "dask", MEDIUM, 2, id="plain-dask2-medium"),
        pytest.param("masked", SerialRunner(), MEDIUM, 1, id="masked-serial-medium"),
        pytest.param("floats", ShuffledRunner(), MEDIUM, 1, id="floats-shuffled-medium"),
        pytest.param("quantile", ShuffledRunner(), MEDIUM, 1, id="quantile-shuffled"),
        pytest.param("multicut", SerialRunner(), WHOLE, 1, id="multicut-serial"),
        pytest.param("multicut", DaisyRunner(), MEDIUM, 2, id="multicut-daisy2"),
        pytest.param("quantile", DaisyRunner(), MIXED, 2, id="quantile-daisy2", marks=slow),
        pytest.param("quantile", "dask", SMALL, 2, id="quantile-dask2", marks=slow),
        pytest.param("multicut", ShuffledRunner(), SMALL, 1, id="multicut-shuffled", marks=slow),
        pytest.param("multicut", "dask", MEDIUM, 2, id="multicut-dask2", marks=slow),
        pytest.param("plain", ShuffledRunner(), SMALL, 1, id="plain-shuffled", marks=slow),
        pytest.param("plain", ShuffledRunner(), MIXED, 1, id="plain-mixed", marks=slow),
        pytest.param("plain", SerialRunner(), (2, 3, 20), 1, id="plain-smallest", marks=slow),
        pytest.param("plain", DaisyRunner(), MIXED, 1, id="plain-daisy1", marks=slow),
        pytest.param("plain", DaisyRunner(), SMALL, 4, id="plain-daisy4", marks=slow),
        pytest.param("plain", "dask", MIXED, 1, id="plain-dask1", marks=slow),
        pytest.param("masked", SerialRunner(), WHOLE, 1, id="masked-whole", marks=slow),
        pytest.param("masked", ShuffledRunner(), MIXED, 1, id="masked-mixed", marks=slow),
        pytest.param("masked", SerialRunner(), (2, 3, 20), 1, id="masked-smallest", marks=slow),
        pytest.param("masked", DaisyRunner(), MEDIUM, 1, id="masked-daisy1", marks=slow),
        pytest.param("masked", DaisyRunner(), MIXED, 2, id="masked-daisy2", marks=slow),
        pytest.param("masked", DaisyRunner(), SMALL, 4, id="masked-daisy4", marks=slow),
        pytest.param("masked", "dask", SMALL, 4, id="masked-dask4", marks=slow),
        pytest.param("floats", SerialRunner(), WHOLE, 1, id="floats-whole", marks=slow),
        pytest.param("floats", SerialRunner(), SMALL, 1, id="floats-small", marks=slow),
        pytest.param("floats", DaisyRunner(), MIXED, 4, id="floats-daisy4", marks=slow),
        pytest.param("floats", "dask", MIXED, 2, id="floats-dask2", marks=slow),
    ],
)
def test_a_run_has_one_result_for_every_tiling_order_and_runner(
    bench, dask, scene, runner, blocks, workers
):
    here = bench(scene)
    result = here.run(dask if runner == "dask" else runner, blocks, workers)
    result.assert_equals(here.expected)
    assert len(here.expected.merges) > 20
    parameter = here.scene.parameter
    swept = result.scores[f"{parameter}s"]
    found = {str(scores[parameter]): scores for scores in swept}
    found[str(here.scene.value)] = result.scores
    assert found.keys() == here.expected.scores.keys()
    for value, scores in here.expected.scores.items():
        for name, score in scores.items():
            assert found[value][name] == pytest.approx(score, abs=1e-9), (value, name)
    for name, best in result.scores["best"].items():
        assert best == min(swept, key=lambda s, name=name: s[name])
    # Not only to 1e-9: the file of one scene has the same bits whatever made it.
    first = here.folder / "scores.json"
    if first.exists():
        assert result.scores == json.loads(first.read_text())
    first.write_text(json.dumps(result.scores))


def test_blocks_outside_the_mask_are_counted_and_not_computed(bench):
    here = bench("masked")
    plan = here.plan((2, 4, 40))
    drive(plan, plan.steps[:3], SerialRunner(), [], Console(quiet=True))
    valid = here.scene.mask()[here.scene.region] != 0
    begin = here.scene.roi[0]
    for stage in ("fragments_blockwise", "edges_blockwise"):
        (step,) = plan.select(stage)
        empty = [
            block.index
            for block in step.stage.grid
            if not valid[
                tuple(
                    slice(a - o, b - o)
                    for a, b, o in zip(block.write.begin, block.write.end, begin, strict=True)
                )
            ].any()
        ]
        records = plan.run.records(step.stage.identity, step.stage.grid.name)
        assert 0 < len(empty) < len(step.stage.grid) == len(records)
        assert [index for index, record in sorted(records.items()) if record.masked] == empty
        assert plan.run.completion(step.stage.identity)["masked"] == len(empty)
    tables = plan.run.complete_tables(identity_of(plan, "fragments_blockwise"))
    assert all(len(read_table(tables[index])["loose"]) == 0 for index in empty)


def test_a_result_of_nothing_but_background_raises_an_alarm(bench, tmp_path):
    here = bench("plain")
    here.write(tmp_path / "empty", np.zeros(here.scene.shape, np.uint8), here.scene.begin)
    tree = here.tree(WHOLE)
    tree["run"]["data"]["mask"] = str(tmp_path / "empty")
    plan = make_plan(checked_settings(tree, "the test"), tmp_path)
    text = io.StringIO()
    drive(plan, plan.steps, SerialRunner(), [], Console(file=text, width=200))
    for stage in ("fragments_blockwise", "edges_blockwise", "relabel_blockwise"):
        assert f"WARNING: {stage} wrote nothing but background" in text.getvalue()


def test_a_stage_whose_inputs_are_not_there_is_refused_and_leaves_nothing(bench):
    plan = bench("plain").plan(WHOLE)
    with pytest.raises(ConfigError, match="edges_blockwise needs resolve_fragments"):
        drive(plan, plan.select("edges_blockwise"), SerialRunner(), [], Console(quiet=True))
    assert not (plan.run.root / "volumes.zarr").exists()
    drive(plan, plan.steps[:2], SerialRunner(), [], Console(quiet=True))
    drive(plan, plan.select("edges_blockwise"), SerialRunner(), [], Console(quiet=True))


# Which settings decide which numbers

FIRST_TOUCHED = {
    "data.affinities": ("other", "fragments_blockwise"),
    "data.offsets": ([*DIRECT, (0, 0, -5)], "edges_blockwise"),
    "data.labels": ("other", "evaluate"),
    "data.mask": ("mask", "fragments_blockwise"),
    "data.roi": ("roi", "fragments_blockwise"),
    "data.raw": ("mask", ()),  # any volume; it is only shown
    "data.raw_range": ([0, 7], ()),
    "data.test_roi": ("roi", ()),  # training keeps off it
    "fragments.per_section": (True, "fragments_blockwise"),
    "fragments.narrow_nm": (5.0, "fragments_blockwise"),
    "fragments.wide_nm": (10.0, "fragments_blockwise"),
    "fragments.wide_share": (0.41, "fragments_blockwise"),
    "agglomerate.method": ("multicut", "agglomerate"),
    "agglomerate.threshold": (0.46, ("relabel_blockwise", "evaluate")),
    "agglomerate.quantile": (85, "agglomerate"),
    "agglomerate.beta": (0.4, "agglomerate"),
    "agglomerate.weighting": ("contacts", "agglomerate"),
    "agglomerate.solver": ("nifty", "agglomerate"),
    "agglomerate.domain_vx": ([4, 6, 50], "agglomerate"),
    "agglomerate.merge_small_vx": (5, ("relabel_blockwise", "evaluate")),
    "agglomerate.dust_vx": (1, ("relabel_blockwise", "evaluate")),
    "evaluate.thresholds": ([0.2, 0.4], "evaluate"),
    "evaluate.betas": ([0.2, 0.4], "evaluate"),
    "evaluate.border_nm": (8.0, "evaluate"),
    "evaluate.roi": ("roi", "evaluate"),
    "tune.narrow_nm": ([5.0], ()),  # only `pea tune` looks at these
    "tune.wide_nm": ([10.0], ()),
    "tune.wide_share": ([0.2], ()),
    "tune.methods": (["multicut"], ()),
    "tune.thresholds": ([0.2], ()),
    "tune.quantiles": ([75], ()),
    "tune.betas": ([0.2], ()),
    "tune.weightings": (["contacts"], ()),
}
USED_BY = {
    "agglomerate.threshold": {"mean_affinity", "quantile"},
    "agglomerate.quantile": {"quantile"},
    "agglomerate.beta": {"multicut", "lifted_multicut"},
    "agglomerate.weighting": {"multicut", "lifted_multicut"},
    "agglomerate.solver": {"multicut", "lifted_multicut"},
    "agglomerate.domain_vx": {"multicut"},
    "evaluate.thresholds": {"mean_affinity", "quantile"},
    "evaluate.betas": {"multicut", "lifted_multicut"},
}
"""Settings that some methods do not look at."""
METHODS = tuple(BUILT_IN)


def test_every_setting_that_decides_numbers_is_listed_here():
    sections = {"data": Data, "fragments": Fragments, "agglomerate": Agglomerate}
    sections |= {"evaluate": Evaluate, "tune": Tune}
    elsewhere = {"predict"}  # tests/test_predict.py
    decide_a_checkpoint = {"network", "train"}
    others = {"name"} | elsewhere | decide_a_checkpoint
    assert sections.keys() | others == Run.model_fields.keys()
    every = {f"{name}.{key}" for name, kind in sections.items() for key in kind.model_fields}
    of_extensions = {"agglomerate.options"}  # tests/test_extensions.py
    assert every == FIRST_TOUCHED.keys() | of_extensions


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Plan]]:
    """Plans of one method, with one setting changed; the affinities do not carry their offsets."""
    here = Bench(tmp_path_factory.mktemp("fingerprints"), PLAIN)
    root = here.folder / "data.zarr"
    few, (labels, place) = PLAIN.affinities()[:4], PLAIN.truth()
    here.write(root / "bare", few, PLAIN.begin)
    few[0, 1, 1, 1] ^= 1
    here.write(root / "other_affinities", few, PLAIN.begin)
    labels[0, 0, 0] ^= np.uint64(1)
    here.write(root / "other_labels", labels, place)

    def plan(method: str, key: str | None = None) -> Plan:
        tree = here.tree(MEDIUM)
        tree["run"]["agglomerate"]["method"] = method
        tree["run"]["data"]["affinities"] = str(root / "bare")
        tree["run"]["data"]["offsets"] = [*DIRECT, (0, 0, -3)]
        if key is not None:
            section, name = key.split(".")
            value = FIRST_TOUCHED[key][0]
            if value == "other":
                value = str(root / f"other_{name}")
            elif value == "mask":
                value = str(root / "mask")
            elif value == "roi":
                begin, shape, size = PLAIN.begin, (6, 14, 130), Nm.of(PLAIN.size_nm)
                if section == "evaluate":
                    begin, shape = tuple(map(max, PLAIN.begin, place)), (2, 4, 10)
                value = {
                    "offset": [str(n) for n in nanometres(begin, size)],
                    "shape": [str(n) for n in nanometres(shape, size)],
                }
            tree["run"].setdefault(section, {})[name] = value
        return make_plan(checked_settings(tree, "the test"), here.folder / "runs")

    with nifty_stood_in():
        yield plan


def fingerprints(plan: Plan) -> dict[str, str]:
    return {step.stage.name: step.stage.identity.fingerprint for step in plan.steps}


@pytest.mark.parametrize("key", FIRST_TOUCHED)
def test_a_setting_changes_the_fingerprint_of_the_stages_it_decides_and_of_no_other(plans, key):
    for method in sorted(USED_BY.get(key, {"mean_affinity"})):
        touched = FIRST_TOUCHED[key][1]
        plan = plans(method)
        expected = {touched} if isinstance(touched, str) else set(touched)
        for step in plan.steps:
            if {identity.stage for identity in step.stage.upstream} & expected:
                expected.add(step.stage.name)
        before, after = fingerprints(plan), fingerprints(plans(method, key))
        assert {stage for stage in before if before[stage] != after[stage]} == expected, method


@pytest.mark.parametrize("method", METHODS)
def test_settings_of_other_methods_decide_nothing(plans, method):
    # Domains of a lifted multicut are refused.
    unused = [key for key, methods in USED_BY.items() if method not in methods]
    if method == "lifted_multicut":
        unused.remove("agglomerate.domain_vx")
    assert unused
    for key in unused:
        assert fingerprints(plans(method)) == fingerprints(plans(method, key)), key


def test_methods_that_look_at_long_range_affinities_are_refused_without(tmp_path):
    here = Bench(tmp_path, FLOATS)
    for method in METHODS:
        tree = here.tree(MEDIUM)
        tree["run"]["agglomerate"]["method"] = method
        settings = checked_settings(tree, "the test")
        if method in ("lifted_multicut", "mutex_watershed"):
            with pytest.raises(ConfigError, match=f"{method} needs .* long-range"):
                make_plan(settings, tmp_path / "runs")
        else:
            make_plan(settings, tmp_path / "runs")


def test_a_solver_that_is_not_installed_is_refused_by_those_that_need_it(tmp_path):
    here = Bench(tmp_path, PLAIN)
    for method in METHODS:
        tree = here.tree(MEDIUM)
        tree["run"]["agglomerate"] |= {"method": method, "solver": "nifty"}
        settings = checked_settings(tree, "the test")
        with without_nifty(), pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "nifty", None)
            if "solver" in Rule(method).decides_tree:
                with pytest.raises(ConfigError, match=r"run\.agglomerate\.solver nifty"):
                    make_plan(settings, tmp_path / "runs")
            else:
                make_plan(settings, tmp_path / "runs")


def test_a_voxel_size_belongs_to_the_fingerprint(tmp_path):
    one = Bench(tmp_path / "one", PLAIN)
    other = Bench(tmp_path / "other", Scene((4, 4, 4), LONG, PLAIN.fragments))
    for first, second in zip(one.plan(SMALL).steps, other.plan(SMALL).steps, strict=True):
        assert first.stage.identity.fingerprint != second.stage.identity.fingerprint


def test_blocks_workers_and_the_name_of_a_run_do_not_belong_to_the_fingerprint(bench):
    here = bench("plain")
    one, other = here.plan(SMALL, workers=1), here.plan(MIXED, workers=7)
    assert one.run.root != other.run.root
    assert [step.stage.identity for step in one.steps] == [
        step.stage.identity for step in other.steps
    ]
