"""A run that is killed, interrupted or at fault in a block ends with the same bits."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest
from rich.console import Console

from pipeline.config import Workers, load_settings
from pipeline.geometry import ZYX, Block, BlockGrid, Roi
from pipeline.plan import Plan, Step
from pipeline.rundir import RunDirectory
from pipeline.stages.stage import Outcome, Process, Stage
from pipeline.tables import read_table, write_table
from tests.drawn import LONG, PEA, results, run_tree, write_inputs, write_run, write_volume
from tests.predicted import drawn_raw, predict_tree, write_checkpoint
from tests.tried import Tried, same
from workers import cli
from workers.block import LINE
from workers.daisy_runner import DaisyRunner
from workers.drive import explain, run_stage
from workers.serial_runner import SerialRunner

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Kill:
    """A line of the kill ledger: what was killed while a block was in flight."""

    kind: str
    stage: str
    pid: int
    block: int
    lost: tuple[tuple[str, int], ...]
    """Every block that those who died had begun and not done."""


class Killer:
    """Starts a run over and over, and kills parts of it while a block is in flight."""

    WORKERS = 2
    QUOTA = {
        "fragments_blockwise": 8, "edges_blockwise": 7, "relabel_blockwise": 5, "evaluate": 5,
        "downsample_blockwise_1": 2,
    }  # fmt: skip

    def __init__(
        self,
        words: list[str],
        run: Path,
        ledger: Path,
        seed: int,
        quota: Mapping[str, int] = QUOTA,
    ) -> None:
        self.words = words
        self.quota = quota
        self.run = run
        self.ledger = ledger
        self.rng = np.random.default_rng(seed)
        self.kills: list[Kill] = []
        self.starts = 0

    def go(self) -> None:
        """Until a start ends on its own."""
        while True:
            assert self.starts < 60, "it does not come to an end"
            self.starts += 1
            said = self.ledger.with_name(f"start-{self.starts}.txt")
            driver = started(self.words, said)
            deadline = time.monotonic() + 120
            while driver.poll() is None and time.monotonic() < deadline:
                time.sleep(self.rng.uniform(0.001, 0.03))
                self.strike(driver)
            assert driver.poll() is not None, "the run hangs"
            if driver.returncode != -signal.SIGKILL:
                assert driver.returncode == 0, said.read_text()
                return

    def strike(self, driver: subprocess.Popen[bytes]) -> None:
        """Kill something if a block is in flight; everybody holds still while we look."""
        workers = workers_of(driver.pid)
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.suspend()
        at_work = [place for worker in workers for place in self.in_flight(worker.pid)]
        due = [place for place in at_work if self.is_due(place[0])]
        if due:
            stage, block, pid = due[int(self.rng.integers(len(due)))]
            number = sum(kill.stage == stage for kill in self.kills)
            kind = ("worker", "driver", "group")[number % 3]
            if kind == "worker":
                os.kill(pid, signal.SIGKILL)
            elif kind == "driver":
                os.kill(driver.pid, signal.SIGKILL)
            else:
                os.killpg(driver.pid, signal.SIGKILL)
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.resume()
        if due:
            dying = [worker for worker in workers if kind != "worker" or worker.pid == pid]
            self.wait_until_dead(dying, kind)
            lost = {place[:2] for worker in dying for place in self.in_flight(worker.pid)}
            self.kills.append(Kill(kind, stage, pid, block, tuple(sorted(lost))))
            with self.ledger.open("a") as file:
                file.write(json.dumps(vars(self.kills[-1])) + "\n")
        if due and kind != "worker":
            driver.wait()

    def wait_until_dead(self, workers: list[psutil.Process], kind: str) -> None:
        """Those at work die within 3 s; who is still importing first finds nobody to work for."""
        logs = {p: [*self.run.glob(f"logs/*/*-{p.pid}.log")] for p in workers}
        at_work = [p for p in workers if any("begins" in log.read_text() for log in logs[p])]
        for processes, seconds in ((at_work, 3), (workers, 15)):
            alive = still_alive(processes, seconds)
            said = [(p.pid, log.read_text()) for p in alive for log in logs[p]]
            assert not alive, f"alive {seconds} s after the {kind} was killed: {said}"

    def is_due(self, stage: str) -> bool:
        return sum(kill.stage == stage for kill in self.kills) < self.quota.get(stage, 0)

    def in_flight(self, pid: int) -> list[tuple[str, int, int]]:
        """Stage, block and process of a block that a worker has begun and not noted as done."""
        for log in self.run.glob(f"logs/*/*-{pid}.log"):
            lines = [match for match in map(LINE.match, log.read_text().splitlines()) if match]
            if lines and lines[-1]["what"] == "begins":
                stage, block = log.parent.name, int(lines[-1]["block"])
                ledgers = self.run.glob(f"done/{stage}-*/*/*-{pid}.jsonl")
                if not any(f'"block": {block},' in path.read_text() for path in ledgers):
                    return [(stage, block, pid)]
        return []

    def begun(self) -> Counter[tuple[str, int]]:
        """How often each block of each stage was begun."""
        return Counter(
            (log.parent.name, int(match["block"]))
            for log in self.run.glob("logs/*/*.log")
            for match in map(LINE.match, log.read_text().splitlines())
            if match and match["what"] == "begins"
        )


def started(words: list[str], said: Path) -> subprocess.Popen[bytes]:
    """A driver in a process group of its own."""
    with said.open("w") as file:
        return subprocess.Popen(
            [*PEA, *words], start_new_session=True, cwd=ROOT, stdout=file, stderr=file
        )


def still_alive(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that neither ended nor are left for the system to bury."""
    _, alive = psutil.wait_procs(processes, timeout=0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(is_alive, alive)):
        time.sleep(0.02)
    return [process for process in alive if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def workers_of(driver: int) -> list[psutil.Process]:
    """The worker processes of a driver that have begun to work."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if any("daisy" in word for word in child.cmdline()):
                    found.append(child)
    return found


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bits(tmp_path: Path) -> None:
    data = write_inputs(tmp_path, (24, 128, 128), LONG, digest="as ingested")
    tree = run_tree(data, runner="daisy", max_restarts=100, block_vx=(8, 32, 32))
    words = ["run", "all", str(write_run(tmp_path / "run.yaml", tree)), "--runs"]
    assert cli.main([*words, str(tmp_path / "undisturbed"), "--runner", "serial"]) == 0

    run, ledger = tmp_path / "killed" / "small", tmp_path / "kills.jsonl"
    killer = Killer([*words, str(tmp_path / "killed")], run, ledger, seed=1)
    killer.go()

    kills = [json.loads(line) for line in ledger.read_text().splitlines()]
    kinds = Counter(kill["kind"] for kill in kills)
    begun = killer.begun()
    again = Counter({place: count - 1 for place, count in begun.items() if count > 1})
    lost = Counter(place for kill in killer.kills for place in kill.lost)
    print(f"\n{len(kills)} kills {dict(kinds)} of {dict(Counter(k['stage'] for k in kills))}, "
          f"{killer.starts} starts, {again.total()} of {len(begun)} blocks done again")  # fmt: skip
    assert len(kills) >= 20
    assert min(kinds["worker"], kinds["driver"], kinds["group"]) >= 4
    assert max(len(kill.lost) for kill in killer.kills) <= Killer.WORKERS
    assert all(kill.lost for kill in killer.kills if kill.kind != "driver")
    assert not again - lost, "blocks were done again that no kill had cut short"
    same(results(run), results(tmp_path / "undisturbed" / "small"))
    assert not list(run.rglob("*.partial"))


@pytest.mark.slow
def test_a_killed_prediction_ends_with_the_same_bits(tmp_path: Path) -> None:
    raw = write_volume(tmp_path / "raw", drawn_raw((24, 96, 112)), "raw", digest="as ingested")
    write_checkpoint(tmp_path / "w.safetensors")
    tree = predict_tree(raw.path, tmp_path / "w.safetensors", block_vx=(8, 48, 56), workers=2)
    tree["machine"]["predict"] |= {"retries": 2, "max_restarts": 100}
    tree["machine"]["runner"] = "daisy"
    words = ["run", "predict_blockwise", str(write_run(tmp_path / "run.yaml", tree)), "--runs"]
    assert cli.main([*words, str(tmp_path / "undisturbed"), "--runner", "serial"]) == 0

    run = tmp_path / "killed" / "small"
    quota = {"predict_blockwise": 6}
    killer = Killer([*words, str(tmp_path / "killed")], run, tmp_path / "kills.jsonl", 2, quota)
    killer.go()
    assert Counter(kill.kind for kill in killer.kills) == {"worker": 2, "driver": 2, "group": 2}
    same(results(run), results(tmp_path / "undisturbed" / "small"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_soon_and_goes_on(tmp_path: Path, number: int) -> None:
    data = write_inputs(tmp_path, (24, 128, 128), digest="as ingested")
    tree = run_tree(data, runner="daisy", block_vx=(8, 32, 32))
    words = ["run", "fragments", str(write_run(tmp_path / "run.yaml", tree)), "--runs"]
    assert cli.main([*words, str(tmp_path / "undisturbed"), "--runner", "serial"]) == 0
    run, said = tmp_path / "runs" / "small", tmp_path / "said.txt"
    driver = started([*words, str(tmp_path / "runs")], said)
    wait_for(lambda: any(run.glob("done/fragments*/*/*.jsonl")), 60)
    workers = workers_of(driver.pid)
    driver.send_signal(number)
    status = driver.wait(timeout=10)
    assert status == (130 if number == signal.SIGINT else -number), said.read_text()
    if number == signal.SIGINT:
        assert said.read_text().splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in said.read_text()
    assert not still_alive(workers, 3)
    assert started([*words, str(tmp_path / "runs")], said).wait(timeout=120) == 0
    same(results(run), results(tmp_path / "undisturbed" / "small"))


def wait_for(happened: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


# Blocks that fail, kill their worker or hang.


@dataclass(frozen=True)
class Faulty(Stage):
    """A table per block; one block is at fault, always or until it has been once."""

    revision: ClassVar[int] = 1

    how: str
    once: bool
    at: int = 5

    @property
    def parameters(self) -> dict[str, Any]:
        return {"how": self.how}

    @property
    def memory_bytes(self) -> int:
        return 1

    @contextmanager
    def open(self) -> Iterator[Process]:
        def process(block: Block) -> Outcome:
            mark = self.run.root / "was-here"
            if block.index == self.at and not (self.once and mark.exists()):
                mark.touch()
                self.misbehave()
            write_table(self.table(block), {"index": np.array([block.index])})
            return Outcome(1)

        yield process

    def misbehave(self) -> None:
        if self.how == "raises":
            raise ValueError("a bad block")
        if self.how == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "crashes":
            ctypes.string_at(0)
        if self.how == "sleeps":
            time.sleep(60)
        if self.how == "hangs in C":
            ctypes.PyDLL(None).sleep(60)  # without letting other threads run


def faulty(root: Path, how: str, once: bool) -> Faulty:
    grid = BlockGrid(Roi((0, 0, 0), (4, 4, 4)), ZYX(2, 2, 2))
    return Faulty("faulty", RunDirectory(root), grid, (), {}, how, once)


@pytest.mark.slow
@pytest.mark.parametrize("once", [True, False], ids=["once", "always"])
@pytest.mark.parametrize("how", ["raises", "is killed", "crashes", "sleeps", "hangs in C"])
def test_a_faulty_block_stops_no_other(
    how: str, once: bool, tmp_path: Path, template: tuple[Path, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(ROOT)  # workers import this module
    stage = faulty(tmp_path / "run", how, once)
    workers = Workers(workers=2, block_vx=ZYX(2, 2, 2), timeout_s=3, retries=1)
    begun = time.monotonic()
    report = run_stage(Step(stage, workers), DaisyRunner(), Console(quiet=True))
    assert time.monotonic() - begun < 40
    assert report is not None
    assert report.missing == (() if once else (5,))
    for block in stage.grid:
        if once or block.index != 5:
            assert read_table(stage.table(block))["index"] == block.index
    assert report.ok == once
    if not once:
        settings = load_settings(write_run(tmp_path / "r.yaml", Tried(template[0]).tree))
        said = explain(Plan(settings, stage.run, (Step(stage, workers),)), report)
        assert "faulty is not complete: 7 of 8 blocks done" in said
        assert "block 5" in said
        assert "begins" in Path(re.findall(r"log: (.*)", said)[0]).read_text()
    assert not workers_of(os.getpid())


@pytest.mark.parametrize("once", [True, False], ids=["once", "always"])
def test_a_block_that_raises_is_tried_again_serially(once: bool, tmp_path: Path) -> None:
    stage = faulty(tmp_path / "run", "raises", once)
    workers = Workers(block_vx=ZYX(2, 2, 2), retries=2)
    report = run_stage(Step(stage, workers), SerialRunner(), Console(quiet=True))
    assert report is not None
    assert report.missing == (() if once else (5,))
    (log,) = stage.run.logs("faulty").glob("*.log")
    assert log.read_text().count("block 5 begins") == (2 if once else 3)
