"""How far a run is, from its directory: whether it runs or died, here or on another computer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pipeline.config import load_settings
from pipeline.errors import PipelineError
from pipeline.rundir import RunDirectory
from pipeline.tables import read_rows
from workers.block import Event, broken_off, events, failures
from workers.lock import begun_at, driver_of
from workers.noted import NotedStage
from workers.quantities import duration, rate, size
from workers.state import State, state_in

RECENT = 200
"""Blocks whose times make a rate."""
LISTED = 10
"""Blocks of a kind that are named; more are counted."""


@dataclass(frozen=True)
class StageStatus:
    """How far a stage is."""

    name: str
    state: str
    done: int
    blocks: int
    masked: int
    seconds: float | None
    """Of a stage that is done: from its last start to its end."""
    peak_bytes: int
    blocks_per_s: float | None
    """Of one that somebody is at work on, and whose blocks tell."""
    seconds_left: float | None
    failed: tuple[dict[str, Any], ...]
    """Blocks that failed and were not done since, with voxels, error and log."""
    begun: tuple[dict[str, Any], ...]
    """Blocks begun and not ended, with the time and the log; nobody is at work on those of a run
    that is not running."""
    changes: tuple[str, ...]


@dataclass(frozen=True)
class RunStatus:
    """How far a run is."""

    root: str
    driver: str | None
    """Who is at work on it."""
    training: dict[str, Any] | None
    stages: tuple[StageStatus, ...]

    @classmethod
    def of(cls, run: RunDirectory, stages: Iterable[NotedStage]) -> RunStatus:
        """What records, logs and the lock of a run say; no array is read."""
        driver, now = driver_of(run), datetime.now()
        since = begun_at(driver) if driver is not None else None
        found = tuple(_stage_status(run, stage, since, now) for stage in stages)
        return cls(str(run.root), driver, _training(run), found)

    def plain(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield self.root
        complete = all(stage.state == State.DONE.value for stage in self.stages)
        if self.training is not None:
            complete = complete and self.training["step"] == self.training["steps"]
        if self.driver is not None:
            yield f"running: {self.driver}"
        elif not complete:
            yield "not running; the same command goes on, as pea run all or pea train"
        if self.training is not None:
            yield from _training_lines(self.training)
        for stage in self.stages:
            yield from _stage_lines(stage, self.driver is not None)


def _stage_status(
    run: RunDirectory, stage: NotedStage, since: datetime | None, now: datetime
) -> StageStatus:
    """Of a run that somebody has been at work on ``since``, or nobody is."""
    state = state_in(run, stage)
    notes = run.completion(stage.identity) if state.state is State.DONE else None
    told = list(events(run.logs(stage.name))) if state.state is not State.DONE else []
    if since is not None:  # logs go on from start to start
        told = [event for event in told if event.time >= since]
    left = stage.blocks - len(state.records)
    speed = _blocks_per_s(told, now) if since is not None and left else None
    cut = broken_off(event for event in told if event.block not in state.records)
    lost = failures(run.logs(stage.name)) if state.state is not State.DONE else {}
    return StageStatus(
        name=stage.name,
        state=state.state.value,
        done=stage.blocks if notes else len(state.records),
        blocks=stage.blocks,
        masked=notes["masked"] if notes else sum(r.masked for r in state.records.values()),
        seconds=notes["seconds"] if notes else None,
        peak_bytes=notes.get("peak_bytes", 0)
        if notes
        else max((record.peak_bytes for record in state.records.values()), default=0),
        blocks_per_s=speed,
        seconds_left=left / speed if speed else None,
        failed=tuple(
            {"block": index, **lost[index]} for index in sorted(lost) if index not in state.records
        ),
        begun=tuple(
            {"block": index, "since": str(cut[index].time), "log": cut[index].log}
            for index in sorted(cut)
            if index not in lost
        ),
        changes=state.changes,
    )


def _blocks_per_s(told: Iterable[Event], now: datetime) -> float | None:
    """From when the last blocks were done; None of too few to tell."""
    times = sorted(event.time for event in told if event.what == "done")[-RECENT:]
    if len(times) < 3:
        return None
    passed = (now - times[0]).total_seconds()
    return (len(times) - 1) / max(passed, 1.0)


def _training(run: RunDirectory) -> dict[str, Any] | None:
    """Where the curves of a training end; None where there was none."""
    rows = read_rows(run.checkpoints / "training.jsonl")
    steps = [row for row in rows if "loss" in row]
    if not steps:
        return None
    scored = [row for row in rows if "validation/voi" in row]
    best = min(scored, key=lambda row: row["validation/voi"], default=None)
    try:
        train = load_settings(run.root / "run.yaml").run.train
    except PipelineError:
        train = None
    return {
        "step": steps[-1]["step"],
        "steps": train.steps if train else None,
        "loss": steps[-1]["loss"],
        "steps_per_s": steps[-1]["crops_per_s"] / train.batch if train else None,
        "best": {"step": best["step"], "voi": best["validation/voi"]} if best else None,
    }


def _training_lines(said: dict[str, Any]) -> Iterator[str]:
    steps, speed = said["steps"], said["steps_per_s"]
    done = steps is not None and said["step"] >= steps
    parts = [f"{said['step']}/{steps or '?'} steps"]
    if speed and not done:
        left = duration((steps - said["step"]) / speed)
        parts.append(f"{rate(speed, 'steps')} when it ran, {left} left at that")
    parts.append(f"loss {said['loss']:.3f}")
    if said["best"]:
        parts.append(
            f"best validation VOI {said['best']['voi']:.3f} at step {said['best']['step']}"
        )
    yield f"{'train':<24}{(State.DONE if done else State.BEGUN).value:<12}{', '.join(parts)}"


def _stage_lines(stage: StageStatus, running: bool) -> Iterator[str]:
    parts = [f"{stage.done}/{stage.blocks} blocks"]
    if stage.state == State.BEGUN.value:
        parts[0] += f" ({100 * stage.done // stage.blocks} %)"
    if stage.masked:
        parts.append(f"{stage.masked} outside the mask")
    if stage.blocks_per_s and stage.seconds_left is not None:
        parts.append(f"{rate(stage.blocks_per_s, 'blocks')}, {duration(stage.seconds_left)} left")
    if stage.failed:
        parts.append(f"{len(stage.failed)} failed")
    if stage.seconds is not None:
        parts.append(duration(stage.seconds))
    if stage.peak_bytes:
        parts.append(f"up to {size(stage.peak_bytes)} a worker")
    yield f"{stage.name:<24}{stage.state:<12}{', '.join(parts)}"
    for change in stage.changes:
        yield f"    {change}"
    for entry in stage.failed[:LISTED]:
        error = str(entry["error"]).splitlines()[0]
        yield f"    block {entry['block']}, voxels {entry['voxels']} failed: {error}"
        yield f"    log: {entry['log']}"
    yield from _more(len(stage.failed), "failed")
    what = "at work since" if running else "broken off; begun"
    for entry in stage.begun[:LISTED]:
        yield f"    block {entry['block']} {what} {entry['since']}, log: {entry['log']}"
    yield from _more(len(stage.begun), "begun")


def _more(count: int, what: str) -> Iterator[str]:
    if count > LISTED:
        yield f"    and {count - LISTED} more {what}"
