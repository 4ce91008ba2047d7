"""Commands that plan, run and watch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.errors import StageError
from workers.cli.options import (
    Changes,
    MachineFile,
    RunFile,
    RunnerName,
    RunPlace,
    Runs,
    StageName,
    console,
    notes,
    planned,
)
from workers.score_table import score_line


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


def run(
    stage: StageName,
    run_file: RunFile,
    changes: Changes = None,
    machine: MachineFile = None,
    runner: RunnerName = None,
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
        root = made.run.root
        console.print(f"next: pea view {root}, or pea export {root} segmentation.h5")


def tune(
    run_file: RunFile,
    changes: Changes = None,
    by: Annotated[
        Literal["voi", "arand"], typer.Option(help="The score that decides, lower is better.")
    ] = "voi",
    roi: Annotated[
        str | None,
        typer.Option(
            metavar="Z:Z,Y:Y,X:X",
            help="Begin and end in nm, instead of run.train.validation.roi.",
        ),
    ] = None,
    machine: MachineFile = None,
    runner: RunnerName = None,
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


def status(
    run_place: RunPlace,
    changes: Changes = None,
    machine: MachineFile = None,
    runs: Runs = Path("runs"),
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Read every file back and compare its checksum; damaged blocks are made again by "
            "`pea run`. Not while somebody is at work on the run.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how far a run is: what is done, who is at work, what failed and where its log is.

    Of a run directory nothing else is read: it may have been copied, and its inputs be gone. The
    exit status is 0 whether or not the run is complete.
    """
    from pipeline.rundir import RunDirectory
    from workers.lock import locked
    from workers.noted import NotedStage, noted_stages
    from workers.overview import verify_run
    from workers.status import RunStatus

    if run_place.is_dir() and not changes and machine is None:
        run = RunDirectory(run_place)
        stages = noted_stages(run)
    else:
        plan = planned(run_place, changes, runs, machine)
        run, stages = plan.run, [NotedStage.of(step.stage) for step in plan.steps]
    found = RunStatus.of(run, stages)
    if as_json:
        console.print(json.dumps(found.plain(), indent=2))
    for line in () if as_json else found.lines():
        console.print(line)
    if verify and run.root.exists():
        with locked(run):
            damaged = verify_run(run, stages, notes)
        if damaged:
            raise StageError("\n".join([*damaged, "`pea run` makes these blocks again."]))
        (notes if as_json else console).print("every file is as it was written")


def drop(
    stage: StageName,
    run_file: RunFile,
    changes: Changes = None,
    runs: Runs = Path("runs"),
) -> None:
    """Delete what a stage wrote, and what was made from it."""
    from pipeline.config import load_settings
    from pipeline.plan import make_plan
    from workers.drive import drop as forget
    from workers.lock import locked

    made = make_plan(load_settings(run_file, changes or ()), runs)
    names = [step.stage.name for step in made.select(stage)]
    with locked(made.run):
        for name in forget(made, names):
            console.print(f"dropped {name}")


def settings(
    key: Annotated[
        str, typer.Argument(metavar="[KEY]", help="Of a run file, as run.predict; all if omitted.")
    ] = "",
) -> None:
    """Say what may stand in a run file: every key, its default and what it means."""
    from pipeline.config.explain import explained
    from workers.settings_list import settings_lines

    for line in settings_lines(explained(key)):
        console.print(line)
