"""The region graph, block by block, then whole.

The first pass that needs global ids writes the fragments.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.geometry import Block, Offsets
from pipeline.graph import Assignment, FragmentSizes, Histograms, RegionGraph
from pipeline.location import Location
from pipeline.rundir import Identity, RunDirectory
from pipeline.segment.contacts import Contacts, GraphIndex
from pipeline.segment.edges import contact_histograms, fragment_sizes, region_edges
from pipeline.spec import VolumeSpec
from pipeline.stages.stage import Outcome, Process, Stage, quantised
from pipeline.tables import mapped_table, read_table, write_table
from pipeline.volume import Volume


@dataclass(frozen=True)
class EdgesBlockwise(Stage):
    """Contacts of fragments and their sizes, a table per block; and the fragments with final ids.

    ``upstream`` is the stage that resolved the fragments.
    """

    revision: ClassVar[int] = 2

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


@dataclass(frozen=True)
class HistogramsBlockwise(Stage):
    """How many direct contacts have which affinity; only where the method needs them.

    ``upstream`` is the stage that wrote the fragments. The halo is one voxel below.
    """

    revision: ClassVar[int] = 1

    affinities: Location

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {}

    @property
    def memory_bytes(self) -> int:
        return math.prod(side + 1 for side in self.grid.block_vx) * (36 + 3 * 5)

    @contextmanager
    def open(self) -> Iterator[Process]:
        affinities = Volume.open(self.affinities)
        fragments = Volume.open(self.run.volume("fragments"))

        def process(block: Block) -> Outcome:
            labels = fragments.read(block.read)
            values = np.zeros((Offsets.NUM_DIRECT, *labels.shape), np.uint8)
            values[(slice(None), *block.inner)] = quantised(
                affinities.read(block.write, slice(Offsets.NUM_DIRECT)), self.affinities
            )
            histograms = contact_histograms(values, labels, block.inner)
            write_table(self.table(block), histograms.columns())
            return Outcome(filled=len(histograms), masked=not labels.any())

        yield process


@dataclass(frozen=True)
class SumEdges(Stage):
    """The region graph of the whole volume, its index, the size of every fragment; from tables."""

    revision: ClassVar[int] = 2

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {}

    @property
    def memory_bytes(self) -> int:
        return self.memory_of_tables(3.5)  # measured 3.3

    @contextmanager
    def open(self) -> Iterator[Process]:
        def process(block: Block) -> Outcome:
            tables = [read_table(path) for path in self.run.complete_tables(self.upstream[0])]
            graph = RegionGraph.sum_of(RegionGraph.of(table) for table in tables)
            sizes = FragmentSizes.sum_of(FragmentSizes.of(table) for table in tables)
            index = GraphIndex.of_graph(graph, sizes.fragment)
            write_table(self.table(block), graph.columns() | sizes.columns() | index.columns())
            return Outcome(filled=len(sizes))

        yield process


def read_graph(run: RunDirectory, summed: Identity) -> tuple[RegionGraph, FragmentSizes]:
    """What ``SumEdges`` wrote."""
    (path,) = run.complete_tables(summed)
    columns = read_table(path)
    return RegionGraph.of(columns), FragmentSizes.of(columns)


def mapped_contacts(run: RunDirectory, summed: Identity) -> Contacts:
    """The graph with its index, mapped from the file: only what is looked at takes memory."""
    (path,) = run.complete_tables(summed)
    columns = mapped_table(path)
    # Searched all the time, which NumPy does in a copy if it is not aligned.
    columns["fragment"] = np.array(columns["fragment"])
    return Contacts.of(columns)


def read_histograms(run: RunDirectory, counted: Identity) -> Histograms:
    """What ``HistogramsBlockwise`` wrote, of the whole volume."""
    return Histograms.sum_of(Histograms.of(read_table(p)) for p in run.complete_tables(counted))
