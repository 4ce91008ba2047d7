"""The network a run describes: ``run.network``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.fields import Counts, Factors, Section, Sides
from pipeline.geometry import ZYX

MAX_FEATURES = 4096
MAX_LEVELS = 12
MAX_KERNEL_VX = 31
IN_PLANE = ZYX(1, 2, 2)


class Network(Section):
    """A residual U-Net; the defaults are those of PEA (AAAI-2022), but for ``align_corners``."""

    head: Literal["embedding", "affinity"] = "embedding"
    """An embedding per voxel, whose cosines are affinities (PEA), or affinities directly."""
    features: Counts = (28, 36, 48, 64, 80)
    """Channels of each level, finest first."""
    pools: Factors = (IN_PLANE, IN_PLANE, IN_PLANE, IN_PLANE)
    """Factors z, y, x from each level to the next coarser one."""
    stem_vx: Sides = ZYX(1, 5, 5)
    """Kernel of the first and the last convolution; odd sides."""
    first_vx: Sides = ZYX(1, 3, 3)
    """Kernel of the first convolution of a residual block, odd sides; the others are 3 x 3 x 3."""
    finest_block: bool = True
    """Residual blocks on the finest level too. Without, a CPU trains several times faster."""
    norm: Literal["batch", "group", "none"] = "batch"
    """What follows each convolution of a residual block."""
    norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.001
    """Share of a new batch in the running statistics of batch normalisation."""
    embedding: Annotated[int, Field(ge=1, le=MAX_FEATURES)] = 16
    """Channels of an embedding."""
    pyramid: bool = True
    """Embeddings on every coarser level too, for the loss of the embedding pyramid."""
    align_corners: bool = False
    """Up-sample as PyTorch's ``align_corners=True``. It depends on where a patch begins."""

    @model_validator(mode="after")
    def _consistent(self) -> Network:
        if len(self.features) > MAX_LEVELS:
            raise ValueError(
                f"features must have at most {MAX_LEVELS} levels, found {len(self.features)}"
            )
        if len(self.pools) != len(self.features) - 1:
            raise ValueError(
                f"pools must be one fewer than features, found {len(self.pools)} pools for "
                f"{len(self.features)} levels"
            )
        for name, kernel in (("stem_vx", self.stem_vx), ("first_vx", self.first_vx)):
            if any(side % 2 == 0 for side in kernel):
                raise ValueError(f"{name} must have odd sides, found {list(kernel)}")
            if max(kernel) > MAX_KERNEL_VX:
                raise ValueError(
                    f"{name} must have sides of at most {MAX_KERNEL_VX}, found {list(kernel)}"
                )
        if self.head == "affinity" and self.pyramid:
            raise ValueError("pyramid must be false where the head is affinity: it has embeddings")
        return self

    @property
    def factor(self) -> ZYX:
        """Voxels of the finest level to one of the coarsest: what divides every patch."""
        z, y, x = 1, 1, 1
        for pool in self.pools:
            z, y, x = z * pool.z, y * pool.y, x * pool.x
        return ZYX(z, y, x)
