"""From the region graph to a merge tree, and from that to the segmentation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.geometry import Block
from pipeline.graph import FragmentSizes, MergeTree
from pipeline.rundir import Identity, RunDirectory
from pipeline.segment.domains import DomainMerges, joined_domains, solved_domains
from pipeline.segment.segments import Rule, merge_tree, method_named, segments_of
from pipeline.spec import VolumeSpec
from pipeline.stages.edges import mapped_contacts, read_graph, read_histograms
from pipeline.stages.stage import Outcome, Process, Stage
from pipeline.tables import Columns, read_table, write_table
from pipeline.volume import Volume


@dataclass(frozen=True)
class MulticutBlockwise(Stage):
    """The multicut of each domain by itself; the grid is that of the domains.

    A worker maps the table of the graph, and holds the contacts of one domain at a time.
    """

    revision: ClassVar[int] = 2

    rule: Rule

    @property
    def parameters(self) -> Mapping[str, Any]:
        return self.rule.decides_tree

    @property
    def memory_bytes(self) -> int:
        # Ids of all fragments, and what a domain takes up: measured 2.8 times its part of the
        # graph. Mapped pages do not count: the system takes them back when it needs them.
        share = math.prod(self.grid.block_vx) / math.prod(self.grid.total.shape)
        return self.memory_of_tables(0.125 + 4 * min(1.0, share))

    @contextmanager
    def open(self) -> Iterator[Process]:
        how = self.rule.beta, self.rule.weighting, self.rule.solver
        contacts = mapped_contacts(self.run, self.upstream[0])

        def process(block: Block) -> Outcome:
            solved = solved_domains(contacts, self.grid, block, *how)
            write_table(self.table(block), solved.columns())
            return Outcome(filled=len(solved))

        yield process


@dataclass(frozen=True)
class Agglomerate(Stage):
    """The merge tree of the whole graph, and the size of every fragment. Reads tables only.

    ``upstream`` begins with the stage that summed the graph; second comes that of the histograms,
    or of the domains, where the method has one.
    """

    revision: ClassVar[int] = 2

    rule: Rule

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {**self.rule.decides_tree, **self.rule.revisions}

    @property
    def memory_bytes(self) -> int:
        return self.memory_of_tables(6)  # measured 5.3 to 5.6, multicut as mean affinity

    @contextmanager
    def open(self) -> Iterator[Process]:
        def process(block: Block) -> Outcome:
            graph, sizes = read_graph(self.run, self.upstream[0])
            if self.rule.method == "multicut" and self.rule.domains is not None:
                tables = map(read_table, self.run.complete_tables(self.upstream[1]))
                solved = map(DomainMerges.of, tables)
                how = self.rule.beta, self.rule.weighting, self.rule.solver
                joined = joined_domains(graph, solved, *how)
                tree = MergeTree.of_partition(joined)
            elif method_named(self.rule.method).histograms:
                histograms = read_histograms(self.run, self.upstream[1])
                tree = merge_tree(self.rule, graph, sizes, histograms)
            else:
                tree = merge_tree(self.rule, graph, sizes)
            write_table(self.table(block), sizes.columns() | tree.columns())
            return Outcome(filled=len(sizes))

        yield process

    def remarks(self) -> list[str]:
        settings = [f"{name} {value}" for name, value in self.parameters.items()]
        return [", ".join(settings).replace("method ", "")]


def read_tree(run: RunDirectory, agglomerated: Identity) -> tuple[MergeTree, FragmentSizes]:
    """What ``Agglomerate`` wrote."""
    (path,) = run.complete_tables(agglomerated)
    columns: Columns = read_table(path)
    return MergeTree.of(columns), FragmentSizes.of(columns)


@dataclass(frozen=True)
class RelabelBlockwise(Stage):
    """The segmentation: fragments relabelled by what the rule makes of the merge tree.

    ``upstream`` is the stage of the tree, then that of the graph.
    """

    revision: ClassVar[int] = 1

    rule: Rule
    segmentation: VolumeSpec

    @property
    def parameters(self) -> Mapping[str, Any]:
        return self.rule.decides_segments

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
        tree, sizes = read_tree(self.run, self.upstream[0])
        graph = None
        if self.rule.merge_small_vx:
            graph, _ = read_graph(self.run, self.upstream[1])
        segments = segments_of(self.rule, tree, sizes, graph)

        def process(block: Block) -> Outcome:
            labels = segments.apply(fragments.read(block.write))
            output.write(block.write, labels)
            return Outcome(int(np.count_nonzero(labels)))

        yield process
