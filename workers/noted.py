"""What a start notes of its stages, so that a run directory can be read by itself.

A plan needs the inputs of a run, which may be gone or lie elsewhere by the time somebody looks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self

from pipeline.errors import DataError, NotFoundError
from pipeline.rundir import Identity, RunDirectory, write_json
from pipeline.stages.stage import Stage


@dataclass(frozen=True)
class NotedStage:
    """A stage as far as its state on disk goes."""

    name: str
    identity: Identity
    layout: str
    """Name of the grid of its blocks."""
    blocks: int
    voxels: int
    """Of all blocks; 0 of a stage that reads tables only."""
    outputs: tuple[str, ...]
    """Paths in the run directory that are there when the stage is done."""

    @classmethod
    def of(cls, stage: Stage) -> Self:
        root = stage.run.root
        outputs = tuple(path.relative_to(root).as_posix() for path in stage.outputs())
        voxels = 0 if len(stage.grid) == 1 else math.prod(stage.grid.total.shape)
        return cls(
            stage.name, stage.identity, stage.grid.name, len(stage.grid), int(voxels), outputs
        )

    @classmethod
    def read(cls, said: dict[str, Any]) -> Self:
        identity, outputs = Identity(**said.pop("identity")), tuple(said.pop("outputs"))
        return cls(**said, identity=identity, outputs=outputs)


def note_stages(run: RunDirectory, stages: Iterable[Stage]) -> None:
    """Note what a start is about to bring up to date."""
    write_json(run.plan, [asdict(NotedStage.of(stage)) for stage in stages])


def noted_stages(run: RunDirectory) -> list[NotedStage]:
    """The stages of the last start; none of a run that was only trained.

    Raises:
        NotFoundError: nothing was started here; DataError: the note is damaged.
    """
    try:
        return [NotedStage.read(said) for said in json.loads(run.plan.read_text())]
    except FileNotFoundError:
        if (run.root / "run.yaml").exists():
            return []
        raise NotFoundError(
            f"no run was started in {run.root}\nName the run file, or the directory of a run."
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise DataError(
            f"damaged note {run.plan}: {type(error).__name__}\n`pea run` writes it again."
        ) from None
