"""Coarser levels of a segmentation."""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.geometry import ZYX, Nm


def halved_axes(voxel_size_nm: Nm) -> ZYX:
    """Factors of the next level: 2 along axes whose voxels are less than twice the finest."""
    finest = min(voxel_size_nm)
    return ZYX(*(2 if size < 2 * finest else 1 for size in voxel_size_nm))


def most_frequent(labels: np.ndarray, factors: ZYX) -> np.ndarray:
    """Downsample labels by the most frequent one of each window; of equal ones, the smallest.

    Args:
        labels: uint64 ``(z, y, x)``; windows at the upper rim may be cut short.
        factors: sides of a window, 1 or 2.

    Returns:
        uint64, each side divided by its factor and rounded up.
    """
    return np.asarray(_most_frequent(labels, factors.z, factors.y, factors.x))


@njit(cache=True, nogil=True)
def _most_frequent(labels, fz, fy, fx):  # type: ignore[no-untyped-def]
    nz, ny, nx = labels.shape
    coarse = np.empty((-(-nz // fz), -(-ny // fy), -(-nx // fx)), labels.dtype)
    window = np.empty(fz * fy * fx, labels.dtype)
    for cz in range(coarse.shape[0]):
        for cy in range(coarse.shape[1]):
            for cx in range(coarse.shape[2]):
                size = 0
                for z in range(cz * fz, min(cz * fz + fz, nz)):
                    for y in range(cy * fy, min(cy * fy + fy, ny)):
                        for x in range(cx * fx, min(cx * fx + fx, nx)):
                            window[size] = labels[z, y, x]
                            size += 1
                best, best_count = window[0], 0
                for i in range(size):
                    count = 0
                    for j in range(size):
                        count += window[j] == window[i]
                    if count > best_count or (count == best_count and window[i] < best):
                        best, best_count = window[i], count
                coarse[cz, cy, cx] = best
    return coarse
