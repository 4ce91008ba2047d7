"""A picture of a run, from sections through the middle of its region."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.errors import NotFoundError
from pipeline.geometry import ZYX, Coordinate, Roi
from pipeline.plan import Plan
from pipeline.report.picture import View, draw
from pipeline.volume import Volume


def picture_of(plan: Plan, path: Path) -> None:
    """Draw what there is of a run: raw, affinities, fragments, segmentation, truth.

    Raises:
        NotFoundError: the run has no segmentation yet.
    """
    data, run = plan.settings.run.data, plan.run
    if not run.volume("segmentation").exists():
        raise NotFoundError(f"{run.root} has no segmentation to draw\nMake it: pea run all")
    volumes = {
        "raw": data.raw,
        "affinities": data.affinities or run.volume("affinities"),
        "fragments": run.volume("fragments"),
        "segmentation": run.volume("segmentation"),
        "truth": data.labels,
    }
    opened = {name: Volume.open(place) for name, place in volumes.items() if place is not None}
    roi = opened["segmentation"].roi
    for volume in opened.values():
        roi = roi.intersect(volume.roi)
    middle = roi.begin + roi.shape / 2
    sections = {
        name: (
            volume.read(_plane(roi, middle, axis=0)),
            volume.read(_plane(roi, middle, axis=1)),
        )
        for name, volume in opened.items()
    }
    draw(View(sections, opened["segmentation"].spec.voxel_size_nm), path, title_of(plan))


def _plane(roi: Roi, middle: Coordinate, axis: int) -> Roi:
    """One voxel thick across an axis."""
    begin, shape = list(roi.begin), list(roi.shape)
    begin[axis], shape[axis] = middle[axis], 1
    return Roi(ZYX.of(begin), ZYX.of(shape))


def title_of(plan: Plan) -> str:
    name = plan.settings.run.name
    if not plan.run.scores.exists():
        return name
    scores = json.loads(plan.run.scores.read_text())
    return f"{name}: VOI {scores['voi']:.3f}, ARAND {scores['arand']:.3f}"
