"""Who computes a run, and how fast; nothing here decides a number."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.fields import MAX_COUNT, Section, Sides
from pipeline.geometry import ZYX


class Workers(Section):
    """Who computes one blockwise stage."""

    workers: Annotated[int, Field(ge=1, le=10_000)] = 1
    block_vx: Sides = ZYX(64, 256, 256)
    memory_gb: Annotated[float, Field(gt=0)] = 8.0
    """What one worker may use; a stage that needs more is refused before it starts."""
    timeout_s: Annotated[float, Field(gt=0, le=MAX_COUNT)] = 3600.0
    """A block that takes longer is taken from its worker, which is killed."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a failed block is tried again."""
    max_restarts: Annotated[int, Field(ge=0, le=10_000)] = 10
    """How many workers may die before the stage is given up."""


class Machine(Section):
    """How fast it is computed."""

    runner: Literal["serial", "daisy"] = "daisy"
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
