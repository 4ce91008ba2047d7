"""Scores of any two volumes of labels."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from pipeline.config import Dask, Workers
from pipeline.errors import DataError
from pipeline.evaluate.border import Border
from pipeline.evaluate.conventions import all_scores
from pipeline.evaluate.objects import worst_objects
from pipeline.evaluate.overlaps import Overlaps
from pipeline.geometry import ZYX, Block, BlockGrid, describe
from pipeline.inputs import checked_labels
from pipeline.stages.evaluate import PARTNERS, WORST_OBJECTS
from pipeline.stages.stage import Sum, sum_here
from pipeline.volume import Volume
from workers.progress import progress_line
from workers.runner import Progress
from workers.runners import worth_a_cluster

BLOCK_VX = ZYX(64, 256, 256)


@dataclass(frozen=True)
class Pair:
    """Two volumes to be compared."""

    segments: Volume
    truth: Volume
    border: Border

    def overlaps(self, block: Block) -> Overlaps:
        """What they share in a block."""
        known = self.border.blanked(self.truth.read(block.read))[block.inner]
        return Overlaps.count(self.segments.read(block.write), known, block.write.begin)


def score_volumes(
    segmentation: Path, truth: Path, border_nm: float, workers: int, console: Console
) -> dict[str, Any]:
    """Scores and worst objects where two volumes overlap, block by block.

    Args:
        border_nm: leave out voxels that near to another true object; see ``Border``.
        workers: processes of a Dask cluster, started if the volumes are large enough for it.

    Raises:
        PipelineError: they are not labels on one voxel grid, no voxel has a truth, or workers die.
    """
    segments, objects = Volume.open(segmentation), Volume.open(truth)
    size = segments.spec.voxel_size_nm
    checked_labels(segments, size, segments.roi, "the segmentation")
    checked_labels(objects, size, segments.roi, "the truth", "the segmentation")
    border = Border.of(border_nm, size)
    total = segments.roi.intersect(objects.roi)
    grid = BlockGrid(total, BLOCK_VX, border.halo_vx, border.halo_vx)
    with (
        progress_line(console, "evaluate", 0, len(grid)) as progress,
        summing(math.prod(total.shape), min(workers, len(grid)), progress) as sum_of,
    ):
        overlaps = sum_of(Pair(segments, objects, border).overlaps, Overlaps.sum_of, list(grid))
    if len(overlaps.without_truth(0)) == 0:
        raise DataError(
            f"scores need voxels with a truth: {truth} is 0 in {describe(total, size)}"
            + (f", or within {border_nm:g} nm of a border" if border_nm else "")
        )
    return {
        **all_scores(overlaps.contingency),
        **worst_objects(overlaps, size, WORST_OBJECTS, PARTNERS),
        "segmentation": str(segmentation),
        "truth": str(truth),
        "region": describe(total, size),
        "border_nm": border_nm,
    }


def cpus_at_hand() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def summing(voxels: int, workers: int, progress: Progress) -> Iterator[Sum]:
    """Who counts: this process, or a Dask cluster of this machine."""
    if not worth_a_cluster(voxels, workers):
        yield partial(sum_here, progress=progress)
        return
    from workers.dask_cluster import DaskCluster
    from workers.dask_sum import dask_sum

    with TemporaryDirectory() as logs, closing(DaskCluster(Dask(), Path(logs))) as cluster:
        yield dask_sum(cluster, Workers(workers=workers), progress)
