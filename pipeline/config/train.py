"""How a network is trained: ``run.train``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.fields import (
    MAX_COUNT,
    Amount,
    FilePath,
    OffsetList,
    OffsetLists,
    RoiNm,
    Section,
    Share,
    Sides,
    Steps,
)
from pipeline.geometry import ZYX, Offsets

PAPER_OFFSETS = Offsets(
    tuple(
        ZYX(*(-length if axis == n else 0 for n in range(3)))
        for lengths in ((1, 1, 1), (2, 3, 3), (3, 9, 9), (4, 27, 27))
        for axis, length in enumerate(lengths)
    )
)
"""The twelve of PEA's 3-D configuration."""


class Augment(Section):
    """Random changes of a crop. A share is the probability of one; 0 switches it off."""

    flip: bool = True
    """Mirror along z, y and x."""
    transpose: Literal["yx", "zyx", "none"] = "yx"
    """Axes that may change places. All three only in isotropic volumes."""
    rotate: Share = 0.0
    """Turn about z by any angle."""
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Zoom by up to this share in or out, in the plane."""
    elastic: Share = 0.0
    """Bend the crop smoothly."""
    elastic_spacing_vx: Sides = ZYX(8, 32, 32)
    """Distance of the control points of the deformation."""
    elastic_sigma_vx: Amount = 2.0
    """Standard deviation of their displacement along y and x."""
    elastic_sigma_z_vx: Amount = 0.0
    """The same along z; only in isotropic volumes."""
    intensity: Share = 0.5
    """Contrast, brightness and gamma, of the whole crop or section by section (evenly)."""
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Raw is multiplied by 1 plus or minus up to this."""
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Up to this is added or taken away."""
    gamma: Annotated[float, Field(ge=0, le=3)] = 1.0
    """The exponent is 2 to a number between minus and plus this."""
    missing_section: Share = 0.0
    """Of each section: black."""
    faint_section: Share = 0.0
    """Of each section: little contrast."""
    shifted_section: Share = 0.0
    """Of each section: it, or it and all below, lies displaced."""
    shift_vx: Annotated[int, Field(ge=0, le=100)] = 4
    """Up to this far along y and x."""
    blur: Share = 0.0
    """A Gaussian in the plane."""
    blur_sigma_vx: Amount = 1.5
    """Up to this width, in the plane."""
    noise: Share = 0.0
    """Of each voxel by itself, normally distributed."""
    noise_sigma: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Its standard deviation; raw is in [0, 1]."""


class View(Section):
    """The transformed view of a crop that cross-correlation (CCM) compares with."""

    flip: bool = True
    """Mirror along z, y and x."""
    transpose: Literal["yx", "zyx", "none"] = "yx"
    """Axes that may change places."""
    intensity: Share = 0.5
    """How often contrast, brightness and gamma change, section by section."""
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.05
    """As in ``augment``."""
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.05
    """As in ``augment``."""
    gamma: Annotated[float, Field(ge=0, le=3)] = 1.0
    """As in ``augment``."""
    max_cutouts: Annotated[int, Field(ge=0, le=10_000)] = 60
    """Boxes set to 0: their number is uniform from 0 to this."""
    cutout_min_vx: Sides = ZYX(5, 10, 10)
    """The smallest boxes."""
    cutout_max_vx: Sides = ZYX(10, 20, 20)
    """One size for all boxes of a crop, between the two; y and x are equal."""

    @model_validator(mode="after")
    def _consistent(self) -> View:
        if any(a > b for a, b in zip(self.cutout_min_vx, self.cutout_max_vx, strict=True)):
            raise ValueError(
                f"cutout_min_vx must not exceed cutout_max_vx, found {list(self.cutout_min_vx)} "
                f"and {list(self.cutout_max_vx)}"
            )
        return self


class Loss(Section):
    """Weights and rules of the loss. Each is a place where the paper and its code may differ."""

    self_correlation: Amount = 1.0
    """SCM: cosines within the embedding of a crop; or the cross-entropy of direct affinities."""
    cross_correlation: Amount = 1.0
    """CCM: cosines between a crop and its transformed view."""
    pyramid: Amount = 1.0
    """EPM: cosines within the embedding of each coarser level."""
    detach: bool = True
    """No gradient through the transformed view."""
    channels: Literal["sum", "mean"] = "sum"
    """How the losses of the offsets are put together."""
    balance: bool = True
    """Weigh the rarer of the two classes up, for each crop and offset."""
    count_missing: bool = False
    """Pairs without a partner count as apart in the ratio of the classes, as in the code of PEA."""
    background_pair: Literal["apart", "together", "ignored"] = "apart"
    """What two voxels of background are to each other. Voxels of widened borders are background."""
    pyramid_offsets: OffsetLists = ()
    """Of each coarser level, finest first; direct neighbours if left out."""


class Optimizer(Section):
    """Defaults of the reference code of PEA: its epsilon is of the gradient's own size."""

    name: Literal["adam", "adamw"] = "adam"
    """``adamw`` keeps weight decay apart from the gradient's moments."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-4
    """At its highest."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the mean of the gradient."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the mean of its square."""
    epsilon: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Added to the root of that mean."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-6
    """How strongly weights are drawn to 0."""
    amsgrad: bool = True
    """Divide by the largest such mean so far."""
    schedule: Literal["constant", "cosine"] = "constant"
    """``cosine`` falls to 0 at the last step."""
    warmup_steps: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 0
    """Steps in which the rate rises from 0."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Scale gradients down to this norm."""


class Validation(Section):
    """Segmentation scores during training; the checkpoint with the lowest VOI is kept."""

    roi: RoiNm
    """Apart from ``train.roi`` and ``data.test_roi``."""
    every: Steps = 1000
    """Steps between two validations."""


class Train(Section):
    """How a network is trained. Without it, a run uses a checkpoint or affinities that exist."""

    roi: RoiNm
    """Where crops are taken; all of a crop lies inside."""
    validation: Validation | None = None
    initial: FilePath | None = None
    """A checkpoint whose weights to begin with, of the same network; new ones if left out."""
    steps: Steps = 200_000
    """Batches in all."""
    seed: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 1
    """Of the first weights and of every batch."""
    batch: Annotated[int, Field(ge=1, le=1024)] = 2
    """Crops in a batch."""
    crop_vx: Sides = ZYX(18, 160, 160)
    """What the network sees of each; multiples of what it halves."""
    offsets: OffsetList = PAPER_OFFSETS
    """The pairs of voxels that the loss compares."""
    min_labelled: Share = 0.0
    """Crops with a smaller share of labelled voxels are not taken."""
    widen_border_vx: Annotated[int, Field(ge=0, le=20)] = 1
    """Voxels this near to another object count as background."""
    widen_per_section: bool = True
    """Measured within a section."""
    augment: Augment = Augment()
    view: View = View()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the weights, which is what is validated and kept; 0: none."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 on a GPU, or a CPU with amx_bf16 or avx512_bf16."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` is a GPU where torch finds one."""
    threads: Annotated[int, Field(ge=1, le=256)] = 2
    """Of PyTorch on a CPU. Another number rounds sums in another order."""
    checkpoint_every: Steps = 1000
    """Steps between two saved states; what a crash may cost."""
