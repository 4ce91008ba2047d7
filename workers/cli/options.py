"""What the commands have in common: where they speak, their arguments, what arguments mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from pipeline.location import local

if TYPE_CHECKING:
    from pipeline.plan import Plan

console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
notes = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

RunFile = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")]
RunPlace = Annotated[Path, typer.Argument(metavar="RUN", help="A run file or a run directory.")]
Changes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE ...]", help="Changes, as in run.name=x or machine.edges.workers=2."
    ),
]
MachineFile = Annotated[
    Path | None,
    typer.Option("--machine", help="A file whose machine section replaces the run's."),
]
RunnerName = Annotated[
    Literal["serial", "daisy", "dask"] | None,
    typer.Option(help="Instead of machine.runner."),
]
Runs = Annotated[
    Path, typer.Option("--runs", help="Where run directories are kept.", callback=local)
]
StageName = Annotated[
    str, typer.Argument(metavar="STAGE|all", help="A stage, as `pea plan` names it.")
]


def planned(run: Path, changes: list[str] | None, runs: Path, machine: Path | None = None) -> Plan:
    """The plan of a run file or of a run directory, which may have been renamed."""
    from pipeline.config import load_settings
    from pipeline.plan import make_plan

    words = list(changes or ())
    if run.is_dir():
        words.append(f"run.name={json.dumps(run.resolve().name)}")
        run = run.resolve()
    run, runs = file_of(run, runs)
    return make_plan(load_settings(run, words, machine), runs)


def file_of(run: Path, runs: Path) -> tuple[Path, Path]:
    """The run file of a run directory, and where such directories are kept."""
    return (run / "run.yaml", run.parent) if run.is_dir() else (run, runs)
