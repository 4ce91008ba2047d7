"""Damaged files are found, stop what depends on them and nothing else, and are made again."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pipeline.errors import DataError, NotFoundError, PipelineError
from pipeline.geometry import Roi
from pipeline.tables import read_table
from pipeline.volume import Volume
from tests.drawn import results
from tests.tried import STAGES, Tried, same
from workers.drive import drive
from workers.serial_runner import SerialRunner


def flipped(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


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
    assert "sum_edges: not started, it needs edges_blockwise" in tried.out
    for name in ("agglomerate", "relabel_blockwise", "evaluate"):
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
    tried.upto(*STAGES[:5])
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


def test_nothing_but_pipeline_errors_for_damaged_records(finished: Tried) -> None:
    """Every record of a run cut to nothing, one at a time."""
    for path in sorted(p for p in finished.root.rglob("*.json*") if p.parent.name != "logs"):
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], b"7"):
            path.write_bytes(content)
            with contextlib.suppress(PipelineError):
                drive(finished.plan, finished.plan.steps, SerialRunner(), (), Console(quiet=True))
            path.write_bytes(whole)
