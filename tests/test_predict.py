"""Raw to affinities: a block of any size and place gets what the patches of the volume say."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch.nn import functional

from pipeline import plan_predict
from pipeline.config import Predict, checked_settings
from pipeline.errors import ConfigError, DataError
from pipeline.geometry import ZYX, BlockGrid, Offsets, Roi
from pipeline.hardware import NO_GPU, Hardware
from pipeline.model.folded import folded
from pipeline.model.predictor import Predictor
from pipeline.model.quantised import cosine_bytes
from pipeline.patches import PatchGrid, reflected
from pipeline.plan import Plan, make_plan
from pipeline.raw import RawScale
from pipeline.volume import Volume
from tests.drawn import DIRECT, OFFSET_NM, SHAPE, SIZE_NM, write_run, write_volume
from tests.predicted import drawn_raw, predict_tree, predicted, write_checkpoint
from tests.test_runners import ShuffledRunner
from workers.daisy_runner import DaisyRunner
from workers.drive import drive
from workers.gpus import choose_gpu
from workers.runner import Runner
from workers.serial_runner import SerialRunner
from workers.state import State, state_of

Sides = tuple[int, int, int]
REACHING = (*DIRECT, (-2, 0, 0), (0, 4, 0), (0, 0, -5), (1, -2, 5))
"""As far as the crop, in every direction; not what the networks were trained on."""
WHOLE = SHAPE
sides = st.tuples(st.integers(2, 9), st.integers(3, 9), st.integers(2, 9))


# The grid of patches


@st.composite
def patch_grids(draw: st.DrawFn) -> PatchGrid:
    factor = draw(st.tuples(*(st.sampled_from((1, 2, 4)),) * 3))
    crop = draw(st.tuples(*(st.integers(0, 4),) * 3))
    patch = [f * (2 * c // f + draw(st.integers(1, 3))) for f, c in zip(factor, crop, strict=True)]
    begin = draw(st.tuples(*(st.integers(-20, 20),) * 3))
    shape = draw(st.tuples(*(st.integers(1, 9),) * 3))
    return PatchGrid(Roi(begin, shape), ZYX.of(patch), ZYX.of(crop), ZYX.of(factor))


@given(patch_grids(), sides)
def test_tiles_partition_the_volume_and_patches_fit_the_network(grid, block_vx):
    seen = np.zeros(tuple(grid.total.shape), int)
    for patch in grid.patches(grid.total):
        seen[tuple(slice(a, b) for a, b in zip(
            patch.tile.begin - grid.total.begin, patch.tile.end - grid.total.begin, strict=True
        ))] += 1  # fmt: skip
        for axis in range(3):
            assert patch.tile.begin[axis] - patch.read.begin[axis] == grid.crop_vx[axis]
            assert patch.read.end[axis] - patch.tile.end[axis] >= grid.crop_vx[axis]
            assert patch.read.shape[axis] <= grid.patch_vx[axis]
            assert patch.read.shape[axis] % grid.factor[axis] == 0
    assert (seen == 1).all()
    blocks = BlockGrid(grid.total, ZYX.of(block_vx))
    computed = 0
    for block in blocks:
        patches = list(grid.patches(block.write))
        inside = [patch.tile.intersect(block.write) for patch in patches]
        assert min(part.size for part in inside) > 0
        assert sum(part.size for part in inside) == block.write.size
        computed += sum(int(np.prod(patch.read.shape)) for patch in patches)
        cover = grid.cover(block.write)
        assert cover.contains(block.write)
        assert cover.size == sum(patch.tile.size for patch in patches)
    assert grid.network_voxels(blocks) == computed


@given(st.integers(-30, 5), st.integers(1, 60), st.integers(1, 9))
def test_reflection_is_that_of_numpy(begin, length, side):
    end = begin + length
    padded = np.pad(np.arange(side), (40, 80), "reflect")
    assert np.array_equal(reflected(begin, end, side), padded[40 + begin : 40 + end])


# Affinities in bytes


def embeddings(seed: int, shape: Sides, length: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(0, 1, (length, *shape)).astype(np.float32)
    return found * np.float32(10.0 ** (seed % 7 - 3))


def boxes(inner: tuple[Sides, Sides]) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(*inner, strict=True))


vectors = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=5
)


@given(st.integers(0, 1000), st.integers(1, 17), vectors, st.data())
def test_bytes_are_those_of_cosines_in_any_box_and_layout(seed, length, offsets, data):
    shape = tuple(data.draw(st.integers(1, 9)) for _ in range(3))
    embedding = embeddings(seed, shape, length)
    whole = tuple(slice(0, n) for n in shape)
    found = cosine_bytes(embedding, offsets, whole, whole)
    for channel, offset in zip(found, offsets, strict=True):
        for voxel in np.ndindex(*shape):
            partner = tuple(v + o for v, o in zip(voxel, offset, strict=True))
            if any(not 0 <= p < n for p, n in zip(partner, shape, strict=True)):
                assert channel[voxel] == 0
                continue
            a, b = (torch.from_numpy(embedding[(slice(None), *v)].copy()) for v in (voxel, partner))
            exact = max(0.0, float(functional.cosine_similarity(a, b, dim=0)))
            assert abs(channel[voxel] / 255 - exact) <= 1 / 510 + 1e-3

    low = [data.draw(st.integers(0, n - 1)) for n in shape]
    high = [data.draw(st.integers(a + 1, n)) for a, n in zip(low, shape, strict=True)]
    inner = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    channels_last = np.moveaxis(np.ascontiguousarray(np.moveaxis(embedding, 0, -1)), -1, 0)
    for layout in (embedding, channels_last):
        part = cosine_bytes(layout, offsets, inner, whole)
        assert np.array_equal(part, found[(slice(None), *inner)])


def test_embeddings_of_no_length_and_no_number_have_no_affinity():
    embedding = np.ones((3, 1, 1, 4), np.float32)
    embedding[:, 0, 0, 1], embedding[1, 0, 0, 3] = 0, np.nan
    whole = (slice(0, 1), slice(0, 1), slice(0, 4))
    assert cosine_bytes(embedding, [(0, 0, -1)], whole, whole).ravel().tolist() == [0, 0, 0, 0]
    assert cosine_bytes(embedding, [(0, 0, -2)], whole, whole).ravel().tolist() == [0, 0, 255, 0]


@pytest.mark.parametrize("head", ["embedding", "affinity"])
def test_the_way_of_a_gpu_is_within_a_step_of_that_of_a_cpu(head, tmp_path, monkeypatch):
    """With the device's name changed, as there is none here."""
    network = {"head": head, "pyramid": head == "embedding"}
    checkpoint = write_checkpoint(tmp_path / "w.safetensors", REACHING, **network)
    raw = drawn_raw((8, 20, 24)).astype(np.float32) / 255
    inner, inside = boxes(((2, 0, 6), (6, 16, 20))), boxes(((1, 0, 2), (8, 18, 24)))
    here = Predictor(checkpoint.module(), head, Offsets.of(REACHING))
    output = here.output(raw)
    ours = here.affinities(output, Offsets.of(REACHING), inner, inside)
    there = Predictor(checkpoint.module(), head, Offsets.of(REACHING))
    monkeypatch.setattr(there, "_on_cpu", False)
    theirs = there.affinities(output, Offsets.of(REACHING), inner, inside)
    assert ours.dtype == theirs.dtype == np.uint8
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert np.array_equal(ours == 0, theirs == 0)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_folded_normalisation_is_the_same_network(norm, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "w.safetensors", norm=norm)
    raw = torch.rand(1, 1, 6, 12, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = (m(raw).full for m in (checkpoint.module(), folded(checkpoint.module())))
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


# Runs


@dataclass
class Bench:
    """A raw volume and a network, and ways to predict from them."""

    folder: Path
    offsets: tuple[Sides, ...] = REACHING
    runs: int = 0

    def tree(self, blocks: Sides, workers: int = 1, **settings: Any) -> dict[str, Any]:
        self.runs += 1
        return predict_tree(
            self.folder / "data.zarr" / "raw",
            self.folder / "w.safetensors",
            f"run{self.runs}",
            blocks,
            workers,
            **{"offsets": [list(v) for v in self.offsets]} | settings,
        )

    def plan(self, blocks: Sides = WHOLE, **settings: Any) -> Plan:
        tree = self.tree(blocks, **settings)
        return make_plan(checked_settings(tree, "the test"), self.folder / "runs")

    def __call__(
        self, blocks: Sides = WHOLE, runner: Runner | None = None, **settings: Any
    ) -> Plan:
        """Predict."""
        plan = self.plan(blocks, **settings)
        predict = plan.select("predict_blockwise")
        drive(plan, predict, runner or SerialRunner(), [], Console(quiet=True))
        return plan


def volume_of(plan: Plan, name: str = "affinities") -> tuple[Volume, np.ndarray]:
    volume = Volume.open(plan.run.volume(name))
    return volume, volume.read(volume.roi)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("predict")
    write_volume(folder / "data.zarr" / "raw", drawn_raw(), "raw")
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :20, 10:] = 0
    mask[3:7, 30:] = 0
    write_volume(folder / "data.zarr" / "mask", mask, "mask")
    write_checkpoint(folder / "w.safetensors")
    return Bench(folder)


@pytest.fixture(scope="module")
def whole(bench: Bench) -> np.ndarray:
    """Affinities of the volume, predicted in one block."""
    return volume_of(bench())[1]


def test_affinities_are_those_of_the_network_patch_by_patch(bench, whole):
    checkpoint = write_checkpoint(bench.folder / "again.safetensors")
    exact, _ = predicted(drawn_raw() / 255, checkpoint, REACHING)
    assert whole.dtype == np.uint8
    assert np.abs(whole.astype(int) - np.rint(exact * 255)).max() <= 1
    assert len(np.unique(whole)) > 200
    volume, _ = volume_of(bench())
    assert volume.spec.offsets == Offsets.of(REACHING)
    assert volume.spec.meaning == "affinities"


@pytest.mark.parametrize(
    ("blocks", "runner", "workers"),
    [
        pytest.param((4, 12, 14), SerialRunner(), 1, id="tiles"),
        pytest.param((5, 9, 17), SerialRunner(), 1, id="odd"),
        pytest.param((3, 40, 20), ShuffledRunner(), 1, id="shuffled"),
        pytest.param((8, 24, 28), DaisyRunner(), 2, id="daisy2"),
        pytest.param((8, 24, 28), DaisyRunner(), 1, id="daisy1", marks=pytest.mark.slow),
        pytest.param((1, 7, 44), SerialRunner(), 1, id="thin", marks=pytest.mark.slow),
    ],
)
def test_affinities_do_not_depend_on_blocks_workers_order_and_runner(
    bench, whole, blocks, runner, workers
):
    found = volume_of(bench(blocks, runner, workers=workers))[1]
    assert np.array_equal(found, whole)


@pytest.mark.parametrize(
    ("begin", "shape"),
    [((0, 0, 0), (5, 13, 20)), ((5, 13, 7), (4, 20, 30)), ((11, 39, 43), (1,) * 3)],
)
def test_a_region_is_a_crop_of_the_whole(bench, whole, begin, shape):
    size, offset = np.array(SIZE_NM), np.array(OFFSET_NM)
    roi = {
        "offset": (offset + size * begin).tolist(),
        "shape": (size * shape).tolist(),
    }
    plan = bench((5, 9, 17), data={"roi": roi})
    volume, found = volume_of(plan)
    region = plan.select("fragments_blockwise")[0].stage.grid.total
    assert volume.roi.contains(region)
    low = volume.roi.begin - Roi((offset // size).tolist(), (1, 1, 1)).begin
    here = tuple(slice(a, a + n) for a, n in zip(low, found.shape[1:], strict=True))
    assert np.array_equal(found, whole[(slice(None), *here)])
    assert all(n < s + 2 * t for n, s, t in zip(found.shape[1:], shape, (4, 12, 14), strict=True))


@pytest.mark.parametrize("blocks", [WHOLE, (4, 12, 14), (3, 9, 20)])
def test_voxels_outside_the_mask_have_no_affinity_and_others_are_as_without(bench, whole, blocks):
    path = bench.folder / "data.zarr" / "mask"
    plan = bench(blocks, data={"mask": str(path)})
    mask = Volume.open(path)
    valid = mask.read(mask.roi) != 0
    assert np.array_equal(volume_of(plan)[1], whole * valid)
    (step,) = plan.select("predict_blockwise")
    skipped = plan.run.completion(step.stage.identity)["masked"]
    assert (skipped > 0) == (blocks != WHOLE)


def test_embeddings_are_written_where_they_are_wanted(bench, whole):
    plan = bench((5, 9, 17), embeddings=True)
    volume, found = volume_of(plan, "embeddings")
    checkpoint = write_checkpoint(bench.folder / "again.safetensors")
    _, exact = predicted(drawn_raw() / 255, checkpoint, REACHING)
    assert found.dtype == np.float16
    assert found.shape == exact.shape
    assert np.allclose(found, exact, rtol=2e-3, atol=2e-3 * np.abs(exact).max())
    assert np.array_equal(volume_of(plan)[1], whole)
    assert volume.spec.meaning == "embeddings"


def test_direct_affinities_come_in_the_order_that_is_asked_for(bench):
    path = bench.folder / "direct.safetensors"
    trained = (*DIRECT, (0, 9, 0), (-3, 0, 0), (0, 0, 9))
    checkpoint = write_checkpoint(path, trained, head="affinity", pyramid=False)
    asked = (*DIRECT, (0, 0, 9), (-3, 0, 0))  # longer than the crop
    exact, _ = predicted(drawn_raw() / 255, checkpoint, asked)
    settings = {"checkpoint": str(path), "offsets": [list(v) for v in asked]}
    found = volume_of(bench((5, 9, 17), **settings))[1]
    assert np.abs(found.astype(int) - np.rint(exact * 255)).max() <= 1
    assert np.array_equal(found, volume_of(bench(WHOLE, **settings))[1])
    with pytest.raises(ConfigError, match="trained on"):
        bench.plan(**settings | {"offsets": [*DIRECT, [0, -1, -1]]})


def test_the_whole_run_follows_and_is_done_once(bench, whole, capsys):
    plan = bench.plan((8, 24, 28), data={"labels": str(truth_of(bench))})
    drive(plan, plan.steps, SerialRunner(), [], Console(quiet=True))
    assert plan.run.scores.exists()
    assert np.array_equal(volume_of(plan)[1], whole)
    assert all(state_of(step.stage).state is State.DONE for step in plan.steps)
    names = {step.stage.name for step in plan.dependants({"predict_blockwise"})}
    assert names == {step.stage.name for step in plan.steps}


def truth_of(bench: Bench) -> Path:
    path = bench.folder / "data.zarr" / "labels"
    if not path.exists():
        write_volume(path, np.ones(SHAPE, np.uint64), "labels")
    return path


def test_volumes_of_one_voxel_along_an_axis_are_predicted(bench, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "w.safetensors")
    raw = drawn_raw((1, 9, 17))
    write_volume(tmp_path / "raw", raw, "raw")
    tree = predict_tree(tmp_path / "raw", tmp_path / "w.safetensors", block_vx=(1, 9, 10))
    plan = make_plan(checked_settings(tree, "the test"), tmp_path / "runs")
    drive(plan, plan.steps, SerialRunner(), [], Console(quiet=True))
    exact, _ = predicted(raw / 255, checkpoint, DIRECT)
    found = volume_of(plan)[1]
    assert np.abs(found.astype(int) - np.rint(exact * 255)).max() <= 1
    assert not found[0].any()


def test_raw_that_is_the_same_everywhere_is_warned_of_once_and_predicted(bench, tmp_path):
    write_volume(tmp_path / "raw", np.full(SHAPE, 77, np.uint8), "raw")
    tree = predict_tree(tmp_path / "raw", bench.folder / "w.safetensors")
    plan = make_plan(checked_settings(tree, "the test"), tmp_path / "runs")
    drive(plan, plan.steps[:1], SerialRunner(), [], Console(quiet=True))
    (log,) = plan.run.logs("predict_blockwise").glob("*.log")
    assert log.read_text().count("WARNING raw is the same everywhere in a patch, 77") == 1


# What decides the numbers

CHANGES = {
    "checkpoint": "other.safetensors",
    "patch_vx": [8, 20, 26],
    "crop_vx": [2, 4, 6],
    "offsets": DIRECT,
    "embeddings": True,
    "precision": None,  # bf16 needs a GPU
    "device": None,
    "released": None,  # a name of a checkpoint
    "threads": 2,
}


def test_every_setting_of_a_prediction_belongs_to_its_fingerprint(bench):
    assert CHANGES.keys() == Predict.model_fields.keys()
    write_checkpoint(bench.folder / "other.safetensors", seed=4)
    before = fingerprints(bench.plan())
    for key, value in CHANGES.items():
        if value is not None:
            if key == "checkpoint":
                value = str(bench.folder / value)
            after = fingerprints(bench.plan(**{key: value}))
            assert all(before[stage] != after[stage] for stage in before), key
    for data in ({"raw_range": [0, 200]}, {"mask": str(bench.folder / "data.zarr" / "mask")}):
        assert fingerprints(bench.plan(data=data)) != before
    assert fingerprints(bench.plan((3, 9, 20), workers=5)) == before


def fingerprints(plan: Plan) -> dict[str, str]:
    return {step.stage.name: step.stage.identity.fingerprint for step in plan.steps[:3]}


def on(monkeypatch: pytest.MonkeyPatch, hardware: Hardware) -> None:
    monkeypatch.setattr(plan_predict, "present", lambda device: hardware)


def test_a_begun_prediction_is_not_finished_on_other_hardware_and_a_finished_one_is_used(
    bench, monkeypatch
):
    here = bench.plan((8, 24, 28), device="auto").steps[0].stage.hardware
    other = Hardware("cpu", "another", here.torch)
    tree = bench.tree((8, 24, 28), device="auto")

    def plan() -> Plan:
        return make_plan(checked_settings(tree, "the test"), bench.folder / "runs")

    begun = plan()
    step = begun.steps[0]
    begun.run.begin(step.stage.identity, step.stage.grid.name)
    step.stage.prepare()
    SerialRunner().run(step.stage, [0], step.workers, lambda done, failed: None)
    on(monkeypatch, other)
    state = state_of(plan().steps[0].stage)
    assert state.state is State.STALE
    assert state.changes == (f"processor: {here.processor} -> another",)
    with pytest.raises(ConfigError, match="processor"):
        drive(plan(), plan().steps, SerialRunner(), [], Console(quiet=True))

    on(monkeypatch, here)
    drive(plan(), plan().steps[:1], SerialRunner(), [], Console(quiet=True))
    for elsewhere in (other, Hardware("cuda", "a GPU", "9"), Hardware("cuda", NO_GPU, "9")):
        on(monkeypatch, elsewhere)
        assert state_of(plan().steps[0].stage).state is State.DONE
    tree["run"]["predict"]["device"] = "cuda"
    with pytest.raises(ConfigError, match="no GPU"):
        plan()


def test_a_checkpoint_that_is_replaced_meanwhile_is_not_used(bench, tmp_path):
    path = tmp_path / "w.safetensors"
    write_checkpoint(path)
    plan = bench.plan(checkpoint=str(path))
    write_checkpoint(path, seed=9)
    stage = plan.steps[0].stage
    with pytest.raises(Exception, match="was replaced"), stage.open():
        pass


def test_planning_does_without_torch(bench, tmp_path):
    run = write_run(tmp_path / "run.yaml", bench.tree(WHOLE))
    program = (
        "import sys; from workers.cli import main; status = main(sys.argv[1:]);"
        "print([m for m in ('torch', 'daisy', 'matplotlib') if m in sys.modules]);"
        "sys.exit(status)"
    )
    words = [sys.executable, "-c", program, "plan", str(run), "--runs", str(tmp_path / "runs")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "network voxels for each voxel" in done.stdout


def test_blocks_of_whole_tiles_are_advised_where_they_save(bench):
    (odd,), (best,) = (
        bench.plan(blocks).select("predict_blockwise") for blocks in ((5, 9, 17), (8, 24, 28))
    )
    assert any("block_vx" in line for line in odd.stage.remarks())
    assert not any("block_vx" in line for line in best.stage.remarks())
    assert best.stage.network_share < odd.stage.network_share


def test_the_default_patch_is_lean_and_its_blocks_are_whole_tiles():
    predict, settings = Predict(), checked_settings({"run": {"name": "a", "data": {}}}, "the test")
    volume = Roi((0, 0, 0), (2400, 1920, 1920))
    grid = PatchGrid(volume, predict.patch_vx, predict.crop_vx, ZYX(1, 16, 16))
    blocks = BlockGrid(volume, settings.machine.predict.block_vx)
    assert grid.network_voxels(blocks) / volume.size < 2.4


# Raw values and GPUs


def raw_volume(path: Path, data: np.ndarray) -> Volume:
    return write_volume(path, data, "raw", shard_vx=data.shape)


SCALES: list[tuple[str, Any, list[float], list[float]]] = [
    ("uint8", None, [0, 51, 255], [0, 0.2, 1]),
    ("uint8", (51, 102), [0, 51, 102, 255], [0, 0, 1, 1]),
    ("uint16", (1000, 3000), [0, 1000, 1500, 3000, 65535], [0, 0, 0.25, 1, 1]),
    ("int16", (-100, 100), [-3000, -100, 0, 50], [0, 0, 0.5, 0.75]),
    ("uint32", (4e9, 4.2e9), [0, 4_100_000_000], [0, 0.5]),
    ("float32", None, [0, 0.25, 1], [0, 0.25, 1]),
    ("float64", None, [0, 0.25, 1], [0, 0.25, 1]),
    ("float32", (-1, 1), [-5, -1, 0.5, 7], [0, 0, 0.75, 1]),
]


@pytest.mark.parametrize(("dtype", "given", "values", "expected"), SCALES)
def test_raw_is_brought_to_0_to_1(tmp_path, dtype, given, values, expected):
    data = np.array(values, dtype).reshape(1, 1, -1)
    scaled = RawScale.of(raw_volume(tmp_path / "raw", data), given).apply(data, "the test")
    assert scaled.dtype == np.float32
    assert np.allclose(scaled.ravel(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "count", "chosen"),
    [("0,3,5", None, ["0", "3", "5", "0"]), ("7", None, ["7"] * 4), ("", None, [""] * 4)],
)
def test_workers_take_gpus_in_turn(monkeypatch, given, count, chosen):
    for worker, expected in enumerate(chosen):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        choose_gpu(worker)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


def test_half_precision_is_compared_with_full_on_every_shape(tmp_path, monkeypatch):
    checkpoint = write_checkpoint(tmp_path / "w.safetensors")
    raw = drawn_raw((4, 16, 16)).astype(np.float32) / 255
    # Weights that nobody trained magnify what is rounded.
    monkeypatch.setattr("pipeline.model.gate.MAX_RELATIVE_ERROR", 0.1)
    monkeypatch.setattr("pipeline.model.gate.MAX_AFFINITY_ERROR", 0.5)
    half = Predictor(checkpoint.module(), "embedding", Offsets(), precision="bf16")
    full = Predictor(checkpoint.module(), "embedding", Offsets())
    exact = full.output(raw)
    assert np.allclose(half.output(raw), exact, atol=0.2 * float(exact.abs().max()))
    monkeypatch.setattr("pipeline.model.gate.MAX_AFFINITY_ERROR", 0.0)
    half.output(raw)  # known already
    with pytest.raises(DataError, match=r"bf16 must agree with fp32(?s:.*)\(4, 16, 32\)"):
        half.output(np.tile(raw, (1, 1, 2)))
