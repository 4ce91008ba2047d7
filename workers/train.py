"""Training, with a line of progress."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from pipeline.config import Settings
from pipeline.rundir import RunDirectory
from pipeline.train.loop import Progress, train_network
from pipeline.train.state import TrainingState, steps_done
from pipeline.train.task import open_task
from workers.devices import device_named
from workers.drive import write_provenance
from workers.lock import locked
from workers.progress import progress_line

SMOOTHING = 0.05
"""Share of a new step in the loss that is shown."""


def train(settings: Settings, runs: Path, anew: bool, console: Console) -> TrainingState:
    """Train the network of a run, from where an earlier start ended.

    Args:
        anew: forget what was trained.

    Raises:
        PipelineError: of the kind that fits; what was trained before stays.
    """
    where = RunDirectory(runs / settings.run.name)
    task = open_task(settings.run, where)
    device = device_named(task.train.device, task.train.precision)
    torch.set_num_threads(task.train.threads)
    with locked(where):
        write_provenance(settings, where, [task.identity])
        before = 0 if anew else steps_done(where.training_state)
        loss: float | None = None
        with progress_line(console, "train", before, task.train.steps, "steps") as update:

            def show(now: Progress) -> bool:
                nonlocal loss
                loss = now.loss if loss is None else loss + SMOOTHING * (now.loss - loss)
                update(now.step - before, 0, f"loss {loss:.3f}")
                if now.validated is not None:
                    scores = now.validated.scores
                    console.print(
                        f"step {now.step}: loss {loss:.3f}, validation VOI {scores.voi:.3f} "
                        f"(split {scores.voi_split:.3f} + merge {scores.voi_merge:.3f}), "
                        f"ARAND {scores.arand:.3f} at {now.validated.threshold:g}"
                    )
                return bool(asked)

            with stop_asked() as asked:
                state = train_network(task, device, settings.machine.train_workers, show, anew)
        if asked:
            raise KeyboardInterrupt
        return state


@contextmanager
def stop_asked() -> Iterator[list[int]]:
    """Signals that ask to stop, Ctrl-C and that of a cluster's scheduler, as they come.

    The second Ctrl-C does not wait for the end of the step.
    """
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
