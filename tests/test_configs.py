"""The run files in ``configs``: they fit the data they are for; their head comments are true."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.checkpoint import Header
from pipeline.config import Settings, checked_settings, dump_settings, load_settings, load_yaml
from pipeline.geometry import Nm, Roi
from pipeline.plan import Plan, make_plan
from pipeline.rundir import RunDirectory
from pipeline.spec import VolumeSpec
from pipeline.stages.predict import PredictBlockwise
from pipeline.train.task import Task, open_task
from pipeline.volume import Volume
from tests.predicted import write_checkpoint
from tests.stand_ins import CONFIGS, MACHINES, ROOT, SMALL, quick, small, write_files
from workers import cli

WHOLE = {
    "ac4": ((100, 1024, 1024), (29, 6, 6)),
    "ac3": ((256, 1024, 1024), (29, 6, 6)),
    "snemi3d": ((100, 1024, 1024), (30, 6, 6)),
    "fib25": ((170, 250, 250), (10, 10, 10)),
    "fib25-aniso": ((57, 250, 250), (30, 10, 10)),
}
"""Shape and voxel size of the real data, by the name of their Zarr."""
TRAINED = {
    "ac3ac4-code": (range(80), range(80, 100)),
    "ac3ac4-paper": (range(80), range(80, 100)),
    "snemi3d": (range(80), range(80, 100)),
    "fib25": (range(150), range(150, 170)),
    "fib25-aniso": (range(50), range(50, 57)),
}
"""Planes that each run trains and validates on."""


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_loads_and_says_all_of_itself(name: str) -> None:
    settings = load_settings(CONFIGS[name])
    assert checked_settings(load_yaml(dump_settings(settings), "again"), "again") == settings
    assert settings.run.name in (name, "ac3-code")


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.stem)
def test_every_machine_file_fits_a_run(path: Path) -> None:
    settings = load_settings(CONFIGS["fib25"], machine=path)
    assert settings.machine != load_settings(CONFIGS["fib25"]).machine
    assert checked_settings(load_yaml(dump_settings(settings), "again"), "again") == settings


def described(settings: Settings) -> None:
    """The real inputs of a run, without their voxels."""
    data = settings.run.data
    for meaning, path in (("raw", data.raw), ("labels", data.labels)):
        assert path is not None
        shape, size = WHOLE[path.parent.stem]
        if not path.exists():
            dtype = "uint8" if meaning == "raw" else "uint64"
            spec = VolumeSpec(shape, dtype, Nm.of(size), Nm.of([0, 0, 0]), meaning)
            Volume.create(path, spec, {"content_digest": f"{meaning} of {path.parent.stem}"})


def planned(settings: Settings) -> tuple[Task | None, Plan]:
    """What would be trained and what would be run, with a checkpoint that nobody trained."""
    run = settings.run
    where = RunDirectory(Path("runs") / run.name)
    task = None
    if run.train is not None:
        task = open_task(run, where)
        described_network = run.network.model_dump(mode="json")
        path, offsets = where.checkpoints / "best.safetensors", run.train.offsets.numbers()
    else:
        (trained,) = (name for name in TRAINED if name in run.predict.checkpoint)
        other = load_settings(CONFIGS[trained]).run
        assert other.train is not None
        described_network = other.network.model_dump(mode="json")
        path, offsets = Path(run.predict.checkpoint), other.train.offsets.numbers()
    write_checkpoint(path, offsets, **described_network)
    return task, make_plan(settings, Path("runs"))


@pytest.mark.parametrize("name", [*TRAINED, "ac3-test"])
def test_a_config_fits_the_real_data(name: str, tmp_path: Path) -> None:
    settings = load_settings(CONFIGS[name])
    with contextlib.chdir(tmp_path):
        described(settings)
        task, plan = planned(settings)
    stage = plan.steps[0].stage
    assert isinstance(stage, PredictBlockwise)
    assert stage.grid.total.contains(plan.select("fragments_blockwise")[0].stage.grid.total)
    if task is not None:
        train, validation = TRAINED[name]
        assert task.validation_roi is not None
        for roi, planes in ((task.data.roi, train), (task.validation_roi, validation)):
            assert range(roi.begin[0], roi.end[0]) == planes
            assert tuple(roi.shape[1:]) == task.raw.spec.shape[1:]
        # No voxel is predicted more than two and a half times.
        patch, tile = stage.patches.patch_vx, stage.patches.tile_vx
        assert np.prod(patch) <= 2.5 * np.prod(tile) or name.startswith("fib25")


def test_the_last_hundred_sections_of_ac3_are_a_change_away(tmp_path: Path) -> None:
    change = next(word for words in commands("ac3-test") for word in words if "4524" in word)
    settings = load_settings(CONFIGS["ac3-test"], [change])
    with contextlib.chdir(tmp_path):
        described(settings)
        _, plan = planned(settings)
    total = plan.select("relabel_blockwise")[0].stage.grid.total
    assert total == Roi((156, 0, 0), (100, 1024, 1024))


def test_paper_and_code_differ_where_they_say_so() -> None:
    lines = CONFIGS["ac3ac4-paper"].read_text().splitlines()
    of_code = set(CONFIGS["ac3ac4-code"].read_text().splitlines())
    one, other = (load_settings(CONFIGS[f"ac3ac4-{name}"]).run for name in ("paper", "code"))

    def changed(a: object, b: object, key: str = "") -> set[str]:
        if isinstance(a, dict) and isinstance(b, dict):
            return {found for name in a for found in changed(a[name], b[name], name)}
        return {key} if a != b else set()

    found = changed(one.model_dump(mode="json"), other.model_dump(mode="json"))
    assert found == {
        "name", "align_corners", "offsets", "transpose", "rotate", "scale", "elastic",
        "elastic_spacing_vx", "elastic_sigma_vx", "intensity", "detach", "channels", "balance",
        "count_missing", "background_pair", "pyramid_offsets", "epsilon", "amsgrad", "weight_decay",
    }  # fmt: skip
    for key in found - {"name"}:
        here = [n for n, line in enumerate(lines) if re.search(rf"\b{key}:", line)]
        new = [n for n in here if lines[n] not in of_code]
        assert new, key
        assert any("iffers" in lines[n] + lines[n - 1] for n in new), key


def commands(name: str) -> list[list[str]]:
    """The command lines in the head comment of a config, without ``pea``."""
    head = re.sub(r" \\\n#", "", CONFIGS[name].read_text().partition("\nrun:")[0])
    lines = [line[4:] for line in head.splitlines() if line.startswith("#   pea ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def do(words: list[str], *more: str) -> int:
    """A command of a head comment, in the present directory."""
    return cli.main([str(ROOT / word) if word.startswith("configs/") else word for word in words]
                    + list(more))  # fmt: skip


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The users' files, small, and brought in."""
    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    with contextlib.chdir(folder):
        for config in ("ac3ac4-code", "ac3-test", "snemi3d", "fib25-aniso"):
            for words in commands(config):
                if words[0] == "ingest":
                    assert do(words) == 0
    return folder


@pytest.mark.parametrize("name", ["ac3ac4-code", "ac3ac4-paper", "ac3-test", "snemi3d"])
def test_the_users_files_are_brought_in_and_planned(name: str, stand_in: Path) -> None:
    settings = load_settings(CONFIGS[name], small(name))
    data = settings.run.data
    assert data.raw is not None
    assert data.labels is not None
    with contextlib.chdir(stand_in):
        raw, labels = Volume.open(data.raw), Volume.open(data.labels)
        task, plan = planned(settings)
    assert raw.spec.shape == labels.spec.shape == SMALL
    assert (raw.spec.dtype, labels.spec.dtype) == ("uint8", "uint64")
    assert raw.spec.voxel_size_nm == Nm.of(WHOLE[data.raw.parent.stem][1])
    assert plan.steps[0].stage.name == "predict_blockwise"
    assert (task is None) == (name == "ac3-test")


def test_every_third_plane_is_thirty_nanometres(stand_in: Path) -> None:
    folder = stand_in / "data" / "fib25-aniso.zarr"
    raw, labels = Volume.open(folder / "raw"), Volume.open(folder / "labels")
    assert raw.spec.voxel_size_nm == labels.spec.voxel_size_nm == Nm.of([30, 10, 10])
    with h5py.File(stand_in / "fib25_train.h5") as file:
        assert np.array_equal(raw.read(raw.roi), file["volumes/raw"][::3])
        assert np.array_equal(labels.read(labels.roi), file["volumes/labels/neuron_ids"][::3])


def test_neither_help_nor_the_plan_of_a_prediction_imports_torch(stand_in: Path) -> None:
    name = "fib25-aniso"
    with contextlib.chdir(stand_in):
        planned(load_settings(CONFIGS[name], small(name)))
    program = (
        "import sys; from workers.cli import main; main(['--help']);"
        "status = main(['plan', *sys.argv[1:]]);"
        "heavy = ('torch', 'gunpowder', 'tensorboard', 'daisy', 'waterz', 'matplotlib');"
        "print([m for m in heavy if m in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(CONFIGS[name]), *small(name)],
        cwd=stand_in, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "predict_blockwise" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [("ac3ac4-code", "ac3ac4-paper", "ac3-test"), ("snemi3d",), ("fib25-aniso",)]
)
def test_the_commands_of_the_head_comments_train_and_predict(
    names: tuple[str, ...], stand_in: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").symlink_to(stand_in / "data")
    done = 0
    with contextlib.chdir(tmp_path):
        for name in names:
            for words in commands(name):
                if words[0] == "ingest":
                    continue
                more = [*small(name), *quick(name)]
                if "run.data.labels=null" in words:
                    more.append("run.data.roi=null")
                assert do(words, *more) == 0, words
                done += 1
        assert Header.read(Path("runs") / names[0] / "checkpoints" / "best.safetensors").step == 2
    assert done >= 2
