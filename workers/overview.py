"""What `pea plan` and `pea status` say of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from rich.console import Console

from pipeline.plan import Plan, Step
from workers.block import failures
from workers.progress import progress_line
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


def describe_status(plan: Plan) -> Iterator[str]:
    """A line per stage, with its failed blocks and where their logs are."""
    yield f"{plan.run.root}"
    for step in plan.steps:
        stage, state = step.stage, state_of(step.stage)
        notes = plan.run.completion(stage.identity) or {}
        time = f", {notes['seconds']:.1f} s" if notes else ""
        masked = f", {notes['masked']} outside the mask" if notes.get("masked") else ""
        yield (
            f"{stage.name:<24}{state.state.value:<12}"
            f"{blocks_done(step, state)}/{len(stage.grid)} blocks{masked}{time}"
        )
        for change in state.changes:
            yield f"    {change}"
        if state.state is State.DONE:
            continue
        for index, entry in sorted(failures(plan.run.logs(stage.name)).items()):
            if index not in state.records:
                error = str(entry["error"]).splitlines()[0]
                yield f"    block {index}, voxels {entry['voxels']} failed: {error}"
                yield f"    log: {entry['log']}"


def blocks_done(step: Step, state: StageState) -> int:
    return len(step.stage.grid) if state.state is State.DONE else len(state.records)


def verify_run(plan: Plan, console: Console) -> list[str]:
    """Compare every file with its checksum, and forget the blocks whose files differ.

    Returns:
        A line for each damaged block.
    """
    damaged = []
    for step in plan.steps:
        run, identity = plan.run, step.stage.identity
        complete = run.completion(identity)
        layout = complete["layout"] if complete else step.stage.grid.name
        records = run.records(identity, layout)
        bad = []
        with progress_line(console, f"verify {step.stage.name}", 0, len(records)) as progress:
            for count, (index, record) in enumerate(records.items(), start=1):
                if not run.intact(record, whole=True):
                    bad.append(index)
                progress(count, len(bad))
        lost = [path for path in step.stage.results() if complete and not path.exists()]
        if bad or lost:
            run.forget_blocks(identity, layout, bad)
            damaged += [f"{step.stage.name}: block {index} is damaged or gone" for index in bad]
            damaged += [f"{step.stage.name}: {path} is gone" for path in lost]
    return damaged


def size(count: float) -> str:
    """Bytes as a person would say them."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"
