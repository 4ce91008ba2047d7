"""The command line: its help, its overrides, its exit status, and what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from skimage.metrics import variation_of_information

from pipeline.geometry import Roi
from pipeline.volume import Volume
from tests.drawn import (
    PEA,
    files_state,
    run_tree,
    set_at,
    write_inputs,
    write_run,
    write_volume,
)
from workers import cli

COMMANDS = (
    "plan", "train", "run", "tune", "status", "ingest", "export", "evaluate", "report", "picture",
    "view", "reference", "mesh", "skeleton", "drop", "demo", "settings",
)  # fmt: skip
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_inputs(folder)
    return folder


@pytest.fixture
def words(inputs: Path, tmp_path: Path) -> list[str]:
    """A run file, and where its run directory is."""
    tree = run_tree(inputs / "data.zarr", block_vx=(16, 40, 48))
    return [str(write_run(tmp_path / "run.yaml", tree)), "--runs", str(tmp_path / "runs")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: Said) -> None:
    assert cli.main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"Usage: pea {command}" in said
    assert "--help" in said


def test_versions_are_shown_without_loading_what_they_are_of() -> None:
    program = (
        "import sys; from workers.cli import main; status = main(['--version']);"
        "print([m for m in ('torch', 'numpy', 'zarr', 'daisy', 'dask') if m in sys.modules]);"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    *shown, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    names = ["pea", "python", "torch", "zarr", "daisy", "dask", "distributed", "bioimage-cpp"]
    assert [line.split()[0] for line in shown][: len(names)] == names
    torch = next(line for line in shown if line.startswith("torch "))
    assert re.fullmatch(r"torch \d+\.\d+\S*, CUDA (none|\d+\.\d+), .+", torch)
    assert f"zarr {zarr.__version__}" in shown


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    """After ``--install-completion``, whose script asks the command for words like this."""
    for words, completed in (("pea ex", "export"), ("pea export --for", "--format")):
        asked = {"_PEA_COMPLETE": "complete_bash", "COMP_WORDS": words,
                 "COMP_CWORD": str(len(words.split()) - 1)}  # fmt: skip
        done = subprocess.run(
            PEA, env={**os.environ, **asked}, capture_output=True, text=True, check=False
        )
        assert done.stdout.split() == [completed]
    line = f"{shlex.join(PEA)} --install-completion; exit $?"
    installed = subprocess.run(
        ["bash", "-c", line], env={**os.environ, "HOME": str(tmp_path)}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert "bash completion installed" in installed.stdout
    assert "complete" in (tmp_path / ".bash_completions" / "pea.sh").read_text()


def test_help_names_every_command(capsys: Said) -> None:
    assert cli.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {command} " in said for command in COMMANDS)
    assert len(cli.app.registered_commands) == len(COMMANDS)


def test_plan_imports_no_engine_and_writes_nothing(words: list[str], tmp_path: Path) -> None:
    program = (
        "import sys; from workers.cli import main; status = main(sys.argv[1:]);"
        "heavy = ('torch', 'gunpowder', 'daisy', 'waterz', 'matplotlib');"
        "print([m for m in heavy if m in sys.modules]);"
        "sys.exit(status)"
    )
    before = files_state(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program, "plan", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    for stage in ("fragments_blockwise", "edges_blockwise", "agglomerate", "evaluate"):
        assert f"{stage:<24}to do" in done.stdout
    assert files_state(tmp_path) == before
    assert not (tmp_path / "runs").exists()


def test_plan_of_a_finished_run_changes_nothing(
    words: list[str], tmp_path: Path, capsys: Said
) -> None:
    assert cli.main(["run", "all", *words]) == 0
    before = files_state(tmp_path)
    capsys.readouterr()
    assert cli.main(["plan", *words]) == 0
    assert cli.main(["status", *words]) == 0
    assert cli.main(["status", str(tmp_path / "runs" / "small")]) == 0
    said = capsys.readouterr().out
    assert said.count("evaluate                done") == 3
    assert files_state(tmp_path) == before


def test_changes_and_machine_files_apply(words: list[str], tmp_path: Path, capsys: Said) -> None:
    machine = tmp_path / "machine.yaml"
    machine.write_text("machine:\n  edges: {workers: 5, block_vx: [4, 8, 16]}\n")
    changes = ["run.name=other", "machine.edges.workers=3"]
    assert cli.main(["plan", words[0], *changes, *words[1:], "--machine", str(machine)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("runs/other")
    edges = next(line for line in lines if line.startswith("edges_blockwise")).split()
    assert edges[3:5] == ["0/45", "3"]
    fragments = next(line for line in lines if line.startswith("fragments_blockwise")).split()
    assert fragments[3] == "0/1", "the machine file replaces the whole section"


def test_a_machine_file_says_nothing_of_the_run(
    words: list[str], tmp_path: Path, capsys: Said
) -> None:
    machine = tmp_path / "machine.yaml"
    machine.write_text("run: {name: x}\nmachine: {}\n")
    assert cli.main(["plan", *words, "--machine", str(machine)]) == 1
    assert "must have the one key machine" in capsys.readouterr().err


def test_an_unknown_stage_lists_the_stages(words: list[str], tmp_path: Path, capsys: Said) -> None:
    for command in ("run", "drop"):
        assert cli.main([command, "fragmens", *words]) == 1
        said = capsys.readouterr().err
        assert "'fragmens'" in said
        for stage in ("all", "fragments_blockwise", "resolve_fragments", "relabel_blockwise"):
            assert stage in said
    assert not (tmp_path / "runs").exists()


def test_scores_without_truth_are_explained(inputs: Path, tmp_path: Path, capsys: Said) -> None:
    tree = set_at(run_tree(inputs / "data.zarr"), "run.data.labels", None)
    path = write_run(tmp_path / "run.yaml", tree)
    assert cli.main(["run", "evaluate", str(path), "--runs", str(tmp_path / "runs")]) == 1
    assert "Scores need run.data.labels." in capsys.readouterr().err


def test_a_stage_whose_inputs_are_not_done_says_which(words: list[str], capsys: Said) -> None:
    assert cli.main(["run", "agglomerate", *words]) == 1
    said = capsys.readouterr().err
    assert "agglomerate needs sum_edges, not done in " in said
    assert "pea run sum_edges" in said


def test_scores_can_be_of_a_part(words: list[str], inputs: Path, tmp_path: Path) -> None:
    part = "run.evaluate.roi={offset: [160, 16, 8], shape: [200, 240, 320]}"
    assert cli.main(["run", "all", *words, part]) == 0
    said = json.loads((tmp_path / "runs" / "small" / "scores.json").read_text())
    made, truth = (
        Volume.open(path).read(Roi((4, 2, 1), (5, 30, 40)))
        for path in (
            tmp_path / "runs" / "small" / "volumes.zarr" / "segmentation",
            inputs / "data.zarr" / "labels",
        )
    )
    split, merge = variation_of_information(truth, made, ignore_labels=(0,))
    assert (said["voi_split"], said["voi_merge"]) == pytest.approx((split, merge), abs=1e-9)
    assert said["num_voxels"] == np.count_nonzero(truth)


def test_a_run_and_pea_evaluate_say_the_same_of_its_segmentation(
    words: list[str], inputs: Path, tmp_path: Path, capsys: Said
) -> None:
    assert cli.main(["run", "all", *words, "run.evaluate.border_nm=16"]) == 0
    run = tmp_path / "runs" / "small"
    noted = {
        **json.loads((run / "scores.json").read_text()),
        **json.loads((run / "objects.json").read_text()),
    }
    capsys.readouterr()
    volumes = (run / "volumes.zarr" / "segmentation", inputs / "data.zarr" / "labels")
    assert cli.main(["evaluate", *map(str, volumes), "--border", "16", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    shared = ("conventions", "splits", "merges", "voi", "arand", "num_voxels", "border_nm")
    assert {key: said[key] for key in shared} == {key: noted[key] for key in shared}
    assert noted["splits"]
    assert noted["num_voxels"] < np.prod(Volume.open(volumes[1]).roi.shape)
    assert (run / "sweep.png").stat().st_size > 10_000


def test_evaluate_prints_json_and_nothing_else(inputs: Path, capsys: Said) -> None:
    labels = str(inputs / "data.zarr" / "labels")
    assert cli.main(["evaluate", labels, labels, "--json"]) == 0
    said = capsys.readouterr()
    scores = json.loads(said.out)
    assert {"voi_split", "voi_merge", "voi", "arand"} <= scores.keys()
    assert (scores["voi_split"], scores["voi_merge"], scores["arand"]) == (0, 0, 0)
    assert scores["convention"] == "scikit-image"
    assert scores["conventions"].keys() >= {"scikit-image", "cremi", "gala", "funlib"}
    assert (scores["splits"], scores["merges"]) == ([], [])
    assert said.err == ""


def test_evaluate_prints_the_headline_every_convention_and_the_worst_objects(
    inputs: Path, tmp_path: Path, capsys: Said
) -> None:
    labels = inputs / "data.zarr" / "labels"
    objects = Volume.open(labels)
    halves = objects.read(objects.roi)
    halves[:6][halves[:6] == 3] = 1000
    merged = write_volume(tmp_path / "data.zarr" / "halves", np.where(halves == 5, 6, halves), "")
    words = ["evaluate", str(merged.path.parent), str(labels)]
    assert cli.main([*words, "--objects"]) == 0
    headline, *lines = capsys.readouterr().out.splitlines()
    assert headline.startswith("VOI 0.")
    rows = {line.rpartition("  ")[0].strip().split("  ")[0] for line in lines[1:6]}
    assert rows == {"scikit-image", "cremi", "gala", "funlib", "natural logarithm"}
    assert [line.split(":")[0] for line in lines[6:]] == ["split truth 3", "merge segment 6"]
    assert cli.main([*words, "--border", "16"]) == 0
    assert capsys.readouterr().out.splitlines()[0] != headline


def test_progress_has_no_escape_codes_away_from_a_terminal(words: list[str]) -> None:
    done = subprocess.run([*PEA, "run", "all", *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\r" not in done.stdout + done.stderr
    assert b"fragments_blockwise: 1 block in" in done.stdout


@pytest.mark.parametrize(
    "wrong", [["rum"], ["run"], ["plan", "--no-such-option"], ["run", "all", "x", "--runner", "y"]]
)
def test_a_misspelt_command_line_exits_with_2(wrong: list[str], capsys: Said) -> None:
    assert cli.main(wrong) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    assert said.err or said.out


def test_debug_shows_the_traceback(capsys: Said) -> None:
    for words in (["plan", "none.yaml", "--debug"], ["--debug", "plan", "none.yaml"]):
        assert cli.main(words) == 1
        said = capsys.readouterr().err
        assert "Traceback" in said
        assert "error: no run file at none.yaml" in said


def test_errors_of_the_system_are_one_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workers.drive.write_provenance", full)
    assert cli.main(["run", "all", *words]) == 1
    assert capsys.readouterr().err == "error: OSError: [Errno 28] No space left on device\n"


def test_memory_of_tables_is_estimated_from_them_once_they_are_there(
    words: list[str], capsys: Said
) -> None:
    def planned() -> dict[str, str]:
        assert cli.main(["plan", *words]) == 0
        rows = (line.split() for line in capsys.readouterr().out.splitlines())
        return {row[0]: row[-2] for row in rows if row and row[-1] == "tables"}

    before = planned()
    assert before["sum_edges"] == before["agglomerate"] == "2.15"
    assert cli.main(["run", "all", *words]) == 0
    capsys.readouterr()
    after = planned()
    assert after["sum_edges"] == after["agglomerate"] == "0.00"


def test_an_interrupt_exits_with_130(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("workers.drive.run_stage", interrupted)
    assert cli.main(["run", "all", *words]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


def test_lengths_and_labels_on_the_command_line_are_checked(
    inputs: Path, tmp_path: Path, capsys: Said
) -> None:
    source, target = str(inputs / "data.zarr" / "labels"), str(tmp_path / "x.zarr" / "y")
    for option in (
        ["--voxel-size", "4,4"],
        ["--voxel-size", "a,b,c"],
        ["--background", "-1"],
        ["--planes", "x"],
    ):
        assert cli.main(["ingest", source, target, *option]) == 1
        assert option[0] in capsys.readouterr().err
    assert not (tmp_path / "x.zarr").exists()
