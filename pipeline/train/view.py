"""The transformed view of a crop that cross-correlation (CCM) compares the crop with.

The same tissue with other intensities, with boxes cut out, mirrored and transposed. The network
embeds both; the embedding of the view is turned back before the two are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import numpy as np

from pipeline.config import View
from pipeline.geometry import ZYX
from pipeline.train.appearance import intensity

Triple = tuple[int, int, int]
IN_PLACE: Triple = (0, 1, 2)


@dataclass(frozen=True)
class Transform:
    """Mirrors, then transposes, the last three axes; of NumPy arrays and torch tensors alike.

    The view's axis ``n`` is axis ``order[n]`` of the mirrored crop.
    """

    flip: tuple[bool, bool, bool] = (False, False, False)
    order: Triple = IN_PLACE

    def apply(self, array: Any) -> Any:
        """``(..., z, y, x)``, as it looks in the view."""
        return _ordered(_flipped(array, self.flip), self.order)

    def undo(self, array: Any) -> Any:
        """``(..., z, y, x)`` of a view, in the axes of the crop: ``undo(apply(a))`` is ``a``."""
        back = (self.order.index(0), self.order.index(1), self.order.index(2))
        return _flipped(_ordered(array, back), self.flip)


def orders(transpose: Literal["yx", "zyx", "none"]) -> list[Triple]:
    """The ways in which axes may change places."""
    if transpose == "zyx":
        return [(a, b, c) for a, b, c in permutations(range(3))]
    return [IN_PLACE, (0, 2, 1)] if transpose == "yx" else [IN_PLACE]


def drawn_order(rule: View, rng: np.random.Generator) -> Triple:
    """Each of the orders is as likely as another."""
    possible = orders(rule.transpose)
    return possible[rng.integers(len(possible))]


def view_of(
    raw: np.ndarray, rule: View, order: Triple, rng: np.random.Generator
) -> tuple[np.ndarray, Transform]:
    """The view of a crop.

    Args:
        raw: float32 ``(z, y, x)`` in [0, 1]; not changed.

    Returns:
        The view, float32 in [0, 1] with its axes in ``order``; and how to undo its geometry.
    """
    view = raw.copy()
    if rng.random() < rule.intensity:
        intensity(view, rule.contrast, rule.brightness, rule.gamma, True, rng)
    _cut_out(view, rule, rng)
    z, y, x = (rng.random(3) < 0.5) & rule.flip
    transform = Transform((bool(z), bool(y), bool(x)), order)
    return np.ascontiguousarray(transform.apply(view)), transform


def _cut_out(view: np.ndarray, rule: View, rng: np.random.Generator) -> None:
    """Set boxes of one size to 0, in place; where sides of y and x may be equal they are."""
    count = rng.integers(rule.max_cutouts + 1)
    low, high = np.array(rule.cutout_min_vx), np.array(rule.cutout_max_vx)
    share = rng.random(2)[[0, 1, 1]]
    sides = ZYX.of(np.minimum(low + share * (high - low + 1), view.shape))
    room = np.array(view.shape) - np.array(sides)
    begins = rng.integers(room, size=(count, 3), endpoint=True)
    for z, y, x in begins:
        view[z : z + sides.z, y : y + sides.y, x : x + sides.x] = 0


def _flipped(array: Any, flip: tuple[bool, bool, bool]) -> Any:
    axes = tuple(array.ndim - 3 + axis for axis in range(3) if flip[axis])
    # Tensors have no negative strides; arrays have no method of this name.
    return array.flip(axes) if hasattr(array, "flip") else np.flip(array, axes)


def _ordered(array: Any, order: Triple) -> Any:
    lead = array.ndim - 3
    axes = (*range(lead), *(lead + axis for axis in order))
    return array.permute(axes) if hasattr(array, "permute") else array.transpose(axes)
