"""Segmentations of a run's affinities by methods that need the whole volume at once."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from rich.console import Console

from pipeline.errors import ConfigError, LayoutError
from pipeline.evaluate.border import Border
from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.scores import Scores
from pipeline.geometry import ZYX, BlockGrid, Offsets, Roi, nanometres, slices
from pipeline.plan import Plan
from pipeline.rundir import write_json
from pipeline.segment.fragments import FragmentRule
from pipeline.segment.sections import multicut_of_sections
from pipeline.segment.voxel_mutex import STRIDES, voxel_mutex_watershed
from pipeline.segment.whole import SCORINGS, flooding_fragments, waterz_segmentations
from pipeline.spec import VolumeSpec
from pipeline.stages.edges import EdgesBlockwise
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.fragments import FragmentsBlockwise
from pipeline.stages.stage import mask_of, quantised
from pipeline.volume import Volume
from workers.drive import refuse_unready
from workers.lock import locked

EDGES, FRAGMENTS = "edges_blockwise", "fragments_blockwise"
Method = Literal["waterz", "waterz-median", "mutex-watershed", "lmc"]
NOTE = "depends on the whole volume at once: another region gives other segments also inside it"
BYTES_PER_VOXEL: Mapping[Method, Callable[[int], int]] = {
    "waterz": lambda channels: 90 + channels,
    "waterz-median": lambda channels: 90 + channels,
    "mutex-watershed": lambda channels: 40 + 20 * channels,
    "lmc": lambda channels: 40 + channels,
}
"""By the number of channels; measured on FIB-25, rounded up."""
AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class WholeVolume:
    """A run's affinities in memory, and what they are scored against."""

    affinities: np.ndarray
    """uint8 ``(channel, z, y, x)``."""
    offsets: Offsets
    rule: FragmentRule
    valid: np.ndarray
    """bool ``(z, y, x)``: the mask."""
    roi: Roi
    truth: tuple[Roi, np.ndarray] | None
    """The region that is scored, and its labels; 0 is unknown."""

    @classmethod
    def of(cls, plan: Plan) -> WholeVolume:
        """Read a run.

        Raises:
            ConfigError: its affinities are not predicted yet.
        """
        refuse_unready(plan, [step for step in plan.steps if step.stage.name == FRAGMENTS])
        stages = {step.stage.name: step.stage for step in plan.steps}
        edges, fragments, scored = stages[EDGES], stages[FRAGMENTS], stages.get("evaluate")
        assert isinstance(edges, EdgesBlockwise)
        assert isinstance(fragments, FragmentsBlockwise)
        roi = edges.grid.total
        values = Volume.open(edges.affinities).read(roi)
        mask = None if fragments.mask is None else Volume.open(fragments.mask)
        truth = None
        if isinstance(scored, Evaluate):
            labels, grid = Volume.open(scored.truth), scored.grid
            whole = BlockGrid(grid.total, ZYX.of(grid.total.shape), grid.below_vx, grid.above_vx)
            border = Border.of(scored.border_nm, labels.spec.voxel_size_nm)
            objects = border.blanked(labels.read(whole[0].read))[whole[0].inner]
            truth = (grid.total, objects)
        return cls(
            affinities=quantised(values, edges.affinities),
            offsets=edges.offsets,
            rule=fragments.rule,
            valid=mask_of(mask, roi),
            roi=roi,
            truth=truth,
        )

    def scores(self, segmentation: np.ndarray) -> Scores | None:
        """Scores of labels of the whole volume; None without a truth."""
        if self.truth is None:
            return None
        region, objects = self.truth
        return Scores.of(Contingency.count(segmentation[slices(region, self.roi.begin)], objects))


def segmentation_by(method: Method, volume: WholeVolume, threshold: float) -> np.ndarray:
    """Labels of a whole volume, uint64 ``(z, y, x)``; 0 outside the mask.

    Args:
        threshold: of waterz.
    """
    affinities = volume.affinities
    if method == "lmc":
        labels = multicut_of_sections(affinities)
    elif method == "mutex-watershed":
        labels = voxel_mutex_watershed(affinities, volume.offsets, STRIDES)
    else:
        fragments = flooding_fragments(affinities, volume.rule.per_section)
        scoring = SCORINGS["mean" if method == "waterz" else "quantile_50"]
        (labels,) = waterz_segmentations(affinities, fragments, [threshold], scoring)
    return np.where(volume.valid, labels, np.uint64(0))


def write_reference(plan: Plan, name: str, console: Console) -> dict[str, Any]:
    """Compute a reference, and write it with its scores into the run directory.

    Returns:
        The method, its note, and scores where there is a truth.

    Raises:
        ConfigError: no such method, one without the affinities it needs, or affinities that are
        not predicted yet. LayoutError: it would not fit into memory.
    """
    if name not in get_args(Method):
        known = ", ".join(get_args(Method))
        raise ConfigError(f"a reference must be one of: {known}; found {name!r}")
    method: Method = name  # type: ignore[assignment]
    (edges,) = (step.stage for step in plan.steps if step.stage.name == EDGES)
    assert isinstance(edges, EdgesBlockwise)
    if method == "mutex-watershed" and len(edges.offsets) == Offsets.NUM_DIRECT:
        raise ConfigError(
            "the mutex watershed needs affinities of long-range offsets, found direct neighbours "
            "only\nPredict or bring in more: run.predict.offsets, or another run.data.affinities."
        )
    roi = edges.grid.total
    refuse_what_does_not_fit(method, len(edges.offsets), math.prod(roi.shape))
    with locked(plan.run):
        volume = WholeVolume.of(plan)
        console.print(f"{method}: {NOTE}")
        threshold = plan.settings.run.agglomerate.threshold
        labels = segmentation_by(method, volume, threshold)
        scores = volume.scores(labels)
        size = volume.rule.voxel_size_nm
        place = plan.run.root / "references" / method
        about: dict[str, Any] = {"method": method, "note": NOTE}
        if method.startswith("waterz"):
            about |= {"threshold": threshold}
        spec = VolumeSpec(
            shape=labels.shape,
            dtype="uint64",
            voxel_size_nm=size,
            offset_nm=nanometres(roi.begin, size),
            meaning="segmentation",
        )
        partial = place.with_name(f".{method}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        Volume.create(partial, spec, about).write(roi, labels)
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
        result = about | ({} if scores is None else scores.as_dict())
        write_json(place.with_name(f"{method}.json"), result)
    return result | {"path": place}


def refuse_what_does_not_fit(method: Method, channels: int, voxels: int) -> None:
    """Raise unless a volume fits into the memory that is free.

    Raises:
        LayoutError: with both figures.
    """
    needed, free = BYTES_PER_VOXEL[method](channels) * voxels, available_bytes()
    if needed > free:
        raise LayoutError(
            f"{method} needs about {needed / 1e9:.3g} GB for {voxels / 1e6:.3g} Mvoxel at once, "
            f"{free / 1e9:.3g} GB are free\nMake it of a region, run.data.roi, or use a method "
            "that works block by block: run.agglomerate.method."
        )


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    try:
        found = AVAILABLE.search(Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    if found is not None:
        return int(found[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
