"""The voxels beside the borders of true objects, which people draw a little differently each time.

As CREMI does it: a voxel lies on a border if one of its four neighbours in the same section has
another label, 0 included; it is left out if such a voxel is not farther than the given distance in
its section. Sections are xy planes. The edge of the volume is no border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numba import njit

from pipeline.geometry import NO_HALO, ZYX, Nm

FAR = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Border:
    """How far from a border voxels are left out. Whole numbers decide, so any tiling agrees."""

    widths_vx: tuple[int, ...]
    """For each distance in rows, from 0 on, the largest distance along x that is near enough."""

    @classmethod
    def of(cls, border_nm: float, voxel_size_nm: Nm) -> Border:
        """That of a distance in nm, compared exactly; 0 leaves nothing out."""
        reach = Fraction(str(border_nm))
        if reach == 0:
            return cls(())
        y, x = Fraction(voxel_size_nm.y), Fraction(voxel_size_nm.x)
        rows = math.floor(reach / y) + 1
        return cls(tuple(math.isqrt((reach**2 - (n * y) ** 2) // x**2) for n in range(rows)))

    @property
    def halo_vx(self) -> ZYX:
        """How much truth around a box decides its voxels, on each side."""
        if not self.widths_vx:
            return NO_HALO
        return ZYX(0, len(self.widths_vx), self.widths_vx[0] + 1)

    def blanked(self, truth: np.ndarray) -> np.ndarray:
        """Labels ``(z, y, x)`` with 0, unknown, near borders; other voxels are as they were."""
        if not self.widths_vx:
            return truth
        near = _near(truth, np.array(self.widths_vx, np.int32))
        return np.where(near, truth.dtype.type(0), truth)


@njit(cache=True, nogil=True)
def _near(truth, widths):  # type: ignore[no-untyped-def]
    """Which voxels are near a border: first along each row, then across rows."""
    depth, height, width = truth.shape
    near = np.zeros(truth.shape, np.bool_)
    along = np.empty((height, width), np.int32)
    for z in range(depth):
        section = truth[z]
        for y in range(height):
            last = -1
            for x in range(width):
                label = section[y, x]
                if (
                    (x > 0 and section[y, x - 1] != label)
                    or (x + 1 < width and section[y, x + 1] != label)
                    or (y > 0 and section[y - 1, x] != label)
                    or (y + 1 < height and section[y + 1, x] != label)
                ):
                    for back in range((last + x + 1) // 2 if last >= 0 else 0, x):
                        along[y, back] = x - back
                    last = x
                along[y, x] = x - last if last >= 0 else FAR
        for y in range(height):
            for other in range(max(0, y - len(widths) + 1), min(height, y + len(widths))):
                reach = widths[abs(other - y)]
                for x in range(width):
                    near[z, y, x] |= along[other, x] <= reach
    return near
