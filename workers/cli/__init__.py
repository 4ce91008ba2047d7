"""The command ``pea``."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated, Any

import typer

from pipeline.errors import PipelineError
from workers.cli import looking, runs, volumes
from workers.cli.options import console as console
from workers.cli.options import notes as notes
from workers.interrupt import interrupts_kept

app = typer.Typer(
    name="pea",
    help="Turn electron microscopy into a segmentation of its neurons, and score it.",
    epilog="--debug anywhere on the line shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
USAGE_ERROR: Any = typer.BadParameter.__mro__[2]
"""click's ``ClickException``, or the copy of it that newer typers carry."""
INTERRUPTED = 130


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


for command in (
    looking.demo,
    volumes.ingest,
    runs.settings,
    runs.plan,
    runs.train,
    runs.run,
    runs.status,
    runs.tune,
    runs.drop,
    looking.report,
    looking.picture,
    looking.view,
    looking.mesh,
    looking.skeleton,
    volumes.export,
    volumes.evaluate,
    looking.reference,
):
    app.command()(command)


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
