"""How fragments become segments."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.fields import MAX_COUNT, Section, Threshold


class Agglomerate(Section):
    method: Literal["mean_affinity"] = "mean_affinity"
    threshold: Threshold = 0.5
    """Merge while 1 - affinity is below this. Higher merges more, as in waterz."""
    dust_vx: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 0
    """Segments with fewer voxels become background."""
