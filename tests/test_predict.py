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
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline import plan_predict
from pipeline.config import Predict, checked_settings
from pipeline.errors import ConfigError
from pipeline.geometry import ZYX, BlockGrid, Offsets, Roi
from pipeline.hardware import NO_GPU, Hardware
from pipeline.patches import PatchGrid, reflected
from pipeline.plan import Plan, make_plan
from pipeline.volume import Volume
from tests.drawn import DIRECT, OFFSET_NM, SHAPE, SIZE_NM, write_run, write_volume
from tests.predicted import REACHING, drawn_raw, predict_tree, predicted, write_checkpoint
from tests.scenes import ShuffledRunner
from workers.daisy_runner import DaisyRunner
from workers.drive import drive
from workers.gpus import choose_gpu
from workers.runner import Runner
from workers.serial_runner import SerialRunner
from workers.state import State, state_of

Sides = tuple[int, int, int]
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


@pytest.mark.parametrize(
    ("given", "count", "chosen"),
    [("0,3,5", None, ["0", "3", "5", "0"]), ("7", None, ["7"] * 4), ("", None, [""] * 4)],
)
def test_workers_take_gpus_in_turn(monkeypatch, given, count, chosen):
    for worker, expected in enumerate(chosen):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        choose_gpu(worker)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
