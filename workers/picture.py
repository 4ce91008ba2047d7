"""A picture of a run, from sections through the middle of its region."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.errors import NotFoundError
from pipeline.geometry import Roi
from pipeline.location import Location
from pipeline.plan import Plan
from pipeline.report.picture import draw
from pipeline.report.sections import Section, common, middle, plane, read_section, window
from pipeline.volume import Volume
from workers.state import State, state_of

PICTURE_SIDE_VX = 1024
"""Of a picture; what is larger is cropped around the middle."""


def picture_of(plan: Plan, path: Path) -> None:
    """Draw what there is of a run: raw, affinities, fragments, segmentation, truth.

    Raises:
        NotFoundError: the run has no segmentation yet.
    """
    volumes = volumes_of(plan)
    if "segmentation" not in volumes:
        raise NotFoundError(f"{plan.run.root} has no segmentation to draw\nMake it: pea run all")
    draw(middle_sections(volumes, region_of(plan), PICTURE_SIDE_VX, (0, 1)), path, title_of(plan))


def volumes_of(plan: Plan) -> dict[str, Volume]:
    """The volumes of a run that can be drawn: its inputs, and the outputs of finished stages."""
    data, run = plan.settings.run.data, plan.run
    finished = {
        name.partition("/")[0]
        for step in plan.steps
        if state_of(step.stage).state is State.DONE
        for name in step.stage.output_specs()
    }
    made = ("affinities", "fragments", "segmentation")
    places: dict[str, Location] = {n: run.volume(n) for n in made if n in finished}
    given = {"raw": data.raw, "affinities": data.affinities, "truth": data.labels}
    places |= {name: place for name, place in given.items() if place is not None}
    return {name: Volume.open(place) for name, place in places.items()}


def region_of(plan: Plan) -> Roi:
    """The region that is scored, of a run without scores the one that is segmented."""
    grids = {step.stage.name: step.stage.grid for step in plan.steps}
    return grids.get("evaluate", grids["relabel_blockwise"]).total


def middle_sections(
    volumes: dict[str, Volume], region: Roi, side_vx: int, axes: tuple[int, ...]
) -> list[Section]:
    """Sections across axes through the middle of a region, as far as all volumes cover it."""
    shared, covered = common(volumes, region)
    centre, size = middle(covered), next(iter(shared.values())).spec.voxel_size_nm
    box = window(centre, covered, size, side_vx)
    return [read_section(shared, plane(box, centre, axis), axis) for axis in axes]


def title_of(plan: Plan) -> str:
    name = plan.settings.run.name
    if not plan.run.scores.exists():
        return name
    scores = json.loads(plan.run.scores.read_text())
    return f"{name}: VOI {scores['voi']:.3f}, ARAND {scores['arand']:.3f}"
