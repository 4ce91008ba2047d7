"""Training: resumption, validation, what is kept, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pipeline.checkpoint import Header
from pipeline.config import Run
from pipeline.errors import (
    ConfigError,
    DataError,
    ExistsError,
    LayoutError,
    NotFoundError,
    RoiError,
)
from pipeline.model.checkpoint import Checkpoint, read_tensors
from pipeline.model.gate import refuse_rough
from pipeline.rundir import RunDirectory
from pipeline.train.logbook import embedding_colours, read_rows
from pipeline.train.loop import Progress, train_network
from pipeline.train.state import TrainingState, steps_done
from pipeline.train.task import Task, open_task
from tests.drawn import OFFSET_NM, PEA, SIZE_NM, drawn_labels, write_volume
from workers import cli
from workers.devices import device_named

SHAPE = (16, 40, 44)
TRAINED, VALIDATED = slice(0, 10), slice(10, 16)
CPU = torch.device("cpu")


def planes(part: slice) -> dict[str, list[int]]:
    begin, depth = part.start, part.stop - part.start
    return {
        "offset": [OFFSET_NM[0] + begin * SIZE_NM[0], *OFFSET_NM[1:]],
        "shape": [n * size for n, size in zip((depth, *SHAPE[1:]), SIZE_NM, strict=True)],
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells with dark borders."""
    folder = tmp_path_factory.mktemp("training") / "data.zarr"
    labels = drawn_labels(SHAPE, spacing=12)
    border = np.zeros(SHAPE, np.float32)
    for axis in (1, 2):
        border += np.abs(np.diff(labels.astype(np.int64), axis=axis, append=0)) > 0
    raw = 200 - 150 * np.clip(gaussian_filter(border, (0, 0.7, 0.7)), 0, 1)
    noisy = raw + np.random.default_rng(1).normal(0, 5, SHAPE)
    write_volume(folder / "raw", np.clip(noisy, 0, 255).astype(np.uint8), "raw")
    write_volume(folder / "labels", labels, "labels")
    return folder


def tree_of(data: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "data": {"raw": str(data / "raw"), "labels": str(data / "labels")},
        "network": {
            "features": [4, 6], "pools": [[1, 2, 2]], "stem_vx": [1, 3, 3], "embedding": 4,
            "norm_momentum": 0.1,
        },
        "train": {
            "roi": planes(TRAINED),
            "validation": {"roi": planes(VALIDATED), "every": 4},
            "steps": 8, "batch": 1, "crop_vx": [6, 16, 20], "threads": 1, "ema": 0.5,
            "offsets": [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, -3, 0], [0, 0, -3]],
            "augment": {"transpose": "none"},
            "view": {"transpose": "none", "max_cutouts": 3, "cutout_min_vx": [1, 2, 2],
                     "cutout_max_vx": [2, 4, 4]},
            "optimizer": {"name": "adamw", "learning_rate": 0.01, "epsilon": 1e-8,
                          "schedule": "cosine", "warmup_steps": 2, "clip_norm": 1.0},
            "checkpoint_every": 3,
            **train,
        },
        "predict": {"patch_vx": [6, 24, 24], "crop_vx": [1, 4, 4]},
        "fragments": {"per_section": True},
    }  # fmt: skip


def task_of(data: Path, folder: Path, **train: Any) -> Task:
    run = Run.model_validate(tree_of(data, **train))
    return open_task(run, RunDirectory(folder / run.name))


def trained(task: Task, workers: int = 0, stop_after: int | None = None) -> list[Progress]:
    """Train, and stop after a step."""
    torch.set_num_threads(task.train.threads)
    seen: list[Progress] = []

    def on_step(progress: Progress) -> bool:
        seen.append(progress)
        return progress.step == stop_after

    train_network(task, CPU, workers, on_step)
    return seen


def state_bits(task: Task) -> dict[str, Tensor]:
    return read_tensors(task.where.training_state)


def assert_equal_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, list[Progress]]:
    """A training that nothing interrupted."""
    torch.set_num_threads(1)
    task = task_of(data, tmp_path_factory.mktemp("whole"))
    return task, trained(task)


@pytest.mark.parametrize("stop_after", [1, 3, 4, 7])
def test_an_interrupted_training_ends_with_the_same_bits(
    whole: tuple[Task, list[Progress]], data: Path, tmp_path: Path, stop_after: int
) -> None:
    task = task_of(data, tmp_path)
    assert len(trained(task, stop_after=stop_after)) == stop_after
    again = trained(task)
    assert [p.step for p in again] == list(range(stop_after + 1, 9))
    assert_equal_bits(state_bits(task), state_bits(whole[0]))
    best = [task.where.checkpoints / "best.safetensors" for task in (task, whole[0])]
    assert_equal_bits(*(read_tensors(path) for path in best))


def test_a_killed_training_goes_on_from_its_last_state(
    whole: tuple[Task, list[Progress]], data: Path, tmp_path: Path
) -> None:
    task = task_of(data, tmp_path)

    def killed(progress: Progress) -> bool:
        if progress.step == 5:
            raise SystemExit  # no state is written, as after a kill
        return False

    with pytest.raises(SystemExit):
        train_network(task, CPU, 0, killed)
    assert [p.step for p in trained(task)] == [5, 6, 7, 8]
    assert_equal_bits(state_bits(task), state_bits(whole[0]))


def test_the_number_of_batch_workers_changes_nothing(
    whole: tuple[Task, list[Progress]], data: Path, tmp_path: Path
) -> None:
    task = task_of(data, tmp_path)
    trained(task, workers=1)
    assert_equal_bits(state_bits(task), state_bits(whole[0]))


def test_a_finished_training_has_nothing_to_do(
    whole: tuple[Task, list[Progress]],
) -> None:
    assert trained(whole[0]) == []


def test_the_loss_falls(data: Path, tmp_path: Path) -> None:
    task = task_of(data, tmp_path, steps=60, validation=None)
    losses = [p.loss for p in trained(task)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


def test_the_best_of_the_validations_is_kept(whole: tuple[Task, list[Progress]]) -> None:
    task, seen = whole
    results = {p.step: p.validated for p in seen if p.validated}
    assert sorted(results) == [4, 8]
    best = min(results, key=lambda step: results[step].scores.voi)
    header = Header.read(task.where.checkpoints / "best.safetensors")
    assert header.step == best
    assert header.scores["voi"] == results[best].scores.voi
    assert header.run["train"]["seed"] == 1
    last = Checkpoint.read(task.where.checkpoints / "last.safetensors")
    assert last.header.step == 8


def test_what_is_kept_are_the_averaged_weights(data: Path, tmp_path: Path) -> None:
    task = task_of(data, tmp_path, steps=3, validation=None)
    passed: list[dict[str, Tensor]] = []
    for stop in (1, 2, 3):
        trained(task, stop_after=stop)
        tensors = state_bits(task)
        passed.append({k[7:]: v for k, v in tensors.items() if k.startswith("module.")})
    kept = Checkpoint.read(task.where.checkpoints / "last.safetensors").weights
    names = [name for name, _ in TrainingState.new(task, CPU).module.named_parameters()]
    for name in names:
        one, two, three = (weights[name] for weights in passed)
        expected = 0.5 * (0.5 * one + 0.5 * two) + 0.5 * three
        torch.testing.assert_close(kept[name], expected)
    torch.testing.assert_close(kept["up.0.norm.running_mean"], passed[-1]["up.0.norm.running_mean"])


def test_curves_and_pictures_are_there(whole: tuple[Task, list[Progress]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    task, seen = whole
    rows = read_rows(task.where.checkpoints / "training.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [8]
    terms = {"loss/self", "loss/cross", "loss/pyramid_1"}
    assert terms <= rows[-2].keys()
    assert sum(rows[-2][name] for name in terms) == pytest.approx(np.mean([p.loss for p in seen]))
    events = EventAccumulator(str(task.where.checkpoints / "tensorboard"))
    events.Reload()
    assert {"loss/self", "validation/voi"} <= set(events.Tags()["scalars"])
    pictures = sorted(events.Tags()["images"])
    shown = ("raw", "truth", "embedding", "affinities", "segmentation")
    assert pictures == [f"section/{number} {name}" for number, name in enumerate(shown, start=1)]
    for name in pictures:
        assert len(events.Images(name)) == 2


def test_rows_after_the_state_are_forgotten(data: Path, tmp_path: Path) -> None:
    task = task_of(data, tmp_path, steps=20, validation=None, checkpoint_every=20)
    rows = task.where.checkpoints / "training.jsonl"
    trained(task, stop_after=12)
    with rows.open("a") as file:
        file.write(json.dumps({"step": 15, "loss": 1.0}) + "\n" + '{"step": 1')
    trained(task)
    assert [row["step"] for row in read_rows(rows)] == [10, 20]


def test_embeddings_that_differ_have_colours_that_differ() -> None:
    embedding = np.zeros((5, 4, 6), np.float32)
    embedding[0, :2], embedding[3, 2:, :3], embedding[4, 2:, 3:] = 1, 2, 3
    picture = embedding_colours(embedding)
    assert picture.shape == (4, 6, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 3


def test_another_training_in_the_same_place_is_refused(
    whole: tuple[Task, list[Progress]], data: Path
) -> None:
    task, _ = whole
    other = task_of(data, task.where.root.parent, seed=2)
    with pytest.raises(ExistsError, match=r"parameters|train.*seed"):
        trained(other)


def test_a_training_can_begin_with_the_weights_of_another(
    whole: tuple[Task, list[Progress]], data: Path, tmp_path: Path
) -> None:
    best = whole[0].where.checkpoints / "best.safetensors"
    task = task_of(data, tmp_path, initial=str(best), seed=2)
    begun = TrainingState.new(task, CPU)
    assert_equal_bits(dict(begun.module.state_dict()), dict(Checkpoint.read(best).weights))
    assert "initial" in task.identity.inputs
    tree = tree_of(data, initial=str(best))
    tree["network"]["features"] = [4, 8]
    with pytest.raises(ConfigError, match=r"features: \[4, 6\] -> \[4, 8\]"):
        open_task(Run.model_validate(tree), RunDirectory(tmp_path / "other"))
    with pytest.raises(NotFoundError, match="no checkpoint at nowhere"):
        task_of(data, tmp_path, initial="nowhere")


def test_beginning_anew_forgets_nothing_before_it_can_begin(data: Path, tmp_path: Path) -> None:
    task = task_of(data, tmp_path, validation=None)
    trained(task)
    best = task.where.checkpoints / "best.safetensors"
    impossible = task_of(data, tmp_path, validation=None, crop_vx=[12, 16, 20])
    with pytest.raises(RoiError, match="must hold a crop"):
        train_network(impossible, CPU, 0, lambda _: False, anew=True)
    weights = read_tensors(best)
    again = task_of(data, tmp_path, validation=None, initial=str(best))
    train_network(again, CPU, 0, lambda progress: progress.step == 1, anew=True)
    assert not best.exists()
    assert read_tensors(again.where.training_state).keys() > {f"module.{n}" for n in weights}


def test_a_loss_that_is_not_finite_stops_the_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(data, tmp_path, validation=None)
    trained(task, stop_after=3)
    before = state_bits(task)
    monkeypatch.setattr(
        "pipeline.model.losses.weighted_error", lambda *_: torch.tensor(float("nan"))
    )
    with pytest.raises(DataError, match="step 4 is nan"):
        trained(task)
    assert_equal_bits(state_bits(task), before)


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"roi": planes(slice(0, 11))}, RoiError, "must not overlap"),
        ({"roi": planes(slice(0, 40))}, RoiError, "run.train.roi must lie inside"),
        ({"roi": {"offset": [85, 16, 8], "shape": [400, 320, 352]}}, RoiError, "whole voxels"),
        ({"crop_vx": [6, 15, 20]}, LayoutError, "nearest is"),
        ({"crop_vx": [6, 2, 20]}, ConfigError, "must be shorter"),
        ({"crop_vx": [12, 16, 20]}, RoiError, "must hold a crop"),
    ],
)
def test_regions_and_crops_that_do_not_fit_are_refused(
    data: Path, tmp_path: Path, change: dict[str, Any], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        trained(task_of(data, tmp_path, **change))
    assert not (tmp_path / "tiny" / "checkpoints").exists()


def test_the_test_region_is_neither_trained_nor_validated_on(data: Path, tmp_path: Path) -> None:
    for part in (slice(9, 10), slice(15, 16)):
        tree = tree_of(data)
        tree["data"]["test_roi"] = planes(part)
        with pytest.raises(RoiError, match="test_roi must not overlap"):
            open_task(Run.model_validate(tree), RunDirectory(tmp_path / "tiny"))


@pytest.mark.parametrize("missing", ["raw", "labels"])
def test_training_needs_raw_and_labels(data: Path, tmp_path: Path, missing: str) -> None:
    tree = tree_of(data)
    tree["data"][missing] = None
    with pytest.raises(ConfigError, match=f"run.data.{missing}"):
        open_task(Run.model_validate(tree), RunDirectory(tmp_path / "tiny"))


def test_rough_arithmetic_is_refused() -> None:
    exact = torch.randn(1, 8, 6, 9, 11, generator=torch.Generator().manual_seed(1))
    for embeds in (True, False):
        refuse_rough(lambda half: exact.bfloat16() if half else exact, embeds, "here")
        with pytest.raises(DataError, match="precision bf16 must agree with fp32"):
            refuse_rough(lambda half: exact.flip(2) if half else exact, embeds, "here")
        with pytest.raises(DataError, match="found nan"):
            refuse_rough(lambda half: exact * torch.nan if half else exact, embeds, "here")


def test_ctrl_c_ends_the_step_first(data: Path, tmp_path: Path) -> None:
    run_file = tmp_path / "run.yaml"
    tree = {"run": tree_of(data, steps=500, validation=None), "machine": {"train_workers": 1}}
    run_file.write_text(yaml.safe_dump(tree))
    runs = tmp_path / "runs"
    words = [*PEA, "train", str(run_file), "--runs", str(runs)]
    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
            rows = runs / "tiny" / "checkpoints" / "training.jsonl"
            before = rows.stat().st_size if rows.exists() else 0
            while not rows.exists() or rows.stat().st_size <= before:
                assert started.poll() is None
                time.sleep(0.05)
            started.send_signal(number)
            _, said = started.communicate(timeout=60)
        assert started.returncode == 130, said.decode()
        assert said.decode().strip() == "interrupted; the same command goes on from here"
    state = RunDirectory(runs / "tiny").training_state
    done = steps_done(state)
    assert 20 <= done < 500
    whole = task_of(data, tmp_path / "whole", steps=500, validation=None)
    trained(whole, stop_after=done)
    assert_equal_bits(read_tensors(state), state_bits(whole))


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto", "fp32") == CPU
    with pytest.raises(ConfigError, match="needs a GPU"):
        device_named("cuda", "fp32")
    monkeypatch.setattr("pipeline.hardware.cpu_kind", lambda: "AuthenticAMD avx2 avx fma")
    with pytest.raises(ConfigError, match="bf16 needs a GPU or a CPU with amx_bf16"):
        device_named("auto", "bf16")
    monkeypatch.setattr("pipeline.hardware.cpu_kind", lambda: "GenuineIntel amx_bf16 avx2")
    assert device_named("auto", "bf16") == CPU


def test_the_command_trains_resumes_and_begins_anew(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text(yaml.safe_dump({"run": tree_of(data), "machine": {"train_workers": 0}}))
    words = ["train", str(run_file), "--runs", str(tmp_path / "runs")]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "step 4: loss" in out
    assert "8 steps in" in out
    assert "best: step" in out
    state = tmp_path / "runs" / "tiny" / "checkpoints" / "state.safetensors"
    changed = state.stat().st_mtime_ns
    assert cli.main(words) == 0
    assert state.stat().st_mtime_ns == changed
    assert cli.main([*words, "run.train.seed=2"]) == 1
    assert "begun with other settings" in capsys.readouterr().err
    assert cli.main([*words, "run.train.seed=2", "--rerun"]) == 0
    assert state.stat().st_mtime_ns > changed
