"""Scores for every threshold of a merge tree, from one pass over the voxels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.errors import DataError
from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.scores import CONVENTION, Scores
from pipeline.geometry import Block, describe
from pipeline.rundir import write_json
from pipeline.stages.agglomerate import read_tree
from pipeline.stages.stage import Outcome, Process, Stage
from pipeline.tables import read_table, write_table
from pipeline.volume import Volume


@dataclass(frozen=True)
class Evaluate(Stage):
    """Counts fragments against the truth in each block; relabels and scores the sum of the counts.

    The grid covers what fragments and truth have in common.
    """

    revision: ClassVar[int] = 1

    truth: Path
    threshold: float
    thresholds: tuple[float, ...]
    dust_vx: int

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {
            "threshold": self.threshold,
            "thresholds": list(self.thresholds),
            "dust_vx": self.dust_vx,
            "roi": [list(self.grid.total.begin), list(self.grid.total.shape)],
        }

    @property
    def memory_bytes(self) -> int:
        return math.prod(self.grid.block_vx) * 40

    @contextmanager
    def open(self) -> Iterator[Process]:
        fragments = Volume.open(self.run.volume("fragments"))
        truth = Volume.open(self.truth)

        def process(block: Block) -> Outcome:
            counts = Contingency.count(fragments.read(block.write), truth.read(block.write))
            write_table(self.table(block), counts.columns())
            return Outcome(filled=int(counts.without_truth(0).voxels.sum()))

        yield process

    def finish(self) -> None:
        """Write ``scores.json``: the run's threshold on top, then every other one.

        Raises:
            DataError: no voxel has a truth.
        """
        counts = Contingency.sum_of(
            Contingency.of(read_table(self.table(block))) for block in self.grid
        )
        if len(counts.without_truth(0)) == 0:
            raise DataError(
                f"scores need voxels with a truth: {self.truth} is 0 everywhere in "
                f"{describe(self.grid.total, Volume.open(self.truth).spec.voxel_size_nm)}\n"
                "Score a region that is labelled: run.evaluate.roi."
            )
        (path,) = self.run.complete_tables(self.upstream[0])
        tree, sizes = read_tree(path)

        def scores_at(threshold: float) -> dict[str, float]:
            segments = tree.cut(threshold, sizes, self.dust_vx)
            return {"threshold": threshold} | Scores.of(counts.relabel(segments)).as_dict()

        swept = [scores_at(threshold) for threshold in self.thresholds]
        size = Volume.open(self.truth).spec.voxel_size_nm
        write_json(
            self.run.scores,
            {
                **scores_at(self.threshold),
                "best": min(swept, key=lambda scores: scores["voi"]),
                "thresholds": swept,
                "convention": CONVENTION,
                "truth": str(self.truth),
                "region": describe(self.grid.total, size),
                "dust_vx": self.dust_vx,
                "fingerprint": self.identity.fingerprint,
            },
        )

    def results(self) -> list[Path]:
        return [self.run.scores]

    def remove_outputs(self) -> None:
        self.run.scores.unlink(missing_ok=True)
