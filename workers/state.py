"""What a run directory says about a stage: new, begun, done, or made by other settings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pipeline.rundir import Record, RunDirectory
from pipeline.stages.stage import Stage
from workers.noted import NotedStage


class State(Enum):
    NEW = "to do"
    BEGUN = "begun"
    DONE = "done"
    STALE = "out of date"


@dataclass(frozen=True)
class StageState:
    """How far a stage is."""

    state: State
    records: dict[int, Record]
    """Of a stage that is not done: its blocks that are, under the present settings and layout."""
    changes: tuple[str, ...] = ()
    """Of a stage that is out of date: what differs."""


def state_of(stage: Stage) -> StageState:
    """How far a stage is, from its records; its arrays are not read."""
    return state_in(stage.run, NotedStage.of(stage))


def state_in(run: RunDirectory, stage: NotedStage) -> StageState:
    """The same of a stage that is known by a note only."""
    identity = stage.identity
    complete = run.completion(identity)
    if complete is not None and all((run.root / path).exists() for path in stage.outputs):
        return StageState(State.DONE, {})
    records = run.records(identity, stage.layout)
    former = run.former_identities(identity)
    if former:
        changes = dict.fromkeys(line for each in former for line in identity.changes_since(each))
        return StageState(State.STALE, {}, tuple(changes))
    return StageState(State.BEGUN if records else State.NEW, records)


@dataclass(frozen=True)
class StageReport:
    """What came of a stage."""

    name: str
    total: int
    done: int
    before: int
    """Of those done, the blocks that were done before this start."""
    masked: int
    """Of those done, the blocks that the mask leaves empty."""
    missing: tuple[int, ...]
    """The blocks that are not done."""
    filled: int
    seconds: float
    voxels: int
    """Of the blocks done since this start, of a stage that reads voxels."""
    peak_bytes: int
    """The most memory that a worker held; 0 where the system does not tell."""
    given_up: str | None = None
    """Why the runner stopped early."""

    @property
    def ok(self) -> bool:
        return self.done == self.total
