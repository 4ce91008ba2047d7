"""Killed, interrupted, damaged or changed: a run ends with the same bits, or says what is wrong."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest
from rich.console import Console

from pipeline.config import Workers, load_settings
from pipeline.errors import DataError, NotFoundError, PipelineError
from pipeline.geometry import ZYX, Block, BlockGrid, Roi
from pipeline.plan import Plan, Step, make_plan
from pipeline.rundir import HIDDEN, RunDirectory
from pipeline.stages.stage import Outcome, Process, Stage
from pipeline.tables import read_table, write_table
from pipeline.volume import Volume
from tests.drawn import (
    LONG,
    PEA,
    SHAPE,
    drawn_affinities,
    drawn_labels,
    files_state,
    results,
    run_tree,
    set_at,
    write_inputs,
    write_run,
    write_volume,
)
from workers import cli
from workers.block import LINE
from workers.daisy_runner import DaisyRunner
from workers.drive import drive, explain, locked, run_stage
from workers.serial_runner import SerialRunner

ROOT = Path(__file__).parents[1]
STAGES = (
    "fragments_blockwise", "resolve_fragments", "edges_blockwise", "agglomerate",
    "relabel_blockwise", "evaluate",
)  # fmt: skip


class Tried:
    """A small run, and what the command line says about it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str] | None = None) -> None:
        self.folder = folder
        self.data = folder / "data.zarr"
        self.tree = run_tree(self.data, retries=1)
        self.capsys = capsys
        self.out = self.err = ""
        self.words()

    @property
    def root(self) -> Path:
        return self.folder / "runs" / "small"

    def words(self, command: str = "run", stage: str | None = "all", *more: str) -> list[str]:
        path = write_run(self.folder / "run.yaml", self.tree)
        stages = [stage] if stage else []
        return [command, *stages, str(path), *more, "--runs", str(self.folder / "runs")]

    def __call__(self, command: str = "run", stage: str | None = "all", *more: str) -> int:
        status = cli.main(self.words(command, stage, *more))
        if self.capsys is not None:
            self.out, self.err = self.capsys.readouterr()
        return status

    def upto(self, *stages: str) -> None:
        for stage in stages:
            assert self("run", stage) == 0, self.err

    @property
    def plan(self) -> Plan:
        return make_plan(load_settings(self.folder / "run.yaml"), self.folder / "runs")

    def stage(self, name: str) -> Stage:
        (step,) = self.plan.select(name)
        return step.stage

    def shard(self, name: str, number: int = 0) -> Path:
        """A file of voxels of a volume of the run."""
        found = sorted(
            p for p in (self.root / "volumes.zarr" / name / "s0/c").rglob("*") if p.is_file()
        )
        return found[number]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Inputs, a finished run of them, and its results."""
    folder = tmp_path_factory.mktemp("template")
    write_inputs(folder, digest="as ingested")
    tried = Tried(folder)
    assert tried() == 0
    return folder, results(tried.root)


@pytest.fixture
def tried(
    template: tuple[Path, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Tried:
    """A run that has not begun."""
    shutil.copytree(template[0] / "data.zarr", tmp_path / "data.zarr")
    return Tried(tmp_path, capsys)


@pytest.fixture
def finished(tried: Tried, template: tuple[Path, dict[str, str]]) -> Tried:
    """A run that is done."""
    shutil.copytree(template[0] / "runs", tried.folder / "runs")
    return tried


def same(found: dict[str, str], expected: dict[str, str]) -> None:
    """The same results, but for the path of the truth in the scores."""
    assert found.keys() == expected.keys()
    differing = [name for name in found if name != "scores" and found[name] != expected[name]]
    assert not differing
    if "scores" in found:
        one, other = (json.loads(each["scores"]) | {"truth": ""} for each in (found, expected))
        assert one == other


def final(found: dict[str, str]) -> dict[str, str]:
    """What does not depend on the blocks."""
    return {
        name: value
        for name, value in found.items()
        if name.startswith(("fragments/", "segmentation/", "agglomerate-", "scores"))
    }


def flipped(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


# Kills.


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

    def __init__(self, words: list[str], run: Path, ledger: Path, seed: int) -> None:
        self.words = words
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
        return sum(kill.stage == stage for kill in self.kills) < self.QUOTA.get(stage, 0)

    def in_flight(self, pid: int) -> list[tuple[str, int, int]]:
        """Stage, block and process of a block that a worker has begun and not noted as done."""
        for log in self.run.glob(f"logs/*/*-{pid}.log"):
            lines = [match for match in map(LINE.match, log.read_text().splitlines()) if match]
            if lines and lines[-1][2] == "begins":
                stage, block = log.parent.name, int(lines[-1][1])
                ledgers = self.run.glob(f"done/{stage}-*/*/*-{pid}.jsonl")
                if not any(f'"block": {block},' in path.read_text() for path in ledgers):
                    return [(stage, block, pid)]
        return []

    def begun(self) -> Counter[tuple[str, int]]:
        """How often each block of each stage was begun."""
        return Counter(
            (log.parent.name, int(match[1]))
            for log in self.run.glob("logs/*/*.log")
            for match in map(LINE.match, log.read_text().splitlines())
            if match and match[2] == "begins"
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


# Damaged files.


@pytest.mark.parametrize(
    "runner", ["serial", pytest.param("daisy", marks=pytest.mark.slow)]
)  # fmt: skip
def test_a_block_that_always_fails_stops_its_dependants_only(
    tried: Tried, template: tuple[Path, dict[str, str]], runner: str
) -> None:
    tried.upto(*STAGES[:2])
    shard = sorted((tried.data / "affinities/s0/c/0").rglob("*"))[-1]
    whole = shard.read_bytes()
    flipped(shard, len(whole) * 4)

    assert tried("run", "all", "--runner", runner) == 1
    assert "agglomerate: not started, it needs edges_blockwise" in tried.out
    for name in ("relabel_blockwise", "evaluate"):
        assert f"{name}: not started, it needs " in tried.out
    assert "edges_blockwise is not complete: 7 of 8 blocks done" in tried.err
    assert "block 7, voxels [[10, 34, 33], [14, 42, 45]]: DataError: damaged" in tried.err
    assert len(tried.err.splitlines()) == 3
    log = Path(re.findall(r"log: (.*)", tried.err)[0])
    assert "Traceback" in log.read_text()
    assert tried("status", None) == 0
    assert "edges_blockwise         begun       7/8 blocks" in tried.out
    assert "block 7, voxels [[10, 34, 33], [14, 42, 45]] failed: DataError" in tried.out
    assert str(log) in tried.out

    shard.write_bytes(whole)
    assert tried("run", "all", "--runner", runner) == 0
    assert "edges_blockwise: 8 blocks" in tried.out
    assert "7 done before" in tried.out
    same(results(tried.root), template[1])


def test_stages_that_do_not_need_the_failed_one_go_on(
    tried: Tried, template: tuple[Path, dict[str, str]]
) -> None:
    tried.upto(*STAGES[:4])
    tried.stage("relabel").prepare()
    blocked = tried.root / "volumes.zarr/segmentation/s0/c/1/1/0"
    blocked.mkdir(parents=True)  # where a shard belongs
    assert tried() == 1
    assert "relabel_blockwise is not complete: 7 of 8 blocks done" in tried.err
    assert "evaluate: 8 blocks" in tried.out
    blocked.rmdir()
    assert tried() == 0
    assert "evaluate: done before" in tried.out
    same(results(tried.root), template[1])


def test_a_full_disk_stops_the_run_and_leaves_it_resumable(
    tried: Tried, template: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = Volume.write, iter(range(100))

    def full(self: Volume, roi: Roi, data: np.ndarray) -> None:
        if next(calls) >= 3:
            raise OSError(28, "No space left on device")
        write(self, roi, data)

    with monkeypatch.context() as patch:
        patch.setattr(Volume, "write", full)
        assert tried() == 1
    assert "fragments_blockwise is not complete: 3 of 8 blocks done" in tried.err
    assert "No space left on device" in tried.err
    assert tried() == 0
    assert "3 done before" in tried.out
    same(results(tried.root), template[1])


def artefacts(finished: Tried) -> dict[str, tuple[Path, Callable[[], Any]]]:
    """Stored files, and how each is read."""
    inputs, run = finished.data, finished.stage("edges").run
    edges, tree = finished.stage("edges"), finished.stage("agglomerate")

    def voxels(path: Path) -> Callable[[], np.ndarray]:
        volume = Volume.open(path)
        return lambda: volume.read(volume.roi)

    def table(path: Path) -> Callable[[], dict[str, bytes]]:
        return lambda: {name: column.tobytes() for name, column in read_table(path).items()}

    return {
        "affinities": (
            next(p for p in (inputs / "affinities/s0/c").rglob("*") if p.is_file()),
            voxels(inputs / "affinities"),
        ),
        "fragments": (finished.shard("fragments"), voxels(run.volume("fragments"))),
        "edge table": (edges.table(edges.grid[0]), table(edges.table(edges.grid[0]))),
        "merge tree": (tree.table(tree.grid[0]), table(tree.table(tree.grid[0]))),
        "completion": (
            run.done(edges.identity) / "complete.json",
            lambda: run.complete_tables(edges.identity),
        ),
    }


def test_flipped_bits_are_found(finished: Tried, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(3)
    counts = {}
    for name, (path, read) in artefacts(finished).items():
        whole, expected = path.read_bytes(), read()
        found = 0
        for bit in rng.integers(0, len(whole) * 8, 100):
            flipped(path, int(bit))
            try:
                assert np.array_equal(read(), expected), f"{name}, bit {bit}: other data"
            except DataError:
                found += 1
            path.write_bytes(whole)
        assert np.array_equal(read(), expected)
        counts[name] = found
    with capsys.disabled():
        print(f"\nof 100 flipped bits each, found (the others change no data): {counts}")
    assert min(counts.values()) >= 40


@pytest.mark.parametrize("name", ["affinities", "fragments", "edge table", "merge tree"])
def test_cut_empty_and_missing_files_are_found(finished: Tried, name: str) -> None:
    path, read = artefacts(finished)[name]
    whole = path.read_bytes()
    for keep in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(DataError):
            read()
    path.unlink()
    with pytest.raises((DataError, NotFoundError)):
        read()


def test_a_damaged_tree_fails_the_blocks_that_need_it(tried: Tried) -> None:
    tried.upto(*STAGES[:4])
    tree = tried.stage("agglomerate")
    flipped(tree.table(tree.grid[0]), 5000)
    assert tried() == 1
    assert "relabel_blockwise is not complete: 0 of 8 blocks done" in tried.err
    assert "DataError: damaged table" in tried.err
    assert tried("status", None, "--verify") == 1
    assert "agglomerate: block 0 is damaged or gone" in tried.err
    assert tried() == 0


def test_verify_finds_what_was_altered_and_the_next_run_mends_it(
    finished: Tried, template: tuple[Path, dict[str, str]]
) -> None:
    assert finished("status", None, "--verify") == 0
    assert "every file is as it was written" in finished.out
    gone, altered = (finished.shard("fragments", number) for number in (2, 5))
    gone.unlink()
    flipped(altered, 999)
    flipped(finished.shard("segmentation", 1), 999)
    edges = finished.stage("edges")
    edges.table(edges.grid[6]).write_bytes(b"")
    (finished.root / "scores.json").unlink()
    assert finished("status", None, "--verify") == 1
    for line in (
        *(f"edges_blockwise: block {n} is damaged or gone" for n in (2, 5, 6)),
        "relabel_blockwise: block 1 is damaged or gone",
        f"evaluate: {finished.root / 'scores.json'} is gone",
    ):
        assert line in finished.err
    assert finished() == 0, finished.err
    assert "edges_blockwise: 8 blocks" in finished.out
    assert "5 done before" in finished.out
    assert "7 done before" in finished.out
    assert finished.out.count("done before") >= 6
    same(results(finished.root), template[1])
    assert finished("status", None, "--verify") == 0


@pytest.mark.parametrize("name", ["volumes.zarr/segmentation", "scores.json"])
def test_what_was_deleted_by_hand_is_made_again(
    name: str, finished: Tried, template: tuple[Path, dict[str, str]]
) -> None:
    gone = finished.root / name
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert finished() == 0, finished.err
    assert "edges_blockwise: done before" in finished.out
    same(results(finished.root), template[1])


# What a crash leaves behind.


def half_done(tried: Tried) -> Path:
    """Five of eight blocks of fragments, and the ledger that knows them."""
    for stage in ("edges", "relabel", "evaluate"):
        set_at(tried.tree, f"machine.{stage}.block_vx", [16, 40, 48])
    assert tried("run", "fragments") == 0
    done = tried.stage("fragments")
    (done.run.done(done.identity) / "complete.json").unlink()
    (ledger,) = (done.run.done(done.identity) / done.grid.name).glob("*.jsonl")
    lines = [line for line in ledger.read_text().splitlines() if line]
    ledger.write_text("\n".join(lines[:5]) + "\n")
    return ledger


@pytest.mark.parametrize(
    ("what", "before"),
    [
        ("nothing", 5), ("torn line", 5), ("torn last line", 4), ("foreign line", 5),
        ("foreign json", 5), ("binary", 5), ("partial file", 5), ("stale lock", 5),
        ("block out of range", 5), ("shard deleted", 4), ("table cut", 4), ("no shard at all", 0),
    ],
)  # fmt: skip
def test_debris_of_a_crash_is_ignored(
    what: str, before: int, tried: Tried, template: tuple[Path, dict[str, str]]
) -> None:
    ledger = half_done(tried)
    stage, lines = tried.stage("fragments"), ledger.read_text()
    record = json.loads(lines.splitlines()[0])
    if what == "torn line":
        ledger.write_text(lines + '{"block": 6, "files": {"volu')
    elif what == "torn last line":
        ledger.write_text(lines[:-20])
    elif what == "foreign line":
        ledger.write_text("# a note\n" + lines + "block 6 is done\n")
    elif what == "foreign json":
        odd: list[Any] = [7, [6], {"block": 6}, record | {"block": "6"}, record | {"more": 1}]
        odd += [record | {"block": 6, "files": {"a": 3}}, record | {"block": 6, "files": []}]
        ledger.write_text(lines + "".join(json.dumps(each) + "\n" for each in odd))
    elif what == "binary":
        ledger.write_bytes(lines.encode() + bytes(range(256)))
    elif what == "partial file":
        (ledger.with_name(".x.jsonl.1.partial")).write_text(json.dumps(record | {"block": 6}))
        finished_shard = tried.shard("basins")
        finished_shard.with_name("7.abc.partial").write_bytes(b"half a shard")
        stage.table(stage.grid[0]).with_name(".00000007.npz.1.partial").write_bytes(b"PK")
    elif what == "stale lock":
        (tried.root / ".lock").write_text("host elsewhere, process 1, since 1970")
    elif what == "block out of range":
        ledger.write_text(lines + json.dumps(record | {"block": 99}) + "\n")
    elif what == "shard deleted":
        tried.shard("basins", 3).unlink()
    elif what == "table cut":
        stage.table(stage.grid[2]).write_bytes(b"PK")
    elif what == "no shard at all":
        shutil.rmtree(tried.root / "volumes.zarr")
    assert tried() == 0, tried.err
    first = tried.out.splitlines()[0]
    assert first.startswith("fragments_blockwise: 8 blocks in")
    assert (f", {before} done before" in first) == (before > 0)
    same(final(results(tried.root)), final(template[1]))
    assert not list(tried.root.rglob("*.partial"))


@pytest.mark.parametrize("stop", ["group", "level", "array folder"])
def test_a_crash_while_arrays_are_made_is_no_obstacle(
    stop: str, tried: Tried, template: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"group": "open_group", "level": "multiscales", "array folder": "ZstdCodec"}[stop]

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"pipeline.volume.{name}", crash)
        assert tried() == 130
    if stop == "array folder":
        (tried.root / "volumes.zarr/basins/s0").mkdir()
        (tried.root / "volumes.zarr/basins/s0/zarr.1.partial").touch()
    assert tried() == 0, tried.err
    same(results(tried.root), template[1])


def test_a_second_driver_is_refused(tried: Tried) -> None:
    with locked(RunDirectory(tried.root)):
        for words in (("run", "all"), ("drop", "all"), ("status", None, "--verify")):
            before = files_state(tried.root)
            assert tried(*words) == 1
            assert f"process {os.getpid()}" in tried.err
            assert "is in use by another" in tried.err
            assert files_state(tried.root) == before
        assert tried("status", None) == 0
    assert tried("run", "fragments") == 0


# Changed settings and inputs.


def other_affinities(tried: Tried, **noted: Any) -> None:
    shutil.rmtree(tried.data / "affinities")
    values = drawn_affinities(drawn_labels(), seed=8)
    write_volume(tried.data / "affinities", values, "affinities", LONG[:3], **noted)


CHANGES: list[tuple[str, Callable[[Tried], object], str, int]] = [
    ("rule", lambda t: set_at(t.tree, "run.fragments.narrow_nm", 9.0), "narrow_nm: 7.5 -> 9.0", 0),
    ("threshold", lambda t: set_at(t.tree, "run.agglomerate.threshold", 0.3),
        "threshold: 0.5 -> 0.3", 4),
    ("thresholds", lambda t: set_at(t.tree, "run.evaluate.thresholds", [0.4]),
        "thresholds: [0.2, 0.5, 0.8] -> [0.4]", 5),
    ("region", lambda t: set_at(t.tree, "run.data.roi", {"offset": [80, 16, 8],
        "shape": [400, 320, 352]}), "roi: ", 0),
    ("affinities", lambda t: other_affinities(t, content_digest="others"), "input affinities: ", 0),
    ("affinities without digest", other_affinities, "input affinities: ", 0),
    ("offset", lambda t: moved(t, "affinities"), "roi: ", 0),
    ("voxel size", lambda t: [moved(t, n, size=[20, 8, 8]) for n in ("affinities", "labels")],
        "voxel_size_nm: [40, 8, 8] -> [20, 8, 8]", 0),
    ("labels", lambda t: moved(t, "labels", digest="others"), "input labels: ", 5),
    ("mask", lambda t: set_at(t.tree, "run.data.mask", str(t.data / "mask")),
        "input mask: None", 0),
]  # fmt: skip


def moved(
    tried: Tried, name: str, size: list[int] | None = None, digest: str | None = None
) -> None:
    path = tried.data / name / "s0" / "zarr.json"
    meta = json.loads(path.read_text())
    if size is None and digest is None:
        meta["attributes"]["offset"] = [120, 16, 8]
    if size is not None:
        meta["attributes"] |= {"voxel_size": size, "resolution": size}
    if digest is not None:
        meta["attributes"]["content_digest"] = digest
    path.write_text(json.dumps(meta))


@pytest.mark.parametrize(("what", "change", "named", "kept"), CHANGES, ids=[c[0] for c in CHANGES])
def test_a_change_is_refused_and_named_and_rerun_does_what_depends_on_it(
    what: str, change: Callable[[Tried], object], named: str, kept: int, finished: Tried
) -> None:
    finished.tree = run_tree(finished.data, block_vx=(16, 40, 48))  # of what is done again
    change(finished)
    before = files_state(finished.root)
    assert finished() == 1
    assert named in finished.err
    assert f"{STAGES[kept]} in {finished.root} was made with other settings" in finished.err
    assert "--rerun" in finished.err
    assert len(finished.err.splitlines()) <= 10
    assert files_state(finished.root) == before
    assert finished("plan", None) == 0
    assert "out of date" in finished.out
    assert named in finished.out
    assert files_state(finished.root) == before

    assert finished("run", "all", "--rerun") == 0, finished.err
    for stage in STAGES[:kept]:
        assert f"{stage}: done before" in finished.out
    again = {name for name in STAGES if f"{name}: done before" not in finished.out}
    expected = set(STAGES[kept:]) - ({"relabel_blockwise"} if what == "thresholds" else set())
    assert again == expected
    fresh = finished.folder / "fresh"
    assert cli.main([*finished.words()[:-1], str(fresh)]) == 0
    same(final(results(finished.root)), final(results(fresh / "small")))


def test_blocks_and_workers_of_a_finished_run_may_change(finished: Tried) -> None:
    before = results(finished.root)
    finished.tree = run_tree(finished.data, block_vx=(4, 16, 16), workers=3)
    assert finished() == 0
    assert finished.out.count("done before") == len(STAGES)
    assert results(finished.root) == before


@pytest.mark.parametrize("side", [16, 64])
def test_blocks_of_a_half_finished_stage_fit_or_are_refused(
    side: int, tried: Tried, template: tuple[Path, dict[str, str]]
) -> None:
    half_done(tried)
    tried.tree = run_tree(tried.data, block_vx=(8, side, 32), workers=1)
    before = files_state(tried.root)
    if side == 16:
        assert tried() == 1
        assert "begun with blocks of [8, 32, 32] voxels" in tried.err
        assert files_state(tried.root) == before
        assert tried("drop", "all") == 0
    assert tried() == 0
    same(final(results(tried.root)), final(template[1]))


def test_rerun_of_a_named_stage_does_it_and_its_dependants(
    finished: Tried, template: tuple[Path, dict[str, str]]
) -> None:
    assert finished("run", "all", "--rerun") == 0
    assert "Nothing is out of date" in finished.err
    assert finished("run", "agglomerate", "--rerun") == 0
    assert finished.out.startswith("agglomerate: 1 block")
    assert not (finished.root / "scores.json").exists()
    assert finished() == 0
    assert finished.out.count("done before") == 4
    same(results(finished.root), template[1])


def test_rerun_that_cannot_start_costs_nothing(finished: Tried) -> None:
    set_at(finished.tree, "run.fragments.narrow_nm", 9.0)
    before = files_state(finished.root)
    assert finished("run", "edges", "--rerun") == 1
    assert "edges_blockwise needs resolve_fragments" in finished.err
    assert files_state(finished.root) == before


def test_drop_forgets_a_stage_and_its_dependants(
    finished: Tried, template: tuple[Path, dict[str, str]]
) -> None:
    kept = {
        name: digest for name, digest in template[1].items() if name.startswith(("basins", "res"))
    }
    assert finished("drop", "edges") == 0
    assert finished.out.split() == [
        word for name in STAGES[2:] for word in ("dropped", name)
    ]  # fmt: skip
    left = results(finished.root)
    assert kept.items() <= left.items()
    assert not any(
        name.startswith(("fragments/", "segmentation/", "edges", "agg")) for name in left
    )
    assert "scores" not in left
    assert finished() == 0
    assert finished.out.count("done before") == 2
    same(results(finished.root), template[1])


@pytest.mark.parametrize("moment", ["hidden", "volume half gone", "volume gone", "tables gone"])
def test_a_drop_that_was_cut_short_is_finished(
    moment: str, finished: Tried, template: tuple[Path, dict[str, str]]
) -> None:
    stage = finished.stage("relabel")
    done = stage.run.done(stage.identity)
    done.rename(done.with_name(HIDDEN + done.name))
    if moment == "volume half gone":
        finished.shard("segmentation").unlink()
        (finished.root / "volumes.zarr/segmentation/s0/zarr.json").unlink()
    elif moment != "hidden":
        stage.remove_outputs()
    assert finished() == 0, finished.err
    assert "relabel_blockwise: 8 blocks" in finished.out
    assert finished.out.count("done before") == 5
    assert not list((finished.root / "done").glob(HIDDEN + "*"))
    same(results(finished.root), template[1])


def test_nothing_but_pipeline_errors_for_damaged_records(finished: Tried) -> None:
    """Every record of a run cut to nothing, one at a time."""
    for path in sorted(p for p in finished.root.rglob("*.json*") if p.parent.name != "logs"):
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], b"7"):
            path.write_bytes(content)
            with contextlib.suppress(PipelineError):
                drive(finished.plan, finished.plan.steps, SerialRunner(), (), Console(quiet=True))
            path.write_bytes(whole)


assert SHAPE == (12, 40, 44), "the block numbers above depend on it"
