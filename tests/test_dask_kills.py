"""Dask workers that are killed, stand still or hang, and jobs of a batch system: the same bits."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from pipeline.config import Dask, Workers
from pipeline.geometry import ZYX
from pipeline.plan import Step
from pipeline.tables import read_table
from tests.drawn import LONG, results, run_tree, write_inputs, write_run
from tests.test_kills import ROOT, faulty, is_alive, started, still_alive, wait_for
from tests.tried import same
from workers import cli
from workers.dask_cluster import DaskCluster
from workers.dask_runner import DaskRunner
from workers.drive import run_stage

pytestmark = pytest.mark.slow
WATCHDOG_S = 60


@contextmanager
def watched(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Nothing hangs: a driver that did not end is an error, and is ended."""
    try:
        yield
        process.wait(timeout=WATCHDOG_S)
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def dask_workers(driver: int) -> list[psutil.Process]:
    """Worker processes, wherever in the tree of a driver."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(driver).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if any("spawn_main" in word for word in child.cmdline()):
                    found.append(child)
    return found


@pytest.mark.parametrize("once", [True, False], ids=["once", "always"])
@pytest.mark.parametrize("how", ["raises", "is killed", "crashes", "sleeps", "hangs in C"])
def test_a_faulty_block_stops_no_other(
    how: str, once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # workers import this module
    stage = faulty(tmp_path / "run", how, once)
    workers = Workers(workers=2, block_vx=ZYX(2, 2, 2), timeout_s=3, retries=1)
    begun = time.monotonic()
    with DaskRunner(DaskCluster(Dask(), tmp_path / "dask")) as runner:
        report = run_stage(Step(stage, workers), runner, Console(quiet=True))
    assert time.monotonic() - begun < WATCHDOG_S
    assert report is not None
    assert report.missing == (() if once else (5,))
    for block in stage.grid:
        if once or block.index != 5:
            assert read_table(stage.table(block))["index"] == block.index
    assert not dask_workers(os.getpid())


def test_a_stage_whose_workers_die_too_often_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    stage = faulty(tmp_path / "run", "is killed", once=False)
    workers = Workers(block_vx=ZYX(2, 2, 2), retries=50, max_restarts=2)
    with DaskRunner(DaskCluster(Dask(), tmp_path / "dask")) as runner:
        report = run_stage(Step(stage, workers), runner, Console(quiet=True))
    assert report is not None
    assert report.missing == (5,)
    assert report.given_up == "gave up after the death of 3 Dask workers (max_restarts)"


class Rehearsal:
    """A run on Dask in a process of its own, and the same one undisturbed."""

    def __init__(self, folder: Path, **dask: Any) -> None:
        folder.mkdir(exist_ok=True)
        data = write_inputs(folder, (24, 128, 128), LONG, digest="as ingested")
        tree = run_tree(data, runner="dask", max_restarts=100, block_vx=(8, 32, 32))
        tree["machine"]["dask"] = dask
        self.said = folder / "said.txt"
        self.run = folder / "runs" / "small"
        self.undisturbed = folder / "undisturbed" / "small"
        self.words = ["run", "all", str(write_run(folder / "run.yaml", tree)), "--runs"]
        words = [*self.words, str(self.undisturbed.parent), "--runner", "serial"]
        assert cli.main(words) == 0

    def start(self) -> subprocess.Popen[bytes]:
        return started([*self.words, str(self.run.parent)], self.said)

    def reached(self, stage: str) -> None:
        """Wait until a stage has done a block."""
        wait_for(lambda: any(self.run.glob(f"done/{stage}*/*/*.jsonl")), WATCHDOG_S)

    def ended_well(self, driver: subprocess.Popen[bytes]) -> None:
        assert driver.returncode == 0, self.said.read_text()
        same(results(self.run), results(self.undisturbed))
        assert "distributed" not in self.said.read_text(), "Dask writes to the terminal"


def kill(process: psutil.Process) -> None:
    process.kill()


def stand_still(process: psutil.Process) -> None:
    process.suspend()


@pytest.mark.parametrize("do", [kill, stand_still])
def test_workers_lost_in_fragments_and_evaluate_change_nothing(
    do: Callable[[psutil.Process], None], tmp_path: Path
) -> None:
    here = Rehearsal(tmp_path, lost_after_s=5)
    driver = here.start()
    stopped = []
    try:
        with watched(driver):
            for stage in ("fragments_blockwise", "evaluate"):
                here.reached(stage)
                stopped.append(dask_workers(driver.pid)[0])
                do(stopped[-1])
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()
    here.ended_well(driver)
    assert not still_alive(stopped, 3)


def test_an_interrupted_run_leaves_nobody_and_goes_on(tmp_path: Path) -> None:
    here = Rehearsal(tmp_path)
    driver = here.start()
    with watched(driver):
        here.reached("fragments_blockwise")
        workers = dask_workers(driver.pid)
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to everybody
    assert driver.returncode == 130, here.said.read_text()
    assert here.said.read_text().splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in here.said.read_text()
    assert not still_alive(workers, 15)
    again = here.start()
    with watched(again):
        pass
    here.ended_well(again)


def test_workers_end_with_a_killed_driver(tmp_path: Path) -> None:
    here = Rehearsal(tmp_path)
    driver = here.start()
    with watched(driver):
        here.reached("fragments_blockwise")
        workers = dask_workers(driver.pid)
        driver.kill()
    assert workers
    assert not still_alive(workers, 15)


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler that somebody else started, and its two workers."""
    python = [sys.executable, "-m"]
    file = folder / "scheduler.json"
    words = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
             "--no-dashboard", "--scheduler-file", str(file)]  # fmt: skip
    with (folder / "theirs.txt").open("w") as said:

        def begun(*words: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen([*python, *words], stdout=said, stderr=said, cwd=folder)

        processes = [begun(*words)]
        try:
            wait_for(file.exists, WATCHDOG_S)
            for _ in range(2):
                processes.append(
                    begun("distributed.cli.dask_worker", "--scheduler-file", str(file),
                          "--nthreads", "1", "--host", "127.0.0.1", "--no-dashboard")
                )  # fmt: skip
            yield json.loads(file.read_text())["address"], processes
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                process.wait(timeout=WATCHDOG_S)


def test_a_scheduler_already_there_is_used_and_left_alone(tmp_path: Path) -> None:
    with scheduler(tmp_path) as (address, theirs):
        here = Rehearsal(tmp_path, scheduler=address)
        driver = here.start()
        with watched(driver):
            pass
        here.ended_well(driver)
        assert all(process.poll() is None for process in theirs)


def test_a_lost_scheduler_ends_a_run_and_the_next_goes_on(tmp_path: Path) -> None:
    with scheduler(tmp_path) as (address, theirs):
        here = Rehearsal(tmp_path, scheduler=address)
        driver = here.start()
        with watched(driver):
            here.reached("fragments_blockwise")
            theirs[0].kill()
        assert driver.returncode == 1, here.said.read_text()
        assert "lost the Dask scheduler" in here.said.read_text()
        assert "Traceback" not in here.said.read_text()
    words = [*here.words, str(here.run.parent), "--runner", "serial"]
    assert cli.main(words) == 0
    same(results(here.run), results(here.undisturbed))


# Batch systems, played by scripts that run a job at once

SUBMIT = """#!/bin/sh
if [ $# -gt 0 ]; then script=$1; else script=$(mktemp); cat > $script; fi
cp $script {jobs}/$$.sh
setsid sh {jobs}/$$.sh > {jobs}/$$.txt 2>&1 < /dev/null &
echo $! > {jobs}/$$.pid
echo "Submitted batch job <$$>"
"""
CANCEL = """#!/bin/sh
for job; do kill -- -$(cat {jobs}/$job.pid); done
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of jobs of a batch system, whose commands are on PATH."""
    folder, commands = tmp_path / "jobs", tmp_path / "bin"
    folder.mkdir()
    commands.mkdir()
    texts = {"sbatch": SUBMIT, "bsub": SUBMIT, "scancel": CANCEL, "bkill": CANCEL}
    for name, text in texts.items():
        (commands / name).write_text(text.replace("{jobs}", str(folder)))
        (commands / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    yield folder
    for process in processes_of(folder):
        process.kill()


def processes_of(folder: Path) -> list[psutil.Process]:
    found = []
    for file in folder.glob("*.pid"):
        with suppress(psutil.NoSuchProcess):
            shell = psutil.Process(int(file.read_text()))
            found += [shell, *shell.children(recursive=True)]
    return [process for process in found if is_alive(process)]


@pytest.mark.parametrize("system", ["slurm", "lsf"])
def test_a_run_on_a_batch_system(system: str, tmp_path: Path, jobs: Path) -> None:
    job = {"queue": "em", "interface": "lo"}
    here = Rehearsal(tmp_path, cluster=system, job=job, lost_after_s=10)
    driver = here.start()
    with watched(driver):
        here.reached("fragments_blockwise")
        # A node dies, with all that ran there.
        pid = int(next(iter(sorted(jobs.glob("*.pid")))).read_text())
        os.killpg(pid, signal.SIGKILL)
    here.ended_well(driver)
    assert not still_alive(processes_of(jobs), 10)
    scripts = [path.read_text() for path in jobs.glob("*.sh")]
    assert len(scripts) >= 2
    assert all(" em" in script for script in scripts)
