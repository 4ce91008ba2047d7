"""Fragments: basins of each block, then one id for each basin across blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.geometry import Block
from pipeline.location import Location
from pipeline.segment.basins import Seams, resolve
from pipeline.segment.fragments import FragmentRule, block_fragments
from pipeline.spec import VolumeSpec
from pipeline.stages.stage import Outcome, Process, Stage, mask_of, quantised
from pipeline.tables import read_table, write_table
from pipeline.volume import Volume

BYTES_PER_VOXEL = 60
"""Upper bound for each voxel read: heights in float32, and the watershed's indices."""


@dataclass(frozen=True)
class FragmentsBlockwise(Stage):
    """Basins of each block, and a table of what joins them with those of its neighbours."""

    revision: ClassVar[int] = 1

    affinities: Location
    mask: Location | None
    rule: FragmentRule
    basins: VolumeSpec

    @property
    def parameters(self) -> Mapping[str, Any]:
        total = self.grid.total
        return {
            "roi": [list(total.begin), list(total.shape)],
            "voxel_size_nm": self.rule.voxel_size_nm.numbers(),
            "per_section": self.rule.per_section,
            "narrow_nm": self.rule.narrow_nm,
            "wide_nm": self.rule.wide_nm,
            "wide_share": self.rule.wide_share,
        }

    @property
    def memory_bytes(self) -> int:
        sides = zip(self.grid.block_vx, self.grid.below_vx, self.grid.above_vx, strict=True)
        return BYTES_PER_VOXEL * math.prod(sum(side) for side in sides)

    def output_specs(self) -> Mapping[str, VolumeSpec]:
        return {"basins/s0": self.basins}

    @contextmanager
    def open(self) -> Iterator[Process]:
        affinities = Volume.open(self.affinities)
        mask = Volume.open(self.mask) if self.mask else None
        output = self.output_volumes()["basins/s0"]
        total = self.grid.total

        def process(block: Block) -> Outcome:
            valid = mask_of(mask, block.read)
            masked = not valid[block.inner].any()
            if masked:
                labels, seams = np.zeros(tuple(block.write.shape), np.uint64), Seams.none()
            else:
                labels, seams = block_fragments(
                    quantised(affinities.read(block.read, slice(3)), self.affinities),
                    valid,
                    block.inner,
                    tuple(block.read.begin - total.begin),
                    tuple(total.shape),
                    self.rule,
                )
            output.write(block.write, labels)
            write_table(self.table(block), seams.columns())
            return Outcome(int(np.count_nonzero(labels)), masked)

        yield process


@dataclass(frozen=True)
class ResolveFragments(Stage):
    """The final id of every label that a single block could not settle. Reads tables only."""

    revision: ClassVar[int] = 1

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {}

    @property
    def memory_bytes(self) -> int:
        return 1 << 30

    @contextmanager
    def open(self) -> Iterator[Process]:
        def process(block: Block) -> Outcome:
            tables = self.run.complete_tables(self.upstream[0])
            assignment = resolve(Seams.of(read_table(path)) for path in tables)
            write_table(self.table(block), assignment.columns())
            return Outcome(filled=1)

        yield process
