"""The region graph, block by block. The first pass that needs global ids writes the fragments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.geometry import Block, Offsets
from pipeline.graph import Assignment
from pipeline.location import Location
from pipeline.segment.edges import fragment_sizes, region_edges
from pipeline.spec import VolumeSpec
from pipeline.stages.stage import Outcome, Process, Stage, quantised
from pipeline.tables import read_table, write_table
from pipeline.volume import Volume


@dataclass(frozen=True)
class EdgesBlockwise(Stage):
    """Contacts of fragments and their sizes, a table per block; and the fragments with final ids.

    ``upstream`` is the stage that resolved the fragments.
    """

    revision: ClassVar[int] = 1

    affinities: Location
    offsets: Offsets
    fragments: VolumeSpec

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"offsets": self.offsets.numbers()}

    @property
    def memory_bytes(self) -> int:
        sides = zip(self.grid.block_vx, self.grid.below_vx, self.grid.above_vx, strict=True)
        labels = math.prod(sum(side) for side in sides) * 36
        return labels + math.prod(self.grid.block_vx) * len(self.offsets) * 5

    def output_specs(self) -> Mapping[str, VolumeSpec]:
        return {"fragments/s0": self.fragments}

    @contextmanager
    def open(self) -> Iterator[Process]:
        affinities = Volume.open(self.affinities)
        basins = Volume.open(self.run.volume("basins"))
        output = self.output_volumes()["fragments/s0"]
        (resolved,) = self.run.complete_tables(self.upstream[0])
        final = Assignment.of(read_table(resolved))

        def process(block: Block) -> Outcome:
            fragments = final.apply(basins.read(block.read))
            inner = fragments[block.inner]
            values = np.zeros((len(self.offsets), *fragments.shape), np.uint8)
            values[(slice(None), *block.inner)] = quantised(
                affinities.read(block.write), self.affinities
            )
            graph = region_edges(values, fragments, self.offsets, block.inner)
            output.write(block.write, inner)
            write_table(self.table(block), graph.columns() | fragment_sizes(inner).columns())
            filled = int(np.count_nonzero(inner))
            return Outcome(filled, masked=filled == 0)

        yield process
