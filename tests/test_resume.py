"""A run goes on after a crash, a change, a rerun or a drop, or says why it does not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.rundir import HIDDEN, RunDirectory
from tests.drawn import (
    LONG,
    drawn_affinities,
    drawn_labels,
    files_state,
    results,
    run_tree,
    set_at,
    write_volume,
)
from tests.tried import STAGES, Tried, same
from workers import cli
from workers.lock import locked


def final(found: dict[str, str]) -> dict[str, str]:
    """What does not depend on the blocks."""
    return {
        name: value
        for name, value in found.items()
        if name.startswith(("fragments/", "segmentation/", "agglomerate-", "scores"))
    }


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
        "threshold: 0.5 -> 0.3", 5),
    ("thresholds", lambda t: set_at(t.tree, "run.evaluate.thresholds", [0.4]),
        "thresholds: [0.2, 0.5, 0.8] -> [0.4]", 6),
    ("region", lambda t: set_at(t.tree, "run.data.roi", {"offset": [80, 16, 8],
        "shape": [400, 320, 352]}), "roi: ", 0),
    ("affinities", lambda t: other_affinities(t, content_digest="others"), "input affinities: ", 0),
    ("affinities without digest", other_affinities, "input affinities: ", 0),
    ("offset", lambda t: moved(t, "affinities"), "roi: ", 0),
    ("voxel size", lambda t: [moved(t, n, size=[20, 8, 8]) for n in ("affinities", "labels")],
        "voxel_size_nm: [40, 8, 8] -> [20, 8, 8]", 0),
    ("labels", lambda t: moved(t, "labels", digest="others"), "input labels: ", 6),
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
    assert finished.out.count("done before") == 5
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
        name.startswith(("fragments/", "segmentation/", "edges", "sum", "agg")) for name in left
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
    assert finished.out.count("done before") == 6
    assert not list((finished.root / "done").glob(HIDDEN + "*"))
    same(results(finished.root), template[1])
