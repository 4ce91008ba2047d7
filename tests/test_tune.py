"""`pea tune`: it finds what was planted, from the numbers that separate runs would have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pipeline.candidates import chosen_settings
from pipeline.config import Workers, checked_settings, load_settings
from pipeline.errors import ConfigError, PipelineError, RoiError
from pipeline.geometry import Offsets
from pipeline.plan import make_plan
from pipeline.segment.affinities import affinities_from_labels
from pipeline.stages.stage import Stage
from tests.drawn import (
    DIRECT,
    LONG,
    OFFSET_NM,
    SHAPE,
    SIZE_NM,
    drawn_labels,
    files_state,
    run_tree,
    set_at,
    write_inputs,
    write_run,
    write_volume,
)
from tests.predicted import drawn_raw, predict_tree, write_checkpoint
from workers import cli
from workers.daisy_runner import DaisyRunner
from workers.drive import drive
from workers.runner import Progress, Runner
from workers.serial_runner import SerialRunner
from workers.tune import Tuned, tune

QUIET = Console(quiet=True)
BEGIN, SIDES = (2, 3, 5), (9, 30, 33)
"""The region, in voxels of the volume."""
LIST = [0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9]


def planes(begin: Sequence[int], sides: Sequence[int]) -> dict[str, Any]:
    return {
        "offset": [o + b * s for o, b, s in zip(OFFSET_NM, begin, SIZE_NM, strict=True)],
        "shape": [n * s for n, s in zip(sides, SIZE_NM, strict=True)],
    }


REGION = planes(BEGIN, SIDES)
ROI = ",".join(
    f"{low}:{low + side}" for low, side in zip(REGION["offset"], REGION["shape"], strict=True)
)


@pytest.fixture(autouse=True)
def no_picture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the picture to the test of the command: half of the time of a small tuning."""
    if "command" not in request.node.name:
        monkeypatch.setattr("pipeline.report.landscape.draw_landscape", lambda *_: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("tune"), offsets=LONG, digest="drawn")


def tree_of(data: Path, **tried: Any) -> dict[str, Any]:
    tree = run_tree(data, block_vx=(8, 32, 32), workers=1)
    tree["run"]["fragments"] = {"narrow_nm": 8.0, "wide_nm": 12.0}
    tree["run"]["tune"] = {
        "wide_nm": [12.0, 16.0], "wide_share": [0.4], "thresholds": LIST, "betas": LIST,
        "quantiles": [75], "weightings": ["none", "contacts"], **tried,
    }  # fmt: skip
    return tree


def tuned(tree: dict[str, Any], runs: Path, runner: Runner | None = None, **given: Any) -> Tuned:
    settings = checked_settings(tree, "the test")
    return tune(settings, runs, lambda _: runner or SerialRunner(), QUIET, **{"roi": ROI} | given)


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return tuned(tree_of(data), tmp_path_factory.mktemp("done"))


def landscape(found: Tuned) -> dict[str, Any]:
    return dict(json.loads(found.scores.read_text()))


# The scores are those of runs


def test_every_score_is_that_of_a_run_with_these_settings(data: Path, done: Tuned, tmp_path: Path):
    """One run for each curve, of which the sweep is a run's own; the middle is its headline."""
    curves = landscape(done)["curves"]
    assert len(curves) == 2 * 7
    # Of the second fragments one is enough.
    for number, curve in enumerate(curves[:8]):
        tree = run_tree(data, name=f"run-{number}", block_vx=(16, 40, 48))
        tree["run"]["data"]["roi"] = REGION
        tree["run"]["fragments"] = curve["fragments"]
        tree["run"]["agglomerate"] = curve["agglomerate"]
        tree["run"]["evaluate"] = {"thresholds": LIST, "betas": LIST}
        plan = make_plan(checked_settings(tree, "the test"), tmp_path)
        drive(plan, plan.steps, SerialRunner(), [], QUIET)
        scores = json.loads(plan.run.scores.read_text())
        name = curve["parameter"]
        if name is None:
            assert curve["scores"] == [{key: scores[key] for key in curve["scores"][0]}]
        else:
            assert curve["scores"] == scores[f"{name}s"]
            assert len({each["voi"] for each in curve["scores"]}) > 2


def test_the_chosen_run_file_gives_the_chosen_scores(done: Tuned, tmp_path: Path, capsys):
    chosen = landscape(done)["chosen"]
    settings = load_settings(done.chosen)
    assert settings == done.settings
    words = ["run", "all", str(done.chosen), f"run.data.roi={json.dumps(REGION)}"]
    assert cli.main([*words, "--runs", str(tmp_path)]) == 0
    scores = json.loads((tmp_path / "small" / "scores.json").read_text())
    assert {key: scores[key] for key in ("voi", "voi_split", "voi_merge", "arand")} == {
        key: chosen[key] for key in ("voi", "voi_split", "voi_merge", "arand")
    }
    assert scores["method"] == chosen["agglomerate"]["method"]


def test_what_is_not_tuned_stays_as_the_run_has_it(data: Path, done: Tuned):
    before = checked_settings(tree_of(data), "the test").model_dump()
    after = done.settings.model_dump()
    for section in ("data", "train", "predict", "evaluate", "tune", "name"):
        assert after["run"][section] == before["run"][section]
    assert after["machine"] == before["machine"]


def test_the_landscape_says_what_it_is(done: Tuned):
    said = landscape(done)
    assert said["by"] == "voi"
    assert said["convention"] == "scikit-image"
    assert "voxels (4, 5, 6) to (13, 35, 39)" in said["region"]
    assert said["chosen"] == said["best_of_each_method"][0]
    means = [each["mean_voi"] for each in said["best_of_each_method"]]
    assert means == sorted(means)
    methods = [each["agglomerate"]["method"] for each in said["best_of_each_method"]]
    assert len(methods) == 7
    assert len(set(methods)) == 5


# What was planted


def planted(folder: Path) -> Path:
    """Boxes with a faint false membrane, of affinity 0.6, in the middle of each; true ones 0.15."""
    root = folder / "data.zarr"
    z, y, x = np.indices(SHAPE)
    boxes = (1 + z // 6 * 4 + y // 20 * 2 + x // 22).astype(np.uint64)
    halves = boxes * np.uint64(2) + (x // 11 % 2).astype(np.uint64)
    apart, cut = (affinities_from_labels(each, Offsets.of(DIRECT)) == 0 for each in (boxes, halves))
    affinities = np.where(apart, 38, np.where(cut, 153, 230)).astype(np.uint8)
    write_volume(root / "affinities", affinities, "affinities", DIRECT)
    write_volume(root / "labels", boxes, "labels")
    return root


def test_the_planted_best_is_found(tmp_path: Path):
    """One Gaussian wipes the boxes out; only thresholds of 0.4 to 0.85 join halves, not boxes."""
    tree = tree_of(
        planted(tmp_path),
        methods=["mean_affinity"],
        narrow_nm=[400.0],
        wide_nm=[12.0],
        wide_share=[0.0, 1.0],
        thresholds=[0.05, 0.1, 0.15, 0.5, 0.55, 0.6, 0.65, 0.7, 0.9, 0.95, 0.99],
    )
    found = landscape(tuned(tree, tmp_path / "runs", roi=":,:,:"))
    chosen = found["chosen"]
    assert chosen["fragments"]["wide_share"] == 1.0
    assert (chosen["threshold"], chosen["window"]) == (0.6, [0.5, 0.7])
    assert (chosen["voi"], chosen["mean_voi"]) == (0, 0)
    others = [
        each["voi"]
        for curve in found["curves"]
        for each in curve["scores"]
        if curve["fragments"] != chosen["fragments"] or not 0.4 < each["threshold"] < 0.85
    ]
    assert len(others) == 11 + 6
    assert min(others) > 0.5


# Runs that stop and start


class Counting(SerialRunner):
    """Counts the blocks that it is given, and is stopped before one of them."""

    def __init__(self, stop: int | None = None) -> None:
        self.blocks = 0
        self.stop = stop

    def run(
        self, stage: Stage, blocks: Sequence[int], workers: Workers, progress: Progress
    ) -> str | None:
        for block in blocks:
            if self.blocks == self.stop:
                raise KeyboardInterrupt
            super().run(stage, [block], workers, progress)
            self.blocks += 1
        return None


@pytest.mark.parametrize("stop", [0, 13, 30])
def test_a_tuning_that_was_stopped_does_no_block_again(data: Path, tmp_path: Path, stop: int):
    tree = tree_of(data, methods=["quantile"])
    runs, first, second = tmp_path / "stopped", Counting(stop), Counting()
    with pytest.raises(KeyboardInterrupt):
        tuned(tree, runs, first)
    assert not any(path.is_file() for path in (runs / "small" / "tune").glob("[!.]*"))
    found = tuned(tree, runs, second)
    whole = Counting()
    expected = tuned(tree, tmp_path / "whole", whole)
    assert first.blocks + second.blocks == whole.blocks
    assert found.scores.read_bytes() == expected.scores.read_bytes()
    assert found.chosen.read_bytes() == expected.chosen.read_bytes()


def test_other_methods_cost_no_block_and_other_fragments_only_theirs(data: Path, tmp_path: Path):
    counts = []
    for tried in ({"wide_nm": [12.0]}, {"wide_nm": [12.0], "methods": ["multicut"]}, {}):
        runner = Counting()
        tuned(tree_of(data, **tried), tmp_path, runner)
        counts.append(runner.blocks)
    assert counts[0] > 0
    assert counts[1:] == [0, counts[0]]


def test_another_region_is_refused_until_it_is_asked_for(data: Path, tmp_path: Path):
    tree = tree_of(data, wide_nm=[12.0], methods=["mean_affinity"])
    tuned(tree, tmp_path)
    before = files_state(tmp_path)
    other = "80:360,:,:"
    with pytest.raises(ConfigError, match="made with other settings"):
        tuned(tree, tmp_path, roi=other)
    assert files_state(tmp_path) == before
    found = tuned(tree, tmp_path, roi=other, rerun=True)
    assert "(2, 2, 1) to (9, " in landscape(found)["region"]


@pytest.mark.slow
def test_daisy_finds_the_same(data: Path, tmp_path: Path):
    tree = tree_of(data, wide_nm=[12.0])
    one = tuned(tree, tmp_path / "serial")
    for stage in ("fragments", "edges", "evaluate"):
        tree["machine"][stage] = {"workers": 2, "block_vx": [5, 20, 30]}
    other = tuned(tree, tmp_path / "daisy", DaisyRunner())
    assert one.scores.read_bytes() == other.scores.read_bytes()


# Where the affinities come from


@pytest.fixture(scope="module")
def imaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw, labels, and a network of embeddings that nobody trained."""
    folder = tmp_path_factory.mktemp("imaged")
    write_volume(folder / "raw", drawn_raw(), "raw", content_digest="raw")
    write_volume(folder / "labels", drawn_labels(), "labels", content_digest="labels")
    write_checkpoint(folder / "net.safetensors", [*DIRECT, (-2, 0, 0), (0, -9, 0), (0, 0, -5)])
    return folder


def predicting(imaged: Path, **predict: Any) -> dict[str, Any]:
    labels = {"labels": str(imaged / "labels")}
    tree = predict_tree(imaged / "raw", imaged / "net.safetensors", data=labels, **predict)
    tried = tree_of(imaged, wide_nm=[12.0], weightings=["none"])["run"]
    return set_at(tree, "run.tune", tried["tune"])


def test_affinities_are_predicted_once_with_the_offsets_that_methods_need(imaged, tmp_path):
    tree = predicting(imaged, offsets=DIRECT)
    found = tuned(tree, tmp_path)
    methods = {curve["agglomerate"]["method"] for curve in landscape(found)["curves"]}
    assert len(methods) == 5
    run = load_settings(found.run.root / "affinities" / "run.yaml").run
    # Those of the training that the crop of the patches allows.
    fitting = [*DIRECT, (-2, 0, 0), (0, 0, -5)]
    assert [tuple(v) for v in run.predict.offsets.vectors] == fitting
    assert not (tmp_path / "small" / "volumes.zarr").exists()
    again = Counting()
    assert landscape(tuned(tree, tmp_path, again)) == landscape(found)
    assert again.blocks == 0


@pytest.mark.parametrize("method", ["multicut", "mutex_watershed"])
def test_the_chosen_run_predicts_what_its_method_needs(imaged, tmp_path, method):
    tree = predicting(imaged, offsets=DIRECT)
    set_at(tree, "run.tune.methods", [method, "lifted_multicut"])
    found = tuned(tree, tmp_path)
    one = next(p for p in found.best if p.curve.agglomerate["method"] == method)
    edges = Offsets.of([*DIRECT, (-2, 0, 0), (0, 0, -5)])
    offsets = chosen_settings(checked_settings(tree, "the test"), one, edges).run.predict.offsets
    assert offsets == (edges if method == "mutex_watershed" else Offsets.of(DIRECT))


def test_affinities_that_the_run_has_are_used(imaged, tmp_path):
    offsets = [*DIRECT, (-2, 0, 0), (0, 4, 0)]
    tree = predicting(imaged, offsets=offsets)
    before = tuned(tree, tmp_path / "without")
    plan = make_plan(checked_settings(tree, "the test"), tmp_path / "with")
    drive(plan, plan.steps[:1], SerialRunner(), [], QUIET)
    after = tuned(tree, tmp_path / "with")
    assert (before.run.root / "affinities").exists()
    assert not (after.run.root / "affinities").exists()
    one, other = (landscape(each) | {"affinities": ""} for each in (before, after))
    assert one == other


# What is refused


def refusals(data: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any], type, str]]:
    def changed(key: str, value: Any) -> dict[str, Any]:
        return set_at(tree_of(data), key, value)

    corner = planes((0, 0, 0), (4, 8, 8))
    training = {"roi": corner, "validation": {"roi": planes((3, 5, 5), (4, 8, 8))}}
    methods = ["lifted_multicut", "mutex_watershed"]
    direct = changed("run.tune.methods", methods)
    direct["run"]["data"]["affinities"] = str(data / "direct")
    ours = {"roi": None}
    return {
        "no labels": (changed("run.data.labels", None), {}, ConfigError, "run.data.labels"),
        "no region": (tree_of(data), ours, ConfigError, "run.train.validation.roi, or --roi"),
        "a region outside": (tree_of(data), {"roi": "0:40,:,:"}, RoiError, "--roi must lie inside"),
        "half a voxel": (tree_of(data), {"roi": "80:125,:,:"}, RoiError, "whole voxels"),
        "no region at all": (tree_of(data), {"roi": "80"}, ConfigError, "Z:Z,Y:Y,X:X"),
        "the test": (changed("run.data.test_roi", planes((8, 0, 0), (4, 8, 8))), {}, RoiError,
                     "--roi and run.data.test_roi must not overlap"),
        "the training": (changed("run.train", training), {}, RoiError,
                         "--roi and run.train.roi must not overlap"),
        "a validation in the training": (changed("run.train", training), ours, RoiError,
                                         "validation.roi and run.train.roi must not overlap"),
        "no long-range affinities": (direct, {}, ConfigError, "run.tune.methods needs"),
    }  # fmt: skip


@pytest.mark.parametrize("what", refusals(Path()))
def test_a_tuning_that_would_mislead_is_refused_before_it_begins(data, tmp_path, what):
    if not (data / "direct").exists():
        write_volume(data / "direct", np.zeros((3, *SHAPE), np.uint8), "affinities", DIRECT)
    tree, given, kind, message = refusals(data)[what]
    with pytest.raises(kind, match=message) as caught:
        tuned(tree, tmp_path / "runs", **given)
    assert isinstance(caught.value, PipelineError)
    assert not list((tmp_path / "runs").rglob("identity.json"))


def test_the_region_of_the_validation_is_taken(data: Path, tmp_path: Path):
    tree = tree_of(data, wide_nm=[12.0], methods=["mean_affinity"])
    training = {"roi": planes((0, 0, 0), (2, 8, 8)), "validation": {"roi": REGION}}
    tree["run"]["train"] = training
    tree["run"]["data"]["test_roi"] = planes((11, 0, 0), (1, 8, 8))
    one = tuned(tree, tmp_path, roi=None)
    assert "voxels (4, 5, 6) to (13, 35, 39)" in landscape(one)["region"]


# The command


def test_the_command_prints_the_best_of_each_method_and_what_to_do_next(data, tmp_path, capsys):
    path = write_run(tmp_path / "run.yaml", tree_of(data, wide_nm=[12.0]))
    words = [str(path), "--runs", str(tmp_path / "runs")]
    assert cli.main(["tune", *words, "--roi", ROI, "--by", "arand"]) == 0
    said = capsys.readouterr().out
    assert "fragments 1 of 1: narrow_nm 8, wide_nm 12, wide_share 0.4" in said
    for method in ("mean affinity", "quantile, 75", "lifted multicut, contacts", "mutex watershed"):
        assert f"\n{method} " in said
    root = tmp_path / "runs" / "small" / "tune"
    assert json.loads((root / "landscape.json").read_text())["by"] == "arand"
    assert (root / "landscape.png").read_bytes().startswith(b"\x89PNG")
    command = next(line for line in said.splitlines() if line.startswith("next: "))
    assert command == f"next: pea run all {root}/chosen.yaml --runs {tmp_path}/runs"
    assert cli.main(command.split()[2:]) == 0
    capsys.readouterr()
    # A run that is there and differs has to be asked to change.
    assert cli.main(["tune", *words, "--roi", ROI, "run.tune.methods=[mutex_watershed]"]) == 0
    assert "chosen.yaml --rerun --runs" in capsys.readouterr().out


def test_methods_without_their_affinities_are_left_out_and_it_is_said(data, tmp_path, capsys):
    write_inputs(tmp_path, digest="drawn")
    path = write_run(tmp_path / "run.yaml", tree_of(tmp_path / "data.zarr", wide_nm=[12.0]))
    assert cli.main(["tune", str(path), "--roi", ROI, "--runs", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert "not tried, without long-range affinities: lifted_multicut, mutex_watershed" in said
    assert "multicut, none" in said
