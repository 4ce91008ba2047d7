"""Training, with a line of progress."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from pipeline.config import Settings
from pipeline.rundir import RunDirectory
from pipeline.train.loop import Progress, train_network
from pipeline.train.state import TrainingState
from pipeline.train.task import open_task
from workers.devices import device_named
from workers.drive import locked, write_provenance
from workers.progress import progress_line


def train(settings: Settings, runs: Path, anew: bool, console: Console) -> TrainingState:
    """Train the network of a run, from where an earlier start ended.

    Raises:
        PipelineError: of the kind that fits; what was trained before stays.
    """
    where = RunDirectory(runs / settings.run.name)
    task = open_task(settings.run, where)
    device = device_named(task.train.device, task.train.precision)
    torch.set_num_threads(task.train.threads)
    with locked(where):
        write_provenance(settings, where, [task.identity])
        with progress_line(console, "train", 0, task.train.steps, "steps") as update:

            def show(progress: Progress) -> None:
                update(progress.step, 0)
                if progress.validated is not None:
                    scores = progress.validated.scores
                    console.print(
                        f"step {progress.step}: loss {progress.loss:.3f}, validation VOI "
                        f"{scores.voi:.3f} (split {scores.voi_split:.3f} + merge "
                        f"{scores.voi_merge:.3f}), ARAND {scores.arand:.3f}"
                    )

            return train_network(task, device, settings.machine.train_workers, show, anew)
