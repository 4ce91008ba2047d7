"""The network a run describes: ``run.network``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from pipeline.config.fields import Counts, Factors, Section, Sides
from pipeline.extensions import Extensions, check_options, no_options
from pipeline.geometry import ZYX

MAX_FEATURES = 4096
MAX_LEVELS = 12
MAX_KERNEL_VX = 31
IN_PLANE = ZYX(1, 2, 2)


RESUNET = "resunet"


@dataclass(frozen=True)
class Backbone:
    """A network of another distribution, in place of the residual U-Net."""

    build: Callable[[Network, int], Any]
    """Of the settings and the number of output channels: a ``torch.nn.Module`` with new weights,
    drawn from torch's global generator. It may be built on torch's device ``meta``.

    It is called with raw in [0, 1], float ``(B, 1, Z, Y, X)``, sides multiples of
    ``Network.factor``, and returns a ``pipeline.model.backbone.Output``: ``full`` has the channels
    and the sides of raw; ``pyramid``, where ``Network.pyramid`` is true, an embedding of each
    coarser level of ``Network.pools``. In evaluation mode the same raw gives the same bits."""
    revision: int
    """Raised when the same settings and weights give other numbers."""
    options: Callable[..., object] = no_options
    """Is called with ``Network.options`` as keywords, and raises ValueError or TypeError where they
    are wrong."""


BACKBONES = Extensions("backbone", Backbone, (RESUNET,))


class Network(Section):
    """A residual U-Net; the defaults are those of PEA (AAAI-2022), but for ``align_corners``."""

    backbone: str = RESUNET
    """Or that of another distribution, which makes what it likes of the other keys. ``pools`` still
    say what divides a patch, and ``features`` begin with what `pea plan` estimates memory by."""
    options: dict[str, JsonValue] = {}
    """Of a backbone that is an extension."""
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
    def _known(self) -> Network:
        options = no_options if self.extension is None else self.extension.options
        check_options(options, self.options, f"the backbone {self.backbone}")
        return self

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
    def level_factors(self) -> tuple[ZYX, ...]:
        """Voxels of the finest level to one of each coarser level."""
        return tuple(accumulate(self.pools, lambda a, b: ZYX(a.z * b.z, a.y * b.y, a.x * b.x)))

    @property
    def factor(self) -> ZYX:
        """Voxels of the finest level to one of the coarsest: what divides every patch."""
        return (ZYX(1, 1, 1), *self.level_factors)[-1]

    @property
    def extension(self) -> Backbone | None:
        """The backbone, if it is not the built-in one.

        Raises:
            ExtensionError: it is not installed, or cannot be loaded.
        """
        return None if self.backbone == RESUNET else BACKBONES.named(self.backbone)

    @property
    def decides(self) -> dict[str, Any]:
        """What the weights of a training depend on, as plain values."""
        built_in = {"backbone", "options"} if self.extension is None else set()
        return self.model_dump(mode="json", exclude=built_in)

    @property
    def revisions(self) -> dict[str, int]:
        """Of what is not this project's: the revisions of stages do not count it."""
        extension = self.extension
        return {} if extension is None else {f"revision of {self.backbone}": extension.revision}
