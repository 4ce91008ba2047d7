"""Which volume `pea export` writes, and which part of it."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import load_settings
from pipeline.errors import ConfigError, NotFoundError, RoiError, StageError
from pipeline.geometry import Nm, Roi, describe, voxels
from pipeline.location import Location, location
from pipeline.plan import Plan, make_plan
from pipeline.volume import Volume
from workers.state import State, state_of

INPUTS = ("raw", "labels", "affinities", "mask")


def named_volume(what: str, name: str | None, runs: Path) -> Volume:
    """A volume of a run, or one by its path.

    Args:
        what: a run file or a run directory, else the path or URL of a volume.
        name: of a volume of the run, or of a key in ``run.data``; the segmentation if omitted.

    Raises:
        NotFoundError: the run has no such volume. StageError: it is not finished. ConfigError: a
        name beside a volume.
    """
    place = location(what)
    if isinstance(place, Path):
        if (place / "run.yaml").is_file():
            return of_run(make_plan(load_settings(place / "run.yaml"), place.parent), name)
        if place.is_file():
            return of_run(make_plan(load_settings(place), runs), name)
    if name is not None:
        raise ConfigError(f"--volume names a volume of a run, {what} is none\nLeave it out.")
    return Volume.open(place)


def of_run(plan: Plan, name: str | None) -> Volume:
    """A finished volume of a run, or one of its inputs."""
    name = name or "segmentation"
    data = plan.settings.run.data
    written = {
        path.partition("/")[0]: step.stage
        for step in plan.steps
        for path in step.stage.output_specs()
        if path.endswith("/s0")
    }
    given: dict[str, Location] = {
        key: getattr(data, key) for key in INPUTS if getattr(data, key) is not None
    }
    if name in written:
        stage = written[name]
        if state_of(stage).state is not State.DONE:
            raise StageError(
                f"{name} is not finished, or out of date: {plan.run.root}\n"
                f"Make it first: pea run all, or pea run {stage.name}"
            )
        return Volume.open(plan.run.volume(name))
    if name in given:
        return Volume.open(given[name])
    raise NotFoundError(f"--volume must be one of {', '.join([*written, *given])}; found {name!r}")


def region_of(volume: Volume, text: str | None) -> Roi:
    """A region from ``Z:Z,Y:Y,X:X`` in nm; ends that are left out are those of the volume.

    Raises:
        ConfigError: not written so. RoiError: not whole voxels, empty, or not inside.
    """
    size, whole = volume.spec.voxel_size_nm, volume.roi
    parts = [part.split(":") for part in (text or ":,:,:").split(",")]
    if len(parts) != 3 or any(len(part) != 2 for part in parts):
        raise ConfigError(
            f"--roi must be Z:Z,Y:Y,X:X, each begin and end in nm or left out; found {text!r}"
        )
    places = []
    for end in (0, 1):
        limits = whole.end if end else whole.begin
        given = [
            part[end] or limit * side for part, limit, side in zip(parts, limits, size, strict=True)
        ]
        places.append(voxels(Nm.of(given), size, "--roi"))
    begin, end_vx = places
    roi = Roi(begin, [e - b for b, e in zip(begin, end_vx, strict=True)])
    if min(roi.shape) < 1 or not whole.contains(roi):
        raise RoiError(
            f"--roi must lie inside {volume.path}\nit is {begin} to {end_vx} in voxels\n"
            f"the volume has {describe(whole, size)}"
        )
    return roi
