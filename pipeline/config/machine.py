"""Who computes a run, and how fast; nothing here decides a number."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from pipeline.config.fields import MAX_COUNT, Section, Sides
from pipeline.geometry import ZYX

Lines = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[^\n]+$")], ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    PlainSerializer(list),
]
"""Text, one line each."""


class Workers(Section):
    """Who computes one blockwise stage."""

    workers: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many blocks are computed at once, each in a process of its own."""
    block_vx: Sides = ZYX(64, 256, 256)
    """What one process computes at a time; the numbers do not depend on it."""
    memory_gb: Annotated[float, Field(gt=0)] = 8.0
    """What one worker may use; a stage that needs more is refused before it starts."""
    timeout_s: Annotated[float, Field(gt=0, le=MAX_COUNT)] = 3600.0
    """A block that takes longer is taken from its worker, which is killed."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a failed block is tried again."""
    max_restarts: Annotated[int, Field(ge=0, le=10_000)] = 10
    """How many workers may die before the stage is given up."""


class Job(Section):
    """What a batch system is asked for, once for each Dask worker.

    A job has the memory of its stage, ``memory_gb``.
    """

    queue: str | None = None
    """Slurm's partition, LSF's queue; theirs by default."""
    account: str | None = None
    """Slurm's account, LSF's project."""
    walltime: Annotated[str, Field(pattern=r"^(\d+-)?\d+:\d\d(:\d\d)?$")] = "4:00:00"
    """Of one worker. It is replaced when its time is over; the block in flight is done again."""
    cores: Annotated[int, Field(ge=1, le=256)] = 1
    """Of one worker."""
    interface: str | None = None
    """The network that workers and scheduler meet on, as ib0."""
    job_extra: Lines = ()
    """More directives, as ``--gres=gpu:1``."""
    setup: Lines = ()
    """Shell lines before the worker starts, as ``module load`` something."""


class Dask(Section):
    """The Dask cluster of ``runner: dask``, and of an evaluation by more than one worker."""

    cluster: Literal["local", "slurm", "lsf"] = "local"
    """Processes on this machine, out of reach for others; or jobs of a batch system."""
    scheduler: Annotated[str, Field(pattern=r"^(tcp|tls)://[^\s/]+:\d+$")] | None = None
    """Use the cluster of this scheduler instead; nothing is started, nothing stopped."""
    job: Job = Job()
    dashboard: bool = False
    """Dask's own web page, on port 8787 of the scheduler; shows what runs to all who reach it."""
    wait_s: Annotated[float, Field(gt=0, le=MAX_COUNT)] = 600.0
    """How long a stage without a single worker waits for one; queues may be long."""
    lost_after_s: Annotated[float, Field(gt=0, le=MAX_COUNT)] = 300.0
    """A worker that is not heard of for so long is lost, and replaced."""

    @model_validator(mode="after")
    def _consistent(self) -> Dask:
        if self.scheduler is not None and self.cluster != "local":
            raise ValueError(
                f"scheduler and cluster exclude each other, found {self.scheduler} and "
                f"{self.cluster}"
            )
        if self.job != Job() and self.cluster == "local":
            raise ValueError("job needs cluster slurm or lsf, found local")
        return self


class Machine(Section):
    """How fast it is computed."""

    runner: Literal["serial", "daisy", "dask"] = "daisy"
    """``serial`` computes in one process; see the page on clusters for the others."""
    dask: Dask = Dask()
    launch: str | None = None
    """How daisy's workers are started on other hosts, as ``srun -n 1 {command}``: a shell command
    that lasts as long as its worker. The file system must be shared."""
    host: str | None = None
    """Where daisy's scheduler listens, for launched workers to reach it; daisy finds one if left
    out. Whoever reaches it can take blocks away: only in a network of your own."""
    train_workers: Annotated[int, Field(ge=0, le=1000)] = 1
    """Processes that prepare batches; 0 prepares them between steps."""
    predict: Workers = Workers(block_vx=ZYX(48, 192, 192))
    """Blocks of whole tiles, ``patch_vx`` less twice ``crop_vx``, compute no patch twice."""
    fragments: Workers = Workers()
    edges: Workers = Workers()
    relabel: Workers = Workers()
    downsample: Workers = Workers()
    evaluate: Workers = Workers()
    agglomerate: Workers = Workers()
    """Of the stages that see the whole graph; their block is the volume."""

    @field_validator("launch")
    @classmethod
    def _launches(cls, launch: str | None) -> str | None:
        if launch is not None and launch.count("{command}") != 1:
            raise ValueError(f"must hold {{command}} once, found {launch!r}")
        return launch

    @model_validator(mode="after")
    def _consistent(self) -> Machine:
        if self.host is not None and self.launch is None:
            raise ValueError(
                f"host needs launch: workers on this machine use none, found {self.host}"
            )
        return self
