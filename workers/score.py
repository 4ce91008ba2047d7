"""Scores of any two volumes of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.errors import DataError
from pipeline.evaluate.border import Border
from pipeline.evaluate.conventions import all_scores
from pipeline.evaluate.objects import worst_objects
from pipeline.evaluate.overlaps import Overlaps
from pipeline.geometry import ZYX, BlockGrid, describe
from pipeline.inputs import checked_labels
from pipeline.stages.evaluate import PARTNERS, WORST_OBJECTS
from pipeline.volume import Volume
from workers.progress import progress_line

BLOCK_VX = ZYX(64, 256, 256)
TABLES_AT_ONCE = 32


def score_volumes(
    segmentation: Path, truth: Path, border_nm: float, console: Console
) -> dict[str, Any]:
    """Scores and worst objects where two volumes overlap, block by block.

    Args:
        border_nm: leave out voxels that near to another true object; see ``Border``.

    Raises:
        PipelineError: they are not labels on one voxel grid, or no voxel has a truth.
    """
    segments, objects = Volume.open(segmentation), Volume.open(truth)
    size = segments.spec.voxel_size_nm
    checked_labels(segments, size, segments.roi, "the segmentation")
    checked_labels(objects, size, segments.roi, "the truth", "the segmentation")
    border = Border.of(border_nm, size)
    total = segments.roi.intersect(objects.roi)
    grid = BlockGrid(total, BLOCK_VX, border.halo_vx, border.halo_vx)
    tables: list[Overlaps] = []
    with progress_line(console, "evaluate", 0, len(grid)) as progress:
        for block in grid:
            known = border.blanked(objects.read(block.read))[block.inner]
            tables.append(Overlaps.count(segments.read(block.write), known, block.write.begin))
            if len(tables) == TABLES_AT_ONCE:
                tables = [Overlaps.sum_of(tables)]
            progress(block.index + 1, 0)
    overlaps = Overlaps.sum_of(tables)
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
