"""`pea status`: what a run directory says of a run that is running, dead, failed or done."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import re
import shutil
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pipeline.rundir import Ledger, Record, RunDirectory
from tests.tried import Tried
from workers import cli
from workers.block import TIME
from workers.lock import driver_of, locked
from workers.noted import NotedStage, note_stages, noted_stages
from workers.status import RunStatus

EDGES = "edges_blockwise"
ROI = {"offset": [0, 0, 0], "shape": [1, 1, 1]}


def said_of(tried: Tried, *more: str) -> list[str]:
    assert tried("status", None, *more) == 0, tried.err
    return tried.out.splitlines()


def status_of(tried: Tried, folder: Path, *more: str) -> list[str]:
    """Of a directory, whatever has become of the inputs."""
    assert tried.capsys is not None
    assert cli.main(["status", str(folder), *more]) == 0
    return tried.capsys.readouterr().out.splitlines()


def of_stage(lines: list[str], name: str) -> str:
    (line,) = (line for line in lines if line.startswith(f"{name} "))
    return line


def test_a_run_file_and_its_directory_say_the_same(finished: Tried) -> None:
    finished()  # notes its stages
    by_file = said_of(finished)
    assert status_of(finished, finished.root) == by_file
    assert not any("running" in line for line in by_file)
    line = of_stage(by_file, EDGES)
    assert re.search(r"done +8/8 blocks, [\d.]+ s", line)


def test_a_directory_speaks_for_itself(finished: Tried, tmp_path: Path) -> None:
    finished()
    before = status_of(finished, finished.root)
    copied = tmp_path / "elsewhere"
    shutil.copytree(finished.root, copied)
    shutil.rmtree(finished.data)
    shutil.rmtree(finished.root)
    assert status_of(finished, copied)[1:] == before[1:]
    shutil.rmtree(copied / "volumes.zarr" / "segmentation")
    assert "done" not in of_stage(status_of(finished, copied), "relabel_blockwise")


def test_a_run_that_was_stopped_says_how_it_goes_on(tried: Tried) -> None:
    tried.upto("fragments_blockwise")
    lines = said_of(tried)
    assert "not running; the same command goes on" in lines[1]
    assert "done" in of_stage(lines, "fragments_blockwise")
    assert "to do       0/8 blocks" in of_stage(lines, EDGES)


def hold(root: Path, ready: multiprocessing.synchronize.Event) -> None:
    with locked(RunDirectory(root)):
        ready.set()
        time.sleep(60)


def test_who_is_at_work_is_told_by_the_lock_and_not_by_its_text(finished: Tried) -> None:
    run = RunDirectory(finished.root)
    assert driver_of(run) is None  # though the file names the process that held it last
    assert "process" in run.lock.read_text()
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    driver = context.Process(target=hold, args=(finished.root, ready))
    driver.start()
    try:
        assert ready.wait(60)
        assert f"process {driver.pid}" in str(driver_of(run))
        assert f"process {driver.pid}" in said_of(finished)[1]
    finally:
        driver.kill()
        driver.join()
    assert driver_of(run) is None


def test_looking_does_not_keep_a_driver_out(finished: Tried) -> None:
    run = RunDirectory(finished.root)
    with run.lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert driver_of(run) is None
        context = multiprocessing.get_context("spawn")
        ready = context.Event()
        driver = context.Process(target=hold, args=(finished.root, ready))
        driver.start()
        fcntl.flock(file, fcntl.LOCK_UN)
    try:
        assert ready.wait(60)
    finally:
        driver.kill()
        driver.join()


@pytest.fixture
def at_work(tried: Tried) -> tuple[Tried, RunDirectory, NotedStage]:
    """A run in the middle of a stage: blocks 0 to 3 are done, 4 begun, 5 failed."""
    tried.upto("fragments_blockwise", "resolve_fragments")
    stage = tried.stage(EDGES)
    run, noted = stage.run, NotedStage.of(stage)
    run.begin(stage.identity, stage.grid.name)
    ledger = Ledger(run.done(stage.identity) / stage.grid.name, "host-1")
    now = datetime.now()
    with (run.logs(EDGES) / "host-1.log").open("w") as log:
        for block in range(4):
            ledger.append(Record(block, {}, 5, False, 1.0, 3_000_000))
            at = (now - timedelta(seconds=30 - 10 * block)).strftime(TIME)
            log.write(f"{at} block {block} begins: voxels\n{at} block {block} done in 1.00 s\n")
        log.write(f"{now.strftime(TIME)} block 5 begins: voxels\n")
        log.write(f"{now.strftime(TIME)} block 5 failed\nTraceback\n")
        log.write(f"{now.strftime(TIME)} block 4 begins: voxels\n")
    entry = {"block": 5, "voxels": [[0], [1]], "error": "DataError: damaged\nmore", "log": "a.log"}
    (run.logs(EDGES) / "failures.jsonl").write_text(json.dumps(entry) + "\n")
    ledger.close()
    note_stages(run, (step.stage for step in tried.plan.steps))
    return tried, run, noted


def test_a_running_stage_has_a_rate_and_a_time_left(
    at_work: tuple[Tried, RunDirectory, NotedStage], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run, noted = at_work
    monkeypatch.setattr("workers.status.driver_of", lambda run: "host here, process 7")
    status = RunStatus.of(run, [noted])
    (stage,) = status.stages
    assert (stage.state, stage.done, stage.blocks) == ("begun", 4, 8)
    assert stage.blocks_per_s == pytest.approx(0.1, rel=0.2)
    assert stage.seconds_left == pytest.approx(40, rel=0.2)
    assert stage.peak_bytes == 3_000_000
    lines = list(status.lines())
    assert lines[1] == "running: host here, process 7"
    assert re.search(r"4/8 blocks \(50 %\), [\d.]+ blocks/min, [\d.]+ s left, 1 failed", lines[2])
    assert "block 5, voxels [[0], [1]] failed: DataError: damaged" in lines[3]
    assert lines[4] == "    log: a.log"
    assert re.match(r"    block 4 at work since .*host-1.log", lines[5])


def test_what_earlier_starts_did_is_no_part_of_a_rate(
    at_work: tuple[Tried, RunDirectory, NotedStage], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run, noted = at_work
    yesterday = (datetime.now() - timedelta(days=1)).strftime(TIME)
    (run.logs(EDGES) / "host-99.log").write_text(
        "".join(f"{yesterday} block {n} done in 1 s\n" for n in range(50))
        + f"{yesterday} block 4 begins: v\n{yesterday} block 7 begins: v\n"
    )
    since = (datetime.now() - timedelta(minutes=1)).strftime(TIME)
    monkeypatch.setattr("workers.status.driver_of", lambda run: f"process 7, since {since}")
    (stage,) = RunStatus.of(run, [noted]).stages
    assert stage.blocks_per_s == pytest.approx(0.1, rel=0.2)
    assert [(each["block"], Path(each["log"]).name) for each in stage.begun] == [(4, "host-1.log")]
    # Of a run that nobody is at work on, the last to begin a block is named.
    monkeypatch.setattr("workers.status.driver_of", lambda run: None)
    (stage,) = RunStatus.of(run, [noted]).stages
    assert [(each["block"], Path(each["log"]).name) for each in stage.begun] == [
        (4, "host-1.log"), (7, "host-99.log"),
    ]  # fmt: skip


def test_a_training_that_was_broken_off_is_not_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "a" / "checkpoints"
    folder.mkdir(parents=True)
    run = {"name": "a", "data": {"raw": "a.zarr/raw"}, "train": {"roi": ROI, "steps": 60}}
    (folder.parent / "run.yaml").write_text(json.dumps({"run": run}))
    row = {"step": 20, "loss": 1.25, "crops_per_s": 4.0}
    (folder / "training.jsonl").write_text(json.dumps(row) + "\n")
    assert cli.main(["status", str(folder.parent)]) == 0
    assert "not running; the same command goes on" in capsys.readouterr().out
    (folder / "training.jsonl").write_text(json.dumps(row | {"step": 60}) + "\n")
    assert cli.main(["status", str(folder.parent)]) == 0
    assert "not running" not in capsys.readouterr().out


def test_a_dead_stage_has_blocks_broken_off_and_no_rate(
    at_work: tuple[Tried, RunDirectory, NotedStage],
) -> None:
    tried, run, noted = at_work
    lines = status_of(tried, run.root)
    assert lines[1].startswith("not running")
    assert "left" not in of_stage(lines, EDGES)
    assert any(re.match(r"    block 4 broken off; begun .*host-1.log", line) for line in lines)
    plain = json.loads("\n".join(status_of(tried, run.root, "--json")))
    (stage,) = (each for each in plain["stages"] if each["name"] == EDGES)
    assert plain["driver"] is None
    assert [each["block"] for each in stage["begun"]] == [4]
    assert [each["error"] for each in stage["failed"]] == ["DataError: damaged\nmore"]
    assert NotedStage.of(tried.stage(EDGES)) == noted == noted_stages(run)[2]


def test_a_training_is_part_of_it(finished: Tried) -> None:
    finished()
    folder = finished.root / "checkpoints"
    folder.mkdir()
    rows = [
        {"step": 10, "loss": 2.0, "crops_per_s": 4.0},
        {"step": 20, "validation/voi": 1.5},
        {"step": 20, "loss": 1.25, "crops_per_s": 4.0},
        {"step": 30, "validation/voi": 1.75},
    ]
    (folder / "training.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = of_stage(status_of(finished, finished.root), "train")
    assert "20/? steps, loss 1.250, best validation VOI 1.500 at step 20" in line
    described = finished.root / "run.yaml"
    roi = "{offset: [0, 0, 0], shape: [1, 1, 1]}"
    text = described.read_text().replace(
        "train: null", f"train: {{roi: {roi}, steps: 60, batch: 2}}"
    )
    described.write_text(text)
    line = of_stage(status_of(finished, finished.root), "train")
    assert "begun" in line
    assert "20/60 steps, 2 steps/s when it ran, 20.0 s left at that" in line


def test_where_nothing_was_started_there_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", str(tmp_path)]) == 1
    assert f"no run was started in {tmp_path}" in capsys.readouterr().err
    (tmp_path / "plan.json").write_text("[{}]")
    assert cli.main(["status", str(tmp_path)]) == 1
    assert "damaged note" in capsys.readouterr().err


def test_twenty_thousand_blocks_are_counted(
    at_work: tuple[Tried, RunDirectory, NotedStage],
) -> None:
    _, run, noted = at_work
    many = NotedStage(noted.name, noted.identity, noted.layout, 20_000, 0, noted.outputs)
    folder = run.done(noted.identity) / noted.layout
    record = '{{"block": {}, "files": {{}}, "filled": 1, "masked": false}}\n'
    (folder / "host-2.jsonl").write_text("".join(record.format(n) for n in range(19_999)))
    at = datetime.now().strftime(TIME)
    (run.logs(EDGES) / "host-2.log").write_text(
        "".join(f"{at} block {n} begins: v\n{at} block {n} done in 1 s\n" for n in range(19_999))
    )
    (stage,) = RunStatus.of(run, [many]).stages
    assert stage.done == 19_999


def test_a_run_directory_that_was_renamed_is_read_and_not_its_namesake(finished: Tried) -> None:
    moved = finished.root.with_name("renamed")
    finished.root.rename(moved)
    assert finished.capsys is not None
    assert cli.main(["status", str(moved), "--verify"]) == 0
    assert "every file is as it was written" in finished.capsys.readouterr().out
    assert cli.main(["report", str(moved)]) == 0
    assert f"report: {moved.resolve()}" in finished.capsys.readouterr().out
    assert not finished.root.exists()
