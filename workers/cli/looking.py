"""Commands that show: pictures, the report, the viewer, shapes, other methods, the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigError
from pipeline.location import local
from workers.cli.options import Changes, RunFile, RunPlace, Runs, console, notes, planned
from workers.score_table import score_line

SegmentIds = Annotated[
    list[int] | None,
    typer.Argument(metavar="[ID ...]", min=1, help="Segments; without, the largest."),
]
Largest = Annotated[int, typer.Option(min=1, help="How many of the largest segments.")]
Level = Annotated[int, typer.Option(min=0, help="Of the pyramid; coarser ones are faster.")]


def report(
    run_file: Annotated[Path, typer.Argument(metavar="RUN", help="A run file or a run directory.")],
    changes: Changes = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write report.html again: scores, sections, the worst mistakes, curves, time, provenance."""
    from workers.report import write_report

    console.print(f"report: {write_report(planned(run_file, changes, runs))}")


def picture(
    run_file: RunFile,
    output: Annotated[Path, typer.Argument(metavar="OUT.png", help="The picture to write.")],
    changes: Changes = None,
    runs: Runs = Path("runs"),
) -> None:
    """Draw sections through a run: raw, affinities, fragments, segmentation, truth."""
    from pipeline.config import load_settings
    from pipeline.plan import make_plan
    from workers.picture import picture_of

    picture_of(make_plan(load_settings(run_file, changes or ()), runs), output)


def view(
    run_file: RunPlace,
    changes: Changes = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="To listen at, of this computer; 0: a free one.")
    ] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, and open nothing.")
    ] = False,
    link: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Serve nothing: print a link for others, who find the current folder at this URL.",
        ),
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Show a run in the browser, with Neuroglancer: all volumes, meshes and skeletons."""
    from workers.scene import Scene
    from workers.view import link as linked
    from workers.view import view as show

    scene = Scene.of_run(planned(run_file, changes, runs))
    for line in scene.remarks:
        notes.print(line)
    if link is not None:
        console.print(linked(scene, link))
        return
    show(scene, port, not no_browser, console)


def mesh(
    run_file: RunPlace,
    ids: SegmentIds = None,
    largest: Largest = 20,
    level: Level = 0,
    ply: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write PLY files too.", callback=local),
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Make meshes of segments, for `pea view` and other programs."""
    from workers.shapes import chosen, segments_of, write_meshes

    made = planned(run_file, None, runs)
    with segments_of(made, level, notes) as segments:
        wanted = chosen(segments, ids or (), largest)
        folder = write_meshes(made, segments, wanted, ply, notes)
    console.print(f"meshes: {len(wanted)}, in {folder}")


def skeleton(
    run_file: RunPlace,
    ids: SegmentIds = None,
    largest: Largest = 20,
    level: Level = 0,
    swc: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write SWC files too.", callback=local),
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Trace the centre lines of segments, for `pea view` and other programs."""
    from workers.shapes import chosen, segments_of, write_skeletons

    made = planned(run_file, None, runs)
    with segments_of(made, level, notes) as segments:
        wanted = chosen(segments, ids or (), largest)
        folder = write_skeletons(made, segments, wanted, swc, notes)
    console.print(f"skeletons: {len(wanted)}, in {folder}")


def reference(
    method: Annotated[
        str, typer.Argument(metavar="METHOD", help="waterz, waterz-median, mutex-watershed or lmc.")
    ],
    run_file: RunFile,
    changes: Changes = None,
    runs: Runs = Path("runs"),
) -> None:
    """Segment a run's affinities by a method that needs the whole volume in memory, to compare."""
    from pipeline.config import load_settings
    from pipeline.plan import make_plan
    from workers.reference import write_reference

    made = make_plan(load_settings(run_file, changes or ()), runs)
    found = write_reference(made, method, console)
    if "voi" in found:
        console.print(score_line(found))
    console.print(f"segmentation: {found['path']}")


def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put it.")] = Path("demo"),
    shape: Annotated[str, typer.Option(metavar="Z,Y,X", help="In voxels of 10 nm.")] = "64,320,320",
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another tissue.")] = 1,
) -> None:
    """Segment and score a piece of synthetic neuropil, and report on it."""
    from pipeline.geometry import ZYX
    from workers.demo import demo as show

    sides = shape.split(",")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ConfigError(f"--shape must be three positive numbers Z,Y,X, found {shape!r}")
    show(folder, ZYX.of(int(side) for side in sides), seed, console)
