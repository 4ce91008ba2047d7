"""One clear line per piece of work: a bar in a terminal, plain lines now and then anywhere else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from workers.quantities import duration, rate
from workers.runner import Progress as Update

FIRST_LINE_S, MOST_S, GROWTH = 5.0, 60.0, 1.5
"""The first plain line comes soon, then each later than the one before, up to once a minute."""


@contextmanager
def progress_line(
    console: Console, name: str, before: int, total: int, unit: str = "blocks"
) -> Iterator[Update]:
    """Show a piece of work.

    Args:
        before: units done earlier, counted as done from the start.

    Yields:
        A function to call with the units done and failed since, and a remark if there is one.
    """
    show = _bar if can_redraw(console) else _lines
    with show(console, name, before, total, unit) as update:
        yield update


def can_redraw(console: Console) -> bool:
    """Whether lines can be drawn over: a terminal, whatever FORCE_COLOR and the like say.

    Some CI services give a terminal to what nobody watches, and set CI.
    """
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        return False
    return console.file.isatty() and console.is_terminal and not console.is_dumb_terminal


class RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(rate(task.speed, task.fields["unit"]) if task.speed else "")


@contextmanager
def _bar(console: Console, name: str, before: int, total: int, unit: str) -> Iterator[Update]:
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TextColumn(unit),
        TaskProgressColumn(),
        RateColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
        TextColumn("{task.fields[remark]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # It vanishes at the end: what came of the work is said in a line of its own.
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(name, total=total, completed=before, failed="", remark="", unit=unit)
        yield lambda done, failed, remark="": bars.update(
            bar,
            completed=before + done,
            failed=f"{failed} failed" if failed else "",
            remark=remark,
        )


@dataclass
class _Plain:
    """What a plain line says."""

    name: str
    before: int
    total: int
    unit: str
    done: int = 0
    failed: int = 0
    remark: str = ""
    started: float = field(default_factory=time.monotonic)

    def update(self, done: int, failed: int, remark: str = "") -> None:
        self.done, self.failed, self.remark = done, failed, remark

    def __str__(self) -> str:
        passed, ready = time.monotonic() - self.started, self.before + self.done
        parts = [f"{self.name}: {ready}/{self.total} {self.unit}"]
        if self.unit != "%":
            parts[0] += f" ({100 * ready // max(self.total, 1)} %)"
        # The first units also start processes and compile loops: too early for an estimate.
        if self.done > 2:
            speed = self.done / passed
            parts.append(rate(speed, self.unit))
            parts.append(f"{duration((self.total - ready) / speed)} left")
        else:
            parts.append(f"{duration(passed)} passed")
        if self.failed:
            parts.append(f"{self.failed} failed")
        return ", ".join([*parts, self.remark] if self.remark else parts)


@contextmanager
def _lines(console: Console, name: str, before: int, total: int, unit: str) -> Iterator[Update]:
    plain, ended = _Plain(name, before, total, unit), Event()

    def tell() -> None:
        wait = FIRST_LINE_S
        while not ended.wait(wait):
            console.print(str(plain), soft_wrap=True, highlight=False, markup=False)
            wait = min(wait * GROWTH, MOST_S)

    # A thread, since nothing may be done for long: a reader wants to know that it goes on.
    teller = Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield plain.update
    finally:
        ended.set()
        teller.join()
