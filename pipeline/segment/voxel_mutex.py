"""Mutex watershed on the voxels of a whole volume: a reference that needs no fragments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.geometry import Offsets

STRIDES = (1, 10, 10)
"""Of the reference code of PEA."""


def voxel_mutex_watershed(
    affinities: np.ndarray, offsets: Offsets, strides: Sequence[int] = STRIDES
) -> np.ndarray:
    """Direct neighbours attract with their affinity, the others repel with 1 - theirs.

    All pairs in falling order, as ``solvers.mutex_watershed`` (Wolf et al. 2018); of equal ones by
    channel, then by voxel. By bioimage-cpp.

    Args:
        affinities: uint8 ``(channel, z, y, x)``; of pairs with a partner outside nothing is read.
        strides: only every so many voxels along each axis repel; all attract.

    Returns:
        uint64 ``(z, y, x)``, from 1.
    """
    from bioimage_cpp.segmentation import mutex_watershed

    # Whole numbers: in steps of 1/255, a and 1 - a would tie by rounding only.
    weights = affinities.astype(np.float32)
    np.subtract(np.float32(255), weights[offsets.NUM_DIRECT :], out=weights[offsets.NUM_DIRECT :])
    vectors = [tuple(vector) for vector in offsets.vectors]
    return np.asarray(
        mutex_watershed(weights, vectors, offsets.NUM_DIRECT, strides=list(strides)), np.uint64
    )
