"""A run file: ``run`` decides the numbers and is fingerprinted; ``machine`` decides the speed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.agglomerate import Agglomerate
from pipeline.config.evaluate import Evaluate
from pipeline.config.fields import (
    ArrayPath,
    OffsetList,
    Range,
    RoiNm,
    Section,
    Sides,
    Sigma,
    Width,
    name,
)
from pipeline.config.machine import Machine
from pipeline.config.network import Network
from pipeline.config.train import Train
from pipeline.config.tune import Tune
from pipeline.geometry import ZYX


class Data(Section):
    """Where to start from. Paths are relative to the directory ``pea`` is called in."""

    affinities: ArrayPath | None = None
    """Zarr array or multiscale group ``(c, z, y, x)``, uint8 or floats in [0, 1], high inside."""
    offsets: OffsetList | None = None
    """Of arrays that do not carry the attribute ``neighborhood``."""
    raw: ArrayPath | None = None
    """The images ``(z, y, x)``: uint8, uint16 with a range, or floats in [0, 1]."""
    raw_range: Range | None = None
    """The raw values that become 0 and 1; for uint8 0 and 255 unless given. Others are clipped."""
    labels: ArrayPath | None = None
    """The truth, for scores; 0 is unknown."""
    mask: ArrayPath | None = None
    """Voxels to segment are not 0. Blocks without any are skipped and counted."""
    roi: RoiNm | None = None
    """Segment this region only; everything that the affinities or the raw cover if left out."""
    test_roi: RoiNm | None = None
    """Kept for testing: training and validation there are refused."""


class Predict(Section):
    """Affinities from raw; see ``pipeline.stages.predict``. Patches lie on a grid of the volume."""

    checkpoint: str = "best"
    """``best`` or ``last`` of this run's training, ``released``, or the path of a checkpoint."""
    released: str | None = None
    """Weights that come with the project, for ``released``, and for ``best`` without training."""
    patch_vx: Sides = ZYX(32, 256, 256)
    """What the network sees at once."""
    crop_vx: Width = ZYX(4, 32, 32)
    """What is cut off of each side of a patch; patches overlap by twice that."""
    offsets: OffsetList | None = None
    """Those of the training if left out. A network of embeddings takes any."""
    embeddings: bool = False
    """Write them too, as float16."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` is a GPU where torch finds one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 on a GPU, or a CPU with amx_bf16 or avx512_bf16."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Of PyTorch, for each worker on a CPU. Another number rounds sums in another order."""


class Fragments(Section):
    """Watershed fragments: see ``pipeline.segment.fragments``."""

    per_section: bool = False
    """Fragments do not leave their section. For anisotropic volumes."""
    narrow_nm: Sigma = 7.5
    """Standard deviation of the Gaussian that keeps ridges on membranes."""
    wide_nm: Sigma = 30.0
    """Standard deviation of the one that removes spurious minima."""
    wide_share: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Weight of the wide one in the heights."""


class Run(Section):
    """What is computed."""

    name: Annotated[str, AfterValidator(name)]
    """Of the run directory, ``runs/NAME``."""
    data: Data
    network: Network = Network()
    train: Train | None = None
    predict: Predict = Predict()
    fragments: Fragments = Fragments()
    agglomerate: Agglomerate = Agglomerate()
    evaluate: Evaluate = Evaluate()
    tune: Tune = Tune()

    @model_validator(mode="after")
    def _loss_fits_network(self) -> Run:
        if self.train is None:
            return self
        network, loss = self.network, self.train.loss
        if network.head == "affinity" and loss.cross_correlation > 0:
            raise ValueError(
                "train.loss.cross_correlation must be 0 where network.head is affinity, which has "
                f"no embeddings to compare; found {loss.cross_correlation}"
            )
        if loss.pyramid > 0 and not network.pyramid:
            raise ValueError(
                f"train.loss.pyramid must be 0 where network.pyramid is false, found {loss.pyramid}"
            )
        given, levels = len(loss.pyramid_offsets), len(network.pools)
        if given and given != levels:
            raise ValueError(
                "train.loss.pyramid_offsets must have a list for each of the coarser levels of "
                f"network.features, which are {levels}; found {given}"
            )
        return self


class Settings(Section):
    """A whole file."""

    run: Run
    machine: Machine = Machine()
