"""From the region graph to a merge tree, and from its cut to the segmentation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.geometry import Block
from pipeline.graph import FragmentSizes, MergeTree, RegionGraph
from pipeline.segment.agglomerate import mean_affinity_tree
from pipeline.spec import VolumeSpec
from pipeline.stages.stage import Outcome, Process, Stage
from pipeline.tables import Columns, read_table, write_table
from pipeline.volume import Volume


@dataclass(frozen=True)
class Agglomerate(Stage):
    """The merge tree of the whole graph, and the size of every fragment. Reads tables only."""

    revision: ClassVar[int] = 1

    method: Literal["mean_affinity"]

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"method": self.method}

    @property
    def memory_bytes(self) -> int:
        return 2 << 30

    @contextmanager
    def open(self) -> Iterator[Process]:
        def process(block: Block) -> Outcome:
            tables = [read_table(path) for path in self.run.complete_tables(self.upstream[0])]
            sizes = FragmentSizes.sum_of(FragmentSizes.of(table) for table in tables)
            tree = mean_affinity_tree(RegionGraph.sum_of(RegionGraph.of(table) for table in tables))
            write_table(self.table(block), sizes.columns() | tree.columns())
            return Outcome(filled=len(sizes))

        yield process


def read_tree(path: Path) -> tuple[MergeTree, FragmentSizes]:
    """What ``Agglomerate`` wrote."""
    columns: Columns = read_table(path)
    return MergeTree.of(columns), FragmentSizes.of(columns)


@dataclass(frozen=True)
class RelabelBlockwise(Stage):
    """The segmentation: fragments relabelled by a cut of the merge tree."""

    revision: ClassVar[int] = 1

    threshold: float
    dust_vx: int
    segmentation: VolumeSpec

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"threshold": self.threshold, "dust_vx": self.dust_vx}

    @property
    def memory_bytes(self) -> int:
        return math.prod(self.grid.block_vx) * 32

    @property
    def writes_table(self) -> bool:
        return False

    def output_specs(self) -> Mapping[str, VolumeSpec]:
        return {"segmentation/s0": self.segmentation}

    @contextmanager
    def open(self) -> Iterator[Process]:
        fragments = Volume.open(self.run.volume("fragments"))
        output = self.output_volumes()["segmentation/s0"]
        (path,) = self.run.complete_tables(self.upstream[0])
        tree, sizes = read_tree(path)
        segments = tree.cut(self.threshold, sizes, self.dust_vx)

        def process(block: Block) -> Outcome:
            labels = segments.apply(fragments.read(block.write))
            output.write(block.write, labels)
            return Outcome(int(np.count_nonzero(labels)))

        yield process
