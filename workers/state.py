"""What a run directory says about a stage: new, begun, done, or made by other settings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pipeline.rundir import Record
from pipeline.stages.stage import Stage


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
    """Blocks done under the present settings and layout."""
    changes: tuple[str, ...] = ()
    """Of a stage that is out of date: what differs."""


def state_of(stage: Stage) -> StageState:
    """How far a stage is, from its records; its arrays are not read."""
    run, identity = stage.run, stage.identity
    records = run.records(identity, stage.grid.name)
    if run.completion(identity) is not None and stage.outputs_are_there():
        return StageState(State.DONE, records)
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
    given_up: str | None = None
    """Why the runner stopped early."""

    @property
    def ok(self) -> bool:
        return self.done == self.total
