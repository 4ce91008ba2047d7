"""Meshes and skeletons of segments of a run, where `pea view` looks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from pipeline.errors import DataError, NotFoundError
from pipeline.location import needed
from pipeline.morphology import precomputed
from pipeline.morphology.exchange import write_ply, write_swc
from pipeline.morphology.segments import Segments
from pipeline.morphology.skeleton import skeleton
from pipeline.morphology.surface import simplified, surface
from pipeline.plan import Plan
from pipeline.rundir import RunDirectory
from pipeline.volume import Volume
from workers.lock import locked
from workers.progress import progress_line
from workers.state import State, state_of

SHOWN_MISSING = 5
"""Ids named in a message."""


@contextmanager
def segments_of(plan: Plan, level: int, console: Console) -> Iterator[Segments]:
    """The segments of a level of a run, which nobody changes meanwhile.

    Raises:
        NotFoundError: no such level, or it is not finished; DataError: nothing but background;
        ExistsError: another process is at work on the run.
    """
    makers = {name: step.stage for step in plan.steps for name in step.stage.output_specs()}
    maker = makers.get(f"segmentation/s{level}")
    if maker is None:
        count = sum(name.startswith("segmentation/") for name in makers)
        raise NotFoundError(
            f"--level must be 0 to {count - 1} in this run, found {level}: {plan.run.root}"
        )
    if state_of(maker).state is not State.DONE:
        raise NotFoundError(
            f"{maker.name} is not finished, or out of date: {plan.run.root}\n"
            "Make the segmentation first: pea run all"
        )
    with locked(plan.run):
        volume = Volume.open(plan.run.volume("segmentation"), level)
        with progress_line(console, "segments", 0, 100, "%") as line:
            found = Segments.of(volume, progress=lambda done, total: line(100 * done // total, 0))
        if not len(found.extents.segment):
            raise DataError(f"there is no segment in {volume.path}, only background")
        yield found


def chosen(segments: Segments, ids: Sequence[int], largest: int) -> list[int]:
    """The ids named, or if none is the largest segments.

    Raises:
        NotFoundError: there is no such segment.
    """
    missing = sorted(set(ids) - set(segments.extents.sizes()[0].tolist()))
    if missing:
        shown = ", ".join(str(segment) for segment in missing[:SHOWN_MISSING])
        more = ", ..." if len(missing) > SHOWN_MISSING else ""
        raise NotFoundError(
            f"no such segments in {segments.volume.path}: {shown}{more}\n"
            "`pea view` shows the ids where you point; 0 is background."
        )
    return sorted(set(ids)) or segments.extents.largest(largest)


def write_meshes(
    plan: Plan, segments: Segments, ids: Sequence[int], ply: Path | None, console: Console
) -> Path:
    """Mesh segments, simplify them, and write them below the run directory.

    Args:
        ply: a folder for PLY files of the same meshes.

    Returns:
        The folder in Neuroglancer's format.

    Raises:
        ConfigError: the library that simplifies is not installed.
    """
    needed("fast_simplification", "meshes", "view")
    folder = plan.run.meshes
    precomputed.begin(folder, precomputed.MESHES, segmentation_of(plan.run))
    with progress_line(console, "meshes", 0, len(ids), "segments") as progress:
        for done, segment in enumerate(ids, start=1):
            mesh = simplified(surface(segments, segment))
            precomputed.write_mesh(folder, segment, mesh)
            if ply is not None:
                write_ply(ply / f"{segment}.ply", mesh)
            progress(done, 0)
    return folder


def write_skeletons(
    plan: Plan, segments: Segments, ids: Sequence[int], swc: Path | None, console: Console
) -> Path:
    """Trace the skeletons of segments, and write them below the run directory.

    Args:
        swc: a folder for SWC files of the same skeletons.

    Returns:
        The folder in Neuroglancer's format.

    Raises:
        LayoutError: a segment is too large for its level.
    """
    folder = plan.run.skeletons
    precomputed.begin(folder, precomputed.SKELETONS, segmentation_of(plan.run))
    with progress_line(console, "skeletons", 0, len(ids), "segments") as progress:
        for done, segment in enumerate(ids, start=1):
            traced = skeleton(segments, segment)
            precomputed.write_skeleton(folder, segment, traced)
            if swc is not None:
                write_swc(swc / f"{segment}.swc", traced)
            progress(done, 0)
    return folder


def segmentation_of(run: RunDirectory) -> str | None:
    """The fingerprint of the segmentation that a run has, None if it has none."""
    place = run.volume("segmentation")
    return Volume.open(place).attributes.get("fingerprint") if place.exists() else None
