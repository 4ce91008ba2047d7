"""Elastic deformation, rotation about z and zoom, in one resampling of raw and labels.

gunpowder's ``DeformAugment`` interpolates raw and labels one after the other, on fields of float64
that it upsamples piecewise linearly; one compiled pass over both takes a fraction of its time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit


def coordinates(
    shape: Sequence[int], angle: float, zoom: float, displacement: np.ndarray | None
) -> np.ndarray:
    """Where each voxel of a crop comes from: float32 ``(3, z, y, x)``, in voxels of the crop.

    Args:
        angle: about z through the middle, in radians.
        zoom: above 1, things look larger in y and x.
        displacement: added; ``(3, z, y, x)``.
    """
    middle = [(n - 1) / 2 for n in shape]
    z, y, x = (np.arange(n, dtype=np.float32) for n in shape)
    y, x = np.meshgrid(y - middle[1], x - middle[2], indexing="ij")
    cos, sin = np.float32(np.cos(angle) / zoom), np.float32(np.sin(angle) / zoom)
    where = np.empty((3, *shape), np.float32)
    where[0] = z[:, None, None]
    where[1] = cos * y - sin * x + np.float32(middle[1])
    where[2] = sin * y + cos * x + np.float32(middle[2])
    if displacement is not None:
        where += displacement
    return where


def elastic_displacement(
    shape: Sequence[int],
    spacing_vx: Sequence[int],
    sigma_vx: Sequence[float],
    rng: np.random.Generator,
) -> np.ndarray:
    """A smooth random field, float32 ``(3, z, y, x)``: normal at control points, cubic between."""
    weights = [_cubic_weights(n, step) for n, step in zip(shape, spacing_vx, strict=True)]
    field = rng.standard_normal((3, *(w.shape[1] for w in weights)), np.float32)
    field *= np.array(sigma_vx, np.float32)[:, None, None, None]
    for axis, weight in enumerate(weights, start=1):
        field = np.moveaxis(np.tensordot(field, weight, (axis, 1)), -1, axis)
    return np.ascontiguousarray(field)


def _cubic_weights(count: int, spacing: int) -> np.ndarray:
    """Of each control point at each voxel: Catmull-Rom splines, float32 ``(count, points)``."""
    place = np.arange(count) / spacing
    first = place.astype(int)
    t = place - first
    near = np.stack(
        [
            ((2 - t) * t - 1) * t / 2,
            ((3 * t - 5) * t * t + 2) / 2,
            ((4 - 3 * t) * t + 1) * t / 2,
            (t - 1) * t * t / 2,
        ]
    )
    weights = np.zeros((count, first[-1] + 4), np.float32)
    for n in range(4):
        weights[np.arange(count), first + n] = near[n]
    return weights


@njit(cache=True)
def resampled(
    raw: np.ndarray, labels: np.ndarray, where: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Raw, linearly, and labels, of the nearest voxel, at places of the arrays.

    Args:
        raw: float32 ``(z, y, x)``.
        labels: integers, ``(z, y, x)``.
        where: float32 ``(3, z, y, x)``; places outside are taken to the rim.
    """
    _, depth, height, width = where.shape
    new_raw = np.empty((depth, height, width), np.float32)
    new_labels = np.empty((depth, height, width), labels.dtype)
    zs, ys, xs = raw.shape
    for k in range(depth):
        for j in range(height):
            for i in range(width):
                z = min(max(where[0, k, j, i], np.float32(0)), np.float32(zs - 1))
                y = min(max(where[1, k, j, i], np.float32(0)), np.float32(ys - 1))
                x = min(max(where[2, k, j, i], np.float32(0)), np.float32(xs - 1))
                z0, y0, x0 = int(z), int(y), int(x)
                z1, y1, x1 = min(z0 + 1, zs - 1), min(y0 + 1, ys - 1), min(x0 + 1, xs - 1)
                c, b, a = z - np.float32(z0), y - np.float32(y0), x - np.float32(x0)
                near = raw[z0, y0, x0] + a * (raw[z0, y0, x1] - raw[z0, y0, x0])
                low = raw[z0, y1, x0] + a * (raw[z0, y1, x1] - raw[z0, y1, x0])
                upper = near + b * (low - near)
                value = upper
                if c > 0:
                    near = raw[z1, y0, x0] + a * (raw[z1, y0, x1] - raw[z1, y0, x0])
                    low = raw[z1, y1, x0] + a * (raw[z1, y1, x1] - raw[z1, y1, x0])
                    value = upper + c * (near + b * (low - near) - upper)
                new_raw[k, j, i] = value
                half = np.float32(0.5)
                new_labels[k, j, i] = labels[
                    z1 if c >= half else z0, y1 if b >= half else y0, x1 if a >= half else x0
                ]
    return new_raw, new_labels
