"""Affinities that need no network: from labels, and from boundary or interior probability maps.

An affinity is uint8, ``round(255 * a)``, high inside an object. Channel ``c`` at voxel ``v``
relates ``v`` and ``v + offsets[c]``. Where the partner lies outside the array the pair is invalid:
its value is 0 on disk and nobody counts it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.geometry import Offsets


def pair_slices(
    offset: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Indices of the voxels ``v`` with a partner in the array, and of the partners."""
    here = tuple(
        slice(max(0, -o), max(0, min(n, n - o))) for o, n in zip(offset, shape, strict=True)
    )
    there = tuple(
        slice(max(0, o), max(0, min(n, n + o))) for o, n in zip(offset, shape, strict=True)
    )
    return here, there


def _of_pairs(
    values: np.ndarray, offsets: Offsets, affinity: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    affinities = np.zeros((len(offsets), *values.shape), np.uint8)
    for channel, offset in zip(affinities, offsets.vectors, strict=True):
        here, there = pair_slices(offset, values.shape)
        channel[here] = affinity(values[here], values[there])
    return affinities


def affinities_from_labels(labels: np.ndarray, offsets: Offsets) -> np.ndarray:
    """255 where both voxels of a pair have the same label above 0, else 0.

    Args:
        labels: ``(z, y, x)``, any integer type.

    Returns:
        uint8 ``(channel, z, y, x)``.
    """
    return _of_pairs(labels, offsets, lambda a, b: np.where((a == b) & (a > 0), 255, 0))


def affinities_from_interior(interior: np.ndarray, offsets: Offsets) -> np.ndarray:
    """The smaller of the two voxels' probabilities to lie inside an object.

    Args:
        interior: ``(z, y, x)``, floats in [0, 1]; 1 - boundary probability.

    Returns:
        uint8 ``(channel, z, y, x)``.
    """
    quantised = np.rint(interior * 255).astype(np.uint8)
    return _of_pairs(quantised, offsets, np.minimum)
