"""The next level of the segmentation's OME-NGFF pyramid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.geometry import ZYX, Block, Coordinate
from pipeline.segment.downsample import most_frequent
from pipeline.spec import VolumeSpec
from pipeline.stages.stage import Outcome, Process, Stage
from pipeline.volume import Volume


@dataclass(frozen=True)
class DownsampleBlockwise(Stage):
    """One level of ``segmentation``; its grid counts that level's voxels from the corner."""

    revision: ClassVar[int] = 1

    level: int
    factors: ZYX
    spec: VolumeSpec

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"factors": list(self.factors)}

    @property
    def memory_bytes(self) -> int:
        return math.prod(self.grid.block_vx) * 8 * (3 * math.prod(self.factors) + 2)

    @property
    def writes_table(self) -> bool:
        return False

    def output_specs(self) -> Mapping[str, VolumeSpec]:
        return {f"segmentation/s{self.level}": self.spec}

    def output_volumes(self) -> dict[str, Volume]:
        return {name: volume.at_origin() for name, volume in super().output_volumes().items()}

    @contextmanager
    def open(self) -> Iterator[Process]:
        finer = Volume.open(self.run.volume("segmentation"), self.level - 1).at_origin()
        (output,) = self.output_volumes().values()
        factors = Coordinate(self.factors)

        def process(block: Block) -> Outcome:
            labels = most_frequent(
                finer.read((block.write * factors).intersect(finer.roi)), self.factors
            )
            output.write(block.write, labels)
            return Outcome(int(np.count_nonzero(labels)))

        yield process
