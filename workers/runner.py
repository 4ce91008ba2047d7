"""What a runner is: something that has blocks done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, Self

from pipeline.config import Workers
from pipeline.stages.stage import Stage, Sum, sum_here


class Progress(Protocol):
    """Called with the number of blocks done and failed so far in this call."""

    def __call__(self, done: int, failed: int, remark: str = "") -> None: ...


class Runner(ABC):
    """Has the blocks of a stage done.

    What was done is read from the ledgers afterwards; a runner's word is not needed for it.
    """

    @abstractmethod
    def run(
        self, stage: Stage, blocks: Sequence[int], workers: Workers, progress: Progress
    ) -> str | None:
        """Do blocks of a prepared stage, each with retries; the others go on when one fails.

        Returns:
            Why the stage was given up before every block was tried, or None.
        """

    def sum(self, stage: Stage, workers: Workers) -> Sum:
        """Who adds up the tables of a stage."""
        return sum_here

    def close(self) -> None:  # noqa: B027 - most have nothing that outlives a stage
        """Stop what was started for several stages."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
