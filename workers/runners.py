"""Which runner computes which stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pipeline.config import Machine, Workers
from pipeline.rundir import RunDirectory
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.stage import Stage, Sum
from workers.runner import Progress, Runner
from workers.serial_runner import SerialRunner

WORTH_A_CLUSTER_VX = 200_000_000
"""Fewer voxels are counted while a cluster still starts."""


def runner_named(
    name: Literal["serial", "daisy", "dask"], machine: Machine, run: RunDirectory
) -> Runner:
    """A runner, to be closed after the last stage.

    ``serial`` is one process for everything; with the others, evaluation is on Dask.
    """
    if name == "serial":
        return SerialRunner()
    from workers.dask_cluster import DaskCluster
    from workers.dask_runner import DaskRunner

    dask = DaskRunner(DaskCluster(machine.dask, run.logs("dask")))
    if name == "dask":
        return dask
    from workers.daisy_runner import DaisyRunner

    return EvaluationElsewhere(DaisyRunner(machine.launch, machine.host), dask)


class EvaluationElsewhere(Runner):
    """One runner for evaluations that are worth a cluster, another for the rest."""

    def __init__(self, usual: Runner, evaluates: Runner) -> None:
        self._usual = usual
        self._evaluates = evaluates

    def run(
        self, stage: Stage, blocks: Sequence[int], workers: Workers, progress: Progress
    ) -> str | None:
        return self._of(stage, workers).run(stage, blocks, workers, progress)

    def sum(self, stage: Stage, workers: Workers) -> Sum:
        return self._of(stage, workers).sum(stage, workers)

    def close(self) -> None:
        self._usual.close()
        self._evaluates.close()

    def _of(self, stage: Stage, workers: Workers) -> Runner:
        chosen = isinstance(stage, Evaluate) and worth_a_cluster(
            math.prod(stage.grid.total.shape), workers.workers
        )
        return self._evaluates if chosen else self._usual


def worth_a_cluster(voxels: int, workers: int) -> bool:
    """Whether counting voxels by several processes makes up for starting them."""
    return workers > 1 and voxels >= WORTH_A_CLUSTER_VX
