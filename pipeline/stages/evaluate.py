"""Scores for every threshold of a merge tree, from one pass over the voxels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.errors import DataError
from pipeline.evaluate.border import Border
from pipeline.evaluate.conventions import all_scores
from pipeline.evaluate.objects import worst_objects
from pipeline.evaluate.overlaps import Overlaps
from pipeline.evaluate.scores import HEADLINE
from pipeline.evaluate.sweep import best_of, sweep
from pipeline.geometry import Block, describe
from pipeline.graph import Assignment
from pipeline.location import Location
from pipeline.rundir import write_json
from pipeline.stages.agglomerate import read_tree
from pipeline.stages.stage import Outcome, Process, Stage, Sum
from pipeline.tables import read_table, write_table
from pipeline.volume import Volume

WORST_OBJECTS = 100
"""How many splits and merges ``objects.json`` lists, each with its largest ``PARTNERS``."""
PARTNERS = 5


@dataclass(frozen=True)
class Evaluate(Stage):
    """Counts fragments against the truth in each block; relabels and scores the sum of the counts.

    The grid covers what fragments and truth have in common; its halo is that of the border.
    """

    revision: ClassVar[int] = 1

    truth: Location
    border_nm: float
    threshold: float
    thresholds: tuple[float, ...]
    dust_vx: int

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {
            "border_nm": self.border_nm,
            "threshold": self.threshold,
            "thresholds": list(self.thresholds),
            "dust_vx": self.dust_vx,
            "roi": [list(self.grid.total.begin), list(self.grid.total.shape)],
        }

    @property
    def memory_bytes(self) -> int:
        halo = zip(self.grid.block_vx, self.grid.below_vx, self.grid.above_vx, strict=True)
        return math.prod(map(sum, halo)) * 40

    @contextmanager
    def open(self) -> Iterator[Process]:
        fragments = Volume.open(self.run.volume("fragments"))
        truth = Volume.open(self.truth)
        border = Border.of(self.border_nm, truth.spec.voxel_size_nm)

        def process(block: Block) -> Outcome:
            objects = border.blanked(truth.read(block.read))[block.inner]
            overlaps = Overlaps.count(fragments.read(block.write), objects, block.write.begin)
            write_table(self.table(block), overlaps.columns())
            return Outcome(filled=int(overlaps.without_truth(0).voxels.sum()))

        yield process

    def finish(self, total: Sum) -> None:
        """Write ``scores.json``, the run's segmentation on top, then the sweep of thresholds, drawn
        in ``sweep.png``; and ``objects.json``, the run's worst splits and merges.

        Raises:
            DataError: no voxel has a truth.
        """
        from pipeline.report.sweep import draw_sweep  # matplotlib: slow to load, and not for blocks

        overlaps = total(_overlaps_in, Overlaps.sum_of, [self.table(block) for block in self.grid])
        size = Volume.open(self.truth).spec.voxel_size_nm
        region = describe(self.grid.total, size)
        if len(overlaps.without_truth(0)) == 0:
            raise DataError(
                f"scores need voxels with a truth: {self.truth} is 0 everywhere in {region}"
                + (f", or within {self.border_nm:g} nm of a border" if self.border_nm else "")
                + "\nScore a region that is labelled: run.evaluate.roi."
            )
        (path,) = self.run.complete_tables(self.upstream[0])
        tree, sizes = read_tree(path)

        def segments_at(threshold: float) -> Assignment:
            return tree.cut(threshold, sizes, self.dust_vx)

        segments = overlaps.relabel(segments_at(self.threshold))
        cuts = ((threshold, segments_at(threshold)) for threshold in self.thresholds)
        swept = sweep(overlaps.contingency, "threshold", cuts)
        about = {
            "truth": str(self.truth),
            "region": region,
            "border_nm": self.border_nm,
            "dust_vx": self.dust_vx,
            "fingerprint": self.identity.fingerprint,
        }
        write_json(
            self.run.objects,
            {
                "threshold": self.threshold,
                "convention": HEADLINE,
                **worst_objects(segments, size, WORST_OBJECTS, PARTNERS),
                **about,
            },
        )
        scores = {"threshold": self.threshold, **all_scores(segments.contingency)}
        title = f"{self.run.root.name}: {region}"
        draw_sweep(swept, scores, "threshold", self.run.sweep_picture, title)
        write_json(
            self.run.scores,
            {
                **scores,
                "best": best_of(swept),
                "thresholds": swept,
                **about,
            },
        )

    def results(self) -> list[Path]:
        return [self.run.scores, self.run.objects, self.run.sweep_picture]

    def remove_outputs(self) -> None:
        for path in self.results():
            path.unlink(missing_ok=True)


def _overlaps_in(path: Path) -> Overlaps:
    return Overlaps.of(read_table(path))
