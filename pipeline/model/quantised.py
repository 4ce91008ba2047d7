"""Embeddings to affinities in bytes, on a CPU: ``round(255 * max(0, cosine))``.

Each value is a sum over the embedding in its order, whatever patch or box it is computed in, so it
has the same bits in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

LEAST_LENGTH = np.float32(1e-12)
"""The least length that an embedding is divided by."""


def cosine_bytes(
    embedding: np.ndarray,
    offsets: Sequence[Sequence[int]],
    inner: tuple[slice, ...],
    inside: tuple[slice, ...],
) -> np.ndarray:
    """Affinities of the voxels of a box.

    Args:
        embedding: float32 ``(e, z, y, x)`` in any order in memory, of any length.
        inner: the box.
        inside: the voxels that exist; a pair with a partner outside is 0. Around the box they reach
            at least as far as offsets do, or to the end of the volume.

    Returns:
        uint8 ``(offset, z, y, x)`` of the box.
    """
    vectors = np.array(offsets, np.int64).reshape(-1, 3)
    reach_below, reach_above = np.minimum(vectors.min(0), 0), np.maximum(vectors.max(0), 0)
    near = tuple(
        slice(max(part.start + int(below), whole.start), min(part.stop + int(above), whole.stop))
        for part, whole, below, above in zip(inner, inside, reach_below, reach_above, strict=True)
    )
    unit = _unit_rows(np.moveaxis(embedding[(slice(None), *near)], 0, -1))
    bounds = np.array(
        [[p.start - n.start, p.stop - n.start] for p, n in zip(inner, near, strict=True)], np.int64
    )
    return np.asarray(_pairs(unit, vectors, bounds))


@njit(cache=True, nogil=True)
def _unit_rows(embedding):  # type: ignore[no-untyped-def]
    """Embeddings ``(z, y, x, e)`` of length 1, as rows ``(z, y, e, x)``."""
    depth, height, width, length = embedding.shape
    unit = np.empty((depth, height, length, width), np.float32)
    scale = np.empty(width, np.float32)
    for z in range(depth):
        for y in range(height):
            scale[:] = 0
            for e in range(length):
                row = unit[z, y, e]
                for x in range(width):
                    row[x] = embedding[z, y, x, e]
                    scale[x] += row[x] * row[x]
            for x in range(width):
                scale[x] = np.float32(1) / max(np.sqrt(scale[x]), LEAST_LENGTH)
            for e in range(length):
                row = unit[z, y, e]
                for x in range(width):
                    row[x] *= scale[x]
    return unit


@njit(cache=True, nogil=True)
def _pairs(unit, offsets, inner):  # type: ignore[no-untyped-def]
    """Bytes of the pairs whose first voxel lies in a box of ``unit``."""
    depth, height, length, width = unit.shape
    (z0, z1), (y0, y1), (x0, x1) = inner
    found = np.zeros((len(offsets), z1 - z0, y1 - y0, x1 - x0), np.uint8)
    sums = np.empty(width, np.float32)
    for z in range(z0, z1):
        for y in range(y0, y1):
            for channel in range(len(offsets)):
                dz, dy, dx = offsets[channel]
                first, last = max(x0, -dx), min(x1, width - dx)
                if not (0 <= z + dz < depth and 0 <= y + dy < height and first < last):
                    continue
                count = last - first
                total = sums[:count]
                total[:] = 0
                for e in range(length):
                    a = unit[z, y, e, first:last]
                    b = unit[z + dz, y + dy, e, first + dx : last + dx]
                    for x in range(count):
                        total[x] += a[x] * b[x]
                row = found[channel, z - z0, y - y0, first - x0 : last - x0]
                for x in range(count):
                    # Also 0 where it is not a number.
                    value = total[x] * np.float32(255) + np.float32(0.5)
                    row[x] = np.uint8(min(value, np.float32(255))) if value > 0 else np.uint8(0)
    return found
