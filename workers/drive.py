"""Runs the stages of a plan one after the other, and says what came of each."""

from __future__ import annotations

import json
import platform
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Console

from pipeline.config import Settings, dump_settings
from pipeline.errors import ConfigError, PipelineError, StageError
from pipeline.extensions import extension_versions
from pipeline.plan import Plan, Step
from pipeline.rundir import Identity, RunDirectory, write_json
from pipeline.stages.stage import Stage
from pipeline.tables import replacing
from workers.block import FAILURES, broken_off, events, failures
from workers.checkout import commit
from workers.interrupt import heed
from workers.lock import locked
from workers.noted import NotedStage, note_stages
from workers.progress import progress_line
from workers.quantities import duration, rate, size
from workers.runner import Runner
from workers.state import StageReport, State, state_of
from workers.versions import version_of

DISTRIBUTIONS = (
    "pea-connectomics",
    "numpy",
    "scipy",
    "numba",
    "zarr",
    "numcodecs",
    "daisy",
    "distributed",
    "torch",
    "gunpowder",
    "waterz",
)


def drive(
    plan: Plan, steps: Sequence[Step], runner: Runner, rerun: Sequence[str], console: Console
) -> list[StageReport]:
    """Bring stages up to date.

    A stage with a failed block stops those that need it; the others go on.

    Args:
        steps: what to bring up to date, in order.
        rerun: stages to do again from the start, with what depends on them.

    Returns:
        A report for each stage that was started.

    Raises:
        ConfigError: a stage was made by other settings, or needs one that is not done; nothing was
        started. StageError: a stage ended without all of its blocks. Another PipelineError: all
        blocks of a stage are done, and what they should add up to cannot be.
    """
    with locked(plan.run):
        finish_dropping(plan)
        if not rerun:
            refuse_stale(steps)
        refuse_unready(plan, steps)
        drop(plan, rerun)
        for step in steps:
            if state_of(step.stage).state is not State.DONE:
                step.stage.refuse_foreign_outputs()
        write_provenance(plan.settings, plan.run, (s.stage.identity for s in plan.steps))
        note_stages(plan.run, (step.stage for step in plan.steps))
        reports: list[StageReport] = []
        errors: list[PipelineError] = []
        broken: set[str] = set()
        for step in steps:
            heed()
            needs = {identity.stage for identity in step.stage.upstream}
            if needs & broken:
                broken.add(step.stage.name)
                console.print(
                    f"{step.stage.name}: not started, it needs {', '.join(sorted(needs & broken))}"
                )
                continue
            try:
                report = run_stage(step, runner, console)
            except PipelineError as error:
                errors.append(error)
                broken.add(step.stage.name)
                continue
            if report is None:
                continue
            reports.append(report)
            if not report.ok:
                errors.append(StageError(explain(plan, report)))
                broken.add(step.stage.name)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise StageError("\n".join(str(error) for error in errors))
        return reports


def run_stage(step: Step, runner: Runner, console: Console) -> StageReport | None:
    """Do what is left of a stage; None if that is nothing."""
    stage = step.stage
    run, identity, grid = stage.run, stage.identity, stage.grid
    state = state_of(stage)
    if state.state is State.DONE:
        console.print(f"{stage.name}: done before")
        return None
    started = time.monotonic()
    run.begin(identity, grid.name)
    (run.logs(stage.name) / FAILURES).unlink(missing_ok=True)
    stage.prepare()
    lost = {index for index, record in state.records.items() if not run.intact(record)}
    if lost:
        run.forget_blocks(identity, grid.name, lost)
    before = (state.records.keys() - lost) & set(range(len(grid)))
    todo = [index for index in range(len(grid)) if index not in before]
    given_up = None
    if todo:
        with progress_line(console, stage.name, len(before), len(grid)) as progress:
            given_up = runner.run(stage, todo, step.workers, progress)
    records = run.records(identity, grid.name)
    done = before | (records.keys() & set(todo))
    report = StageReport(
        name=stage.name,
        total=len(grid),
        done=len(done),
        before=len(before),
        masked=sum(records[index].masked for index in done),
        missing=tuple(index for index in todo if index not in done),
        filled=sum(records[index].filled for index in done),
        seconds=round(time.monotonic() - started, 2),
        voxels=NotedStage.of(stage).voxels * len(todo) // len(grid),
        peak_bytes=max((records[index].peak_bytes for index in done), default=0),
        given_up=given_up,
    )
    if report.ok:
        stage.finish(runner.sum(stage, step.workers))
        volumes = [run.volume(name) for name in stage.output_specs()]
        run.sweep([*volumes, run.tables(identity, grid.name), run.done(identity)])
        run.complete(
            identity,
            {
                "layout": grid.name,
                "blocks": len(grid),
                "masked": report.masked,
                "filled": report.filled,
                "seconds": report.seconds,
                "block_seconds": round(sum(records[index].seconds for index in done), 2),
                "peak_bytes": report.peak_bytes,
            },
        )
        console.print(sentence(report))
        if report.filled == 0:
            console.print(
                f"WARNING: {stage.name} wrote nothing but background. "
                "Are the affinities all 0, the mask empty, or the region wrong?"
            )
    return report


def sentence(report: StageReport) -> str:
    """A finished stage in one line."""
    parts = [
        f"{report.name}: {report.done} block{'s' * (report.done != 1)} in "
        f"{duration(report.seconds)}"
    ]
    if report.voxels:
        parts.append(rate(report.voxels / 1e6 / max(report.seconds, 0.01), "Mvoxel"))
    if report.peak_bytes:
        parts.append(f"up to {size(report.peak_bytes)} a worker")
    if report.before:
        parts.append(f"{report.before} done before")
    if report.masked:
        parts.append(f"{report.masked} skipped, outside the mask")
    return ", ".join(parts)


def explain(plan: Plan, report: StageReport) -> str:
    """Why a stage is not complete, with the first failed block and its log."""
    head = f"{report.name} is not complete: {report.done} of {report.total} blocks done"
    logs = plan.run.logs(report.name)
    known, cut = failures(logs), broken_off(events(logs))
    failed = [index for index in report.missing if index in known]
    dead = [index for index in report.missing if index in cut and index not in known]
    lines = [head]
    if failed:
        entry = known[failed[0]]
        more = f" (and {len(failed) - 1} more blocks)" if len(failed) > 1 else ""
        first = str(entry["error"]).splitlines()[0]
        lines.append(f"block {failed[0]}, voxels {entry['voxels']}: {first}{more}")
        lines.append(f"log: {entry['log']}")
    elif dead:
        lines.append(
            f"block {dead[0]}: its worker died or was stopped; "
            "out of memory, or longer than timeout_s?"
        )
        lines.append(f"log: {cut[dead[0]].log}")
    else:
        lines.append(f"its workers died without an error of their own; their logs are in {logs}")
    if report.given_up:
        lines.append(report.given_up.splitlines()[0])
    return "\n".join(lines)


def refuse_stale(steps: Sequence[Step]) -> None:
    """Raise unless every stage is new, begun or done under the present settings."""
    for step in steps:
        state = state_of(step.stage)
        if state.state is State.STALE:
            raise ConfigError(
                f"{step.stage.name} in {step.stage.run.root} was made with other settings:\n"
                + "\n".join(f"  {change}" for change in state.changes[:6])
                + "\nDo it and what depends on it again with --rerun, or choose another run.name."
            )


def refuse_unready(plan: Plan, steps: Sequence[Step]) -> None:
    """Raise if a stage needs one that is neither done nor about to be."""
    chosen = {step.stage.name for step in steps}
    for step in steps:
        for identity in step.stage.upstream:
            if identity.stage not in chosen and plan.run.completion(identity) is None:
                raise ConfigError(
                    f"{step.stage.name} needs {identity.stage}, not done in {plan.run.root}\n"
                    f"Run it first: pea run {identity.stage}, or pea run all"
                )


def stale(plan: Plan) -> list[str]:
    """Names of the stages that other settings made."""
    return [s.stage.name for s in plan.steps if state_of(s.stage).state is State.STALE]


def drop(plan: Plan, names: Sequence[str]) -> list[str]:
    """Forget stages and what depends on them: records, tables, volumes.

    Returns:
        The names of the stages forgotten.
    """
    doomed = plan.dependants(set(names))
    for step in reversed(doomed):
        forget(step.stage)
    return [step.stage.name for step in doomed]


def forget(stage: Stage) -> None:
    """Records go out of sight first: a crash then leaves work to finish, not a false record."""
    stage.run.hide_records(stage.name)
    stage.remove_outputs()
    stage.run.remove_hidden(stage.name)


def finish_dropping(plan: Plan) -> None:
    """Go on where a crash interrupted ``drop``."""
    for step in reversed(plan.steps):
        if step.stage.run.has_hidden(step.stage.name):
            forget(step.stage)


def write_provenance(settings: Settings, run: RunDirectory, identities: Iterable[Identity]) -> None:
    """Note the settings of this start, and add it to the list of all starts."""
    with replacing(run.root / "run.yaml") as partial:
        partial.write_text(dump_settings(settings))
    path = run.root / "provenance.json"
    try:
        starts = list(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        starts = []
    starts.append(
        {
            "started": datetime.now().isoformat(timespec="seconds"),
            "command": sys.argv,
            "host": socket.gethostname(),
            "python": platform.python_version(),
            "commit": commit(),
            "versions": {name: version_of(name) for name in DISTRIBUTIONS} | extension_versions(),
            "fingerprints": {each.stage: each.fingerprint for each in identities},
        }
    )
    write_json(path, starts)
