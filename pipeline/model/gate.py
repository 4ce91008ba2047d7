"""Half precision only where it changes nothing that matters."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pipeline.errors import DataError
from pipeline.geometry import Offsets
from pipeline.model.affinity import cosine_affinities

MAX_RELATIVE_ERROR = 0.02
"""Of the output, in the Euclidean norm."""
MAX_AFFINITY_ERROR = 0.02
"""Of all but one in a thousand affinities of direct neighbours."""
IN_TRAINING = 5.0
"""Times as much: new weights embed at random, and a wrong kernel is wrong by far more."""


def refuse_rough(
    output: Callable[[bool], Tensor], embeds: bool, where: str, allowance: float = 1.0
) -> None:
    """Raise if bf16 and fp32 disagree on what is about to be computed.

    Some versions of cuDNN return wrong convolutions for some shapes without a word, so the
    comparison is made on the very shape that is used.

    Args:
        output: of the network, ``(B, C, Z, Y, X)``, in bf16 if called with True, else in fp32.
        embeds: whether the output is embeddings, not logits of affinities.
        where: what to name in the error.
        allowance: times the errors that are accepted.

    Raises:
        DataError: with the errors found.
    """
    half, full = output(True).float(), output(False).float()
    relative = float((half - full).norm() / full.norm().clamp(min=1e-12))
    a, b = (_affinities(values, embeds) for values in (half, full))
    # torch.quantile takes 16 million values at most.
    difference = (a - b).abs().flatten().sort().values
    worst = float(difference[int(0.999 * (len(difference) - 1))])
    accepted = allowance * MAX_RELATIVE_ERROR, allowance * MAX_AFFINITY_ERROR
    if not (relative <= accepted[0] and worst <= accepted[1]):
        raise DataError(
            f"precision bf16 must agree with fp32 within {accepted[0]:g} of the output and "
            f"{accepted[1]:g} of an affinity: {where}\n"
            f"found {relative:.3g} and {worst:.3g}\n"
            "Set precision to fp32, or use another version of torch."
        )


def _affinities(output: Tensor, embeds: bool) -> Tensor:
    return cosine_affinities(output, Offsets().vectors) if embeds else output.sigmoid()
