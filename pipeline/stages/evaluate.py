"""Scores of a run and of its sweep, from one pass over the voxels."""

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
from pipeline.location import Location
from pipeline.rundir import Identity, RunDirectory, write_json
from pipeline.segment.segments import Rule, segments_at, segments_of
from pipeline.stages.agglomerate import read_tree
from pipeline.stages.edges import read_graph
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
    ``upstream`` is the stage of the tree, then that of the graph.
    """

    revision: ClassVar[int] = 2

    truth: Location
    border_nm: float
    rule: Rule
    values: tuple[float, ...]
    """What is swept: of the rule's parameter, if it has one."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {
            **self.rule.decides_segments,
            **self.swept,
            "border_nm": self.border_nm,
            "roi": [list(self.grid.total.begin), list(self.grid.total.shape)],
        }

    @property
    def swept(self) -> Mapping[str, Any]:
        return {f"{self.rule.parameter}s": list(self.values)} if self.rule.parameter else {}

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
        """Write ``scores.json``, the run's segmentation on top, then the sweep, if its method has
        one, drawn in ``sweep.png``; and ``objects.json``, the run's worst splits and merges.

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
        tree, sizes = read_tree(self.run, self.upstream[0])
        graph = None
        if self.rule.merge_small_vx or self.rule.parameter == "beta":
            graph, _ = read_graph(self.run, self.upstream[1])
        segments = overlaps.relabel(segments_of(self.rule, tree, sizes, graph))
        settings = {**self.rule.decides_tree, **self.rule.decides_segments}
        about = {
            "truth": str(self.truth),
            "region": region,
            "border_nm": self.border_nm,
            "fingerprint": self.identity.fingerprint,
        }
        write_json(
            self.run.objects,
            {
                **settings,
                "convention": HEADLINE,
                **worst_objects(segments, size, WORST_OBJECTS, PARTNERS),
                **about,
            },
        )
        scores = {**settings, **all_scores(segments.contingency)}
        parameter, swept = self.rule.parameter, {}
        if parameter is not None:
            others = segments_at(self.rule, self.values, tree, sizes, graph)
            found = sweep(overlaps.contingency, parameter, others)
            title = f"{self.run.root.name}: {region}"
            draw_sweep(found, scores, parameter, self.run.sweep_picture, title)
            swept = {"best": best_of(found), f"{parameter}s": found}
        write_json(self.run.scores, {**scores, **swept, **about})

    def results(self) -> list[Path]:
        picture = [self.run.sweep_picture] if self.rule.parameter else []
        return [self.run.scores, self.run.objects, *picture]

    def remove_outputs(self) -> None:
        for path in (self.run.scores, self.run.objects, self.run.sweep_picture):
            path.unlink(missing_ok=True)


def read_overlaps(run: RunDirectory, evaluated: Identity) -> Overlaps:
    """What ``Evaluate`` counted, of the whole region."""
    return Overlaps.sum_of(map(_overlaps_in, run.complete_tables(evaluated)))


def _overlaps_in(path: Path) -> Overlaps:
    return Overlaps.of(read_table(path))
