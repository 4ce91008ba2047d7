"""A small run that is tried by its command line, and what its results must equal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.config import load_settings
from pipeline.plan import Plan, make_plan
from pipeline.stages.stage import Stage
from tests.drawn import SHAPE, run_tree, write_run
from workers import cli

STAGES = (
    "fragments_blockwise", "resolve_fragments", "edges_blockwise", "sum_edges",
    "agglomerate", "relabel_blockwise", "evaluate",
)  # fmt: skip

assert SHAPE == (12, 40, 44), "the block numbers in tests of runs depend on it"


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


def same(found: dict[str, str], expected: dict[str, str]) -> None:
    """The same results, but for the path of the truth in the scores."""
    assert found.keys() == expected.keys()
    differing = [name for name in found if name != "scores" and found[name] != expected[name]]
    assert not differing
    if "scores" in found:
        one, other = (json.loads(each["scores"]) | {"truth": ""} for each in (found, expected))
        assert one == other
