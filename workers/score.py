"""Scores of any two volumes of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.errors import DataError
from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.scores import CONVENTION, Scores
from pipeline.geometry import ZYX, BlockGrid, describe
from pipeline.inputs import checked_labels
from pipeline.volume import Volume
from workers.progress import progress_line

BLOCK_VX = ZYX(64, 256, 256)
TABLES_AT_ONCE = 32


def score_volumes(segmentation: Path, truth: Path, console: Console) -> dict[str, Any]:
    """Scores where two volumes overlap, block by block.

    Raises:
        PipelineError: they are not labels on one voxel grid, or no voxel has a truth.
    """
    segments, objects = Volume.open(segmentation), Volume.open(truth)
    size = segments.spec.voxel_size_nm
    checked_labels(segments, size, segments.roi, "the segmentation")
    checked_labels(objects, size, segments.roi, "the truth", "the segmentation")
    grid = BlockGrid(segments.roi.intersect(objects.roi), BLOCK_VX)
    tables: list[Contingency] = []
    with progress_line(console, "evaluate", 0, len(grid)) as progress:
        for block in grid:
            tables.append(Contingency.count(segments.read(block.write), objects.read(block.write)))
            if len(tables) == TABLES_AT_ONCE:
                tables = [Contingency.sum_of(tables)]
            progress(block.index + 1, 0)
    scores = Scores.of(Contingency.sum_of(tables))
    if scores.num_voxels == 0:
        raise DataError(
            f"scores need voxels with a truth: {truth} is 0 in {describe(grid.total, size)}"
        )
    return {
        **scores.as_dict(),
        "convention": CONVENTION,
        "segmentation": str(segmentation),
        "truth": str(truth),
        "region": describe(grid.total, size),
    }
