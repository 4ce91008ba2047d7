"""The command ``pea``."""

from __future__ import annotations

import json
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer
from rich.console import Console

from pipeline.errors import ConfigError, PipelineError, StageError
from pipeline.location import local
from workers.interrupt import interrupts_kept
from workers.score_table import convention_lines, object_lines, score_line

app = typer.Typer(
    name="pea",
    help="Turn electron microscopy into a segmentation of its neurons, and score it.",
    epilog="--debug anywhere on the line shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
notes = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

USAGE_ERROR: Any = typer.BadParameter.__mro__[2]
"""click's ``ClickException``, or the copy of it that newer typers carry."""
INTERRUPTED = 130
MAX_BORDER_NM = 1000
"""As ``run.evaluate.border_nm``."""

RunFile = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")]
Changes = Annotated[
    Optional[list[str]],
    typer.Argument(
        metavar="[KEY=VALUE ...]", help="Changes, as in run.name=x or machine.edges.workers=2."
    ),
]
MachineFile = Annotated[
    Optional[Path],
    typer.Option("--machine", help="A file whose machine section replaces the run's."),
]
Runs = Annotated[
    Path, typer.Option("--runs", help="Where run directories are kept.", callback=local)
]
RunPlace = Annotated[Path, typer.Argument(metavar="RUN", help="A run file or a run directory.")]
SegmentIds = Annotated[
    Optional[list[int]],
    typer.Argument(metavar="[ID ...]", min=1, help="Segments; without, the largest."),
]
Largest = Annotated[int, typer.Option(min=1, help="How many of the largest segments.")]
Level = Annotated[int, typer.Option(min=0, help="Of the pyramid; coarser ones are faster.")]


def show_versions(asked: bool) -> None:
    if asked:
        from workers.versions import version_lines

        for line in version_lines():
            console.print(line)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the versions that matter.",
            callback=show_versions,
            is_eager=True,
        ),
    ] = False,
) -> None:
    pass


@app.command()
def plan(
    run_file: RunFile,
    changes: Changes = None,
    machine: MachineFile = None,
    runs: Runs = Path("runs"),
) -> None:
    """Say what a run would do: stages, blocks, bytes, memory, and what is done or out of date."""
    from pipeline.config import load_settings
    from pipeline.plan import make_plan
    from workers.overview import describe_plan

    for line in describe_plan(make_plan(load_settings(run_file, changes or (), machine), runs)):
        console.print(line)


@app.command()
def train(
    run_file: RunFile,
    changes: Changes = None,
    machine: MachineFile = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Begin anew, and forget what was trained.")
    ] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Train the network of a run; go on where an earlier training was stopped."""
    from pipeline.config import load_settings
    from workers.train import train as train_run

    state = train_run(load_settings(run_file, changes or (), machine), runs, rerun, console)
    console.print(f"{state.step} steps in {state.seconds / 3600:.2f} hours")
    if state.best:
        console.print(
            f"best: step {state.best['step']}, validation VOI {state.best['voi']:.4f}, "
            f"ARAND {state.best['arand']:.4f}"
        )


@app.command()
def run(
    stage: Annotated[
        str, typer.Argument(metavar="STAGE|all", help="A stage, as `pea plan` names it.")
    ],
    run_file: RunFile,
    changes: Changes = None,
    machine: MachineFile = None,
    runner: Annotated[
        Optional[Literal["serial", "daisy", "dask"]],
        typer.Option(help="Instead of machine.runner."),
    ] = None,
    rerun: Annotated[
        bool,
        typer.Option(
            "--rerun",
            help="Do again the named STAGE and what is out of date, with all that depends on them.",
        ),
    ] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Bring a stage, or all of them, up to date; start again where an earlier run was stopped."""
    from pipeline.config import load_settings
    from pipeline.plan import make_plan
    from workers.drive import drive, stale
    from workers.runners import runner_named

    settings = load_settings(run_file, changes or (), machine)
    made = make_plan(settings, runs)
    steps = made.select(stage)
    again: list[str] = []
    if rerun:
        named = [] if stage == "all" else [step.stage.name for step in steps]
        again = [*stale(made), *named]
        if not again:
            notes.print(
                "Nothing is out of date. To do a stage again, name it: pea run STAGE --rerun"
            )
    with runner_named(runner or settings.machine.runner, settings.machine, made.run) as chosen:
        drive(made, steps, chosen, again, console)
    if made.run.scores.exists() and stage in ("all", "evaluate"):
        console.print(score_line(json.loads(made.run.scores.read_text())))
        console.print(f"scores of every threshold: {made.run.scores}")
    if stage == "all":
        from workers.report import report_or_warning

        report_or_warning(made, console)


@app.command()
def tune(
    run_file: RunFile,
    changes: Changes = None,
    by: Annotated[
        Literal["voi", "arand"], typer.Option(help="The score that decides, lower is better.")
    ] = "voi",
    roi: Annotated[
        Optional[str],
        typer.Option(
            metavar="Z:Z,Y:Y,X:X",
            help="Begin and end in nm, instead of run.train.validation.roi.",
        ),
    ] = None,
    machine: MachineFile = None,
    runner: Annotated[
        Optional[Literal["serial", "daisy", "dask"]],
        typer.Option(help="Instead of machine.runner."),
    ] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Do again what is out of date, as for another region.")
    ] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Find settings of fragments and agglomeration on the validation region, for a new run file."""
    from pipeline.config import load_settings
    from workers.landscape_table import landscape_lines
    from workers.runners import runner_named
    from workers.tune import next_line
    from workers.tune import tune as search

    settings = load_settings(run_file, changes or (), machine)

    def runner_in(where):  # type: ignore[no-untyped-def]
        return runner_named(runner or settings.machine.runner, settings.machine, where)

    tuned = search(settings, runs, runner_in, console, by, roi, rerun)
    for line in landscape_lines(tuned.best, by):
        console.print(line)
    console.print(f"all scores: {tuned.scores}\npicture: {tuned.picture}")
    console.print(f"next: {next_line(tuned, runs)}")


@app.command()
def status(
    run_file: Annotated[Path, typer.Argument(metavar="RUN", help="A run file or a run directory.")],
    changes: Changes = None,
    machine: MachineFile = None,
    runs: Runs = Path("runs"),
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Read every file that was written, and compare its checksum."
        ),
    ] = False,
) -> None:
    """Say how far a run is, from its directory: blocks done, failures and their logs."""
    from pipeline.config import load_settings
    from pipeline.plan import make_plan
    from workers.drive import locked
    from workers.overview import describe_status, verify_run

    if run_file.is_dir():
        run_file, runs = run_file / "run.yaml", run_file.parent
    made = make_plan(load_settings(run_file, changes or (), machine), runs)
    for line in describe_status(made):
        console.print(line)
    if verify and made.run.root.exists():
        with locked(made.run):
            damaged = verify_run(made, notes)
        if damaged:
            raise StageError("\n".join([*damaged, "`pea run` makes these blocks again."]))
        console.print("every file is as it was written")


@app.command()
def ingest(
    source: Annotated[
        str,
        typer.Argument(
            help="HDF5, TIFF, a folder of TIFF or PNG; Zarr, N5 or Neuroglancer precomputed, also "
            "their URL: s3://, gs://, http(s)://."
        ),
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DEST.zarr/NAME", help="The volume to make.")
    ],
    dataset: Annotated[
        Optional[str],
        typer.Option(help="Which array of HDF5, Zarr or N5; which scale of precomputed."),
    ] = None,
    kind: Annotated[
        Optional[Literal["raw", "labels", "mask", "affinities", "boundary", "interior"]],
        typer.Option(
            "--as", help="What the values are. Boundary and interior maps become affinities."
        ),
    ] = None,
    voxel_size: Annotated[
        Optional[str], typer.Option(metavar="Z,Y,X", help="Of the source, in nm.")
    ] = None,
    offset: Annotated[
        Optional[str], typer.Option(metavar="Z,Y,X", help="Of the first plane taken, in nm.")
    ] = None,
    planes: Annotated[
        Optional[str],
        typer.Option(
            metavar="START:STOP:STEP",
            help="Some planes only, as 0:100; every third is 0::3, and makes voxels thicker.",
        ),
    ] = None,
    background: Annotated[
        Optional[list[str]], typer.Option(metavar="ID", help="Label to map to 0; may be repeated.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Bring a volume of your own into Zarr, with its voxel size."""
    from pipeline.ingest import Planes
    from pipeline.ingest import ingest as bring_in
    from pipeline.location import location
    from workers.progress import progress_line
    from workers.runner import Progress

    with ExitStack() as shown:
        update: list[Progress] = []

        def progress(done: int, total: int) -> None:
            if not update:
                line = progress_line(notes, "ingest", 0, total, "planes")
                update.append(shown.enter_context(line))
            update[0](done, 0)

        report = bring_in(
            location(source),
            destination,
            dataset=dataset,
            kind=kind,
            voxel_size=lengths(voxel_size, "--voxel-size"),
            offset=lengths(offset, "--offset"),
            background=[label(text) for text in background or ()],
            planes=Planes() if planes is None else Planes.of(planes),
            overwrite=overwrite,
            progress=progress,
        )
    for line in report.lines():
        console.print(line)


@app.command()
def export(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|VOLUME", help="A run file or run directory, or a Zarr volume or its URL."
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The file or folder to write.")],
    volume: Annotated[
        Optional[str],
        typer.Option(help="Of a run: fragments, affinities, raw, ...; segmentation if omitted."),
    ] = None,
    form: Annotated[
        Optional[Literal["cremi", "snemi3d", "tiff", "sections", "precomputed", "n5"]],
        typer.Option("--format", help="Instead of what OUT's suffix tells; .h5 is cremi."),
    ] = None,
    roi: Annotated[
        Optional[str], typer.Option(metavar="Z:Z,Y:Y,X:X", help="A part: begin and end in nm.")
    ] = None,
    dtype: Annotated[
        Optional[Literal["uint16", "uint32", "uint64"]], typer.Option(help="Of labels.")
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Number labels 1, 2, ... in the order of their ids.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Write a volume for another program: HDF5, TIFF, N5, Neuroglancer precomputed."""
    from pipeline.export import export as write_out
    from pipeline.export import format_of
    from workers.export import named_volume, region_of
    from workers.progress import progress_line

    chosen = format_of(output, form)
    found = named_volume(what, volume, runs)
    region = region_of(found, roi)
    with progress_line(notes, "export", 0, 100, "%") as line:
        cut = write_out(
            found,
            output,
            chosen,
            roi=region,
            dtype=dtype,
            dense=dense,
            overwrite=overwrite,
            progress=lambda done, total: line(100 * done // total, 0),
        )
    console.print(
        f"wrote {output}, as {chosen}: {cut.meaning}, shape {cut.shape}, {cut.dtype}, "
        f"voxel size {cut.voxel_size_nm} nm, offset {cut.offset_nm} nm"
    )
    if chosen in ("tiff", "sections") and any(cut.offset_nm):
        console.print("TIFF holds no offset: to ingest it again, give this one as --offset")


@app.command()
def evaluate(
    segmentation: Annotated[Path, typer.Argument(metavar="SEG", help="A Zarr array of labels.")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Another; 0 is unknown.")],
    border: Annotated[
        float,
        typer.Option(
            metavar="NM", help="Leave out voxels that near to another true object in their section."
        ),
    ] = 0.0,
    objects: Annotated[
        bool, typer.Option("--objects", help="Say where the worst splits and merges are.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: all conventions defined, the worst objects.")
    ] = False,
    workers: Annotated[
        Optional[int],
        typer.Option(min=1, help="Processes that count large volumes; the CPUs at hand."),
    ] = None,
) -> None:
    """Score a segmentation by several conventions; the first is scikit-image, truth 0 ignored."""
    from workers.score import cpus_at_hand, score_volumes

    if not 0 <= border <= MAX_BORDER_NM:
        raise ConfigError(f"--border must be 0 to {MAX_BORDER_NM} nm, found {border:g}")
    scores = score_volumes(segmentation, truth, border, workers or cpus_at_hand(), notes)
    if as_json:
        console.print(json.dumps(scores, indent=2))
        return
    console.print(score_line(scores))
    for line in convention_lines(scores["conventions"]):
        console.print(line)
    for line in object_lines(scores) if objects else ():
        console.print(line)


@app.command()
def report(
    run_file: Annotated[Path, typer.Argument(metavar="RUN", help="A run file or a run directory.")],
    changes: Changes = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write report.html again: scores, sections, the worst mistakes, curves, time, provenance."""
    from workers.report import write_report

    console.print(f"report: {write_report(planned(run_file, changes, runs))}")


@app.command()
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


@app.command()
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
        Optional[str],
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


@app.command()
def mesh(
    run_file: RunPlace,
    ids: SegmentIds = None,
    largest: Largest = 20,
    level: Level = 0,
    ply: Annotated[
        Optional[Path],
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


@app.command()
def skeleton(
    run_file: RunPlace,
    ids: SegmentIds = None,
    largest: Largest = 20,
    level: Level = 0,
    swc: Annotated[
        Optional[Path],
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


@app.command()
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


@app.command()
def drop(
    stage: Annotated[
        str, typer.Argument(metavar="STAGE|all", help="A stage, as `pea plan` names it.")
    ],
    run_file: RunFile,
    changes: Changes = None,
    runs: Runs = Path("runs"),
) -> None:
    """Delete what a stage wrote, and what was made from it."""
    from pipeline.config import load_settings
    from pipeline.plan import make_plan
    from workers.drive import drop as forget
    from workers.drive import locked

    made = make_plan(load_settings(run_file, changes or ()), runs)
    names = [step.stage.name for step in made.select(stage)]
    with locked(made.run):
        for name in forget(made, names):
            console.print(f"dropped {name}")


@app.command()
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


def planned(run: Path, changes: list[str] | None, runs: Path):  # type: ignore[no-untyped-def]
    """The plan of a run file or of a run directory."""
    from pipeline.config import load_settings
    from pipeline.plan import make_plan

    if run.is_dir():
        run, runs = run / "run.yaml", run.parent
    return make_plan(load_settings(run, changes or ()), runs)


def lengths(text: str | None, option: str):  # type: ignore[no-untyped-def]
    """Three lengths from ``Z,Y,X``."""
    from pipeline.geometry import Nm

    if text is None:
        return None
    try:
        return Nm.of(text.split(","))
    except PipelineError as error:
        raise ConfigError(f"{option}: {error}") from None


def label(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**64:
        raise ConfigError(f"--background must be a label from 0 to 2^64 - 1, found {text!r}")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line.

    Returns:
        The exit status: 0 all done, 1 an error or an incomplete stage, 2 a misspelt command line,
        130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with interrupts_kept():
            status = int(app(words, prog_name="pea", standalone_mode=False) or 0)
    except (PipelineError, OSError, MemoryError) as error:
        if debug:
            traceback.print_exc()
        kind = "" if isinstance(error, PipelineError) else f"{type(error).__name__}: "
        notes.print(f"error: {kind}{error}")
        return 1
    except USAGE_ERROR as error:
        error.show()
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    if status == INTERRUPTED:
        notes.print("interrupted; the same command goes on from here")
    return status


def entry() -> None:
    """The console script."""
    sys.exit(main())
