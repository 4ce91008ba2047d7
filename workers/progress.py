"""One clear line per stage: a bar in a terminal, now and then a plain line anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from workers.runner import Progress as Update

SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress_line(
    console: Console, name: str, before: int, total: int, unit: str = "blocks"
) -> Iterator[Update]:
    """Show the work of one stage.

    Args:
        before: units done earlier, counted as done from the start.

    Yields:
        A function to call with the units done and failed since, and a remark if there is one.
    """
    if console.is_terminal:
        columns = (
            TextColumn("{task.description:<26}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[failed]}", style="red"),
            TextColumn("{task.fields[remark]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bars:
            bar = bars.add_task(name, total=total, completed=before, failed="", remark="")
            yield lambda done, failed, remark="": bars.update(
                bar,
                completed=before + done,
                failed=f"{failed} failed" if failed else "",
                remark=remark,
            )
        return
    started = last = time.monotonic()

    def line(done: int, failed: int, remark: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        left = (now - started) / max(done, 1) * (total - before - done)
        # The first units also start processes and compile loops: too early for an estimate.
        estimate = f", {left:.0f} s left" if done > 2 else ""
        bad = f", {failed} failed" if failed else ""
        said = f", {remark}" if remark else ""
        console.print(
            f"{name}: {before + done}/{total} {unit}{bad}{said}{estimate}", soft_wrap=True
        )

    yield line
