"""What `pea plan` says of a run, and whether its files are as they were written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from rich.console import Console

from pipeline.plan import Plan, Step
from pipeline.rundir import RunDirectory
from workers.noted import NotedStage
from workers.progress import progress_line
from workers.quantities import size
from workers.state import StageState, State, state_of

COLUMNS = "{:<24}{:<12}{:>14}{:>9}{:>11}{:>16}"


def describe_plan(plan: Plan) -> Iterator[str]:
    """A line per stage: state, blocks, workers, memory of each, bytes written uncompressed."""
    yield f"{plan.run.root}"
    yield COLUMNS.format("stage", "state", "blocks done", "workers", "GB each", "writes up to")
    total = 0
    for step in plan.steps:
        stage, state = step.stage, state_of(step.stage)
        written = sum(
            math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
            for spec in stage.output_specs().values()
        )
        total += written
        yield COLUMNS.format(
            stage.name,
            state.state.value,
            f"{blocks_done(step, state)}/{len(stage.grid)}",
            min(step.workers.workers, len(stage.grid)),
            f"{stage.memory_bytes / 1e9:.2f}",
            size(written) if written else "tables",
        )
        for remark in stage.remarks():
            yield f"    {remark}"
        for change in state.changes:
            yield f"    {change}"
    yield f"volumes: {size(total)} before compression; labels usually shrink 15 to 90 times"


def blocks_done(step: Step, state: StageState) -> int:
    return len(step.stage.grid) if state.state is State.DONE else len(state.records)


def verify_run(run: RunDirectory, stages: Iterable[NotedStage], console: Console) -> list[str]:
    """Compare every file with its checksum, and forget the blocks whose files differ.

    Returns:
        A line for each damaged block.
    """
    damaged = []
    for stage in stages:
        identity, complete = stage.identity, run.completion(stage.identity)
        layout = complete["layout"] if complete else stage.layout
        records = run.records(identity, layout)
        bad = []
        with progress_line(console, f"verify {stage.name}", 0, len(records)) as progress:
            for count, (index, record) in enumerate(records.items(), start=1):
                if not run.intact(record, whole=True):
                    bad.append(index)
                progress(count, len(bad))
        paths = (run.root / path for path in stage.outputs)
        lost = [path for path in paths if complete and not path.exists()]
        if bad or lost:
            run.forget_blocks(identity, layout, bad)
            damaged += [f"{stage.name}: block {index} is damaged or gone" for index in bad]
            damaged += [f"{stage.name}: {path} is gone" for path in lost]
    return damaged
