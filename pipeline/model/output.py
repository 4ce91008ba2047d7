"""What every backbone returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """What the network says of a batch."""

    full: Tensor
    """``(B, C, Z, Y, X)``: an embedding, or the logit of each affinity."""
    pyramid: tuple[Tensor, ...]
    """Embeddings of the coarser levels, finest first; empty without a pyramid."""
