"""Watershed fragments of a block: heights from affinities, and the basins between the ridges.

The height of a voxel is high on membranes. Every step looks at a bounded neighbourhood, so that a
block read with its halo has the same heights, hence the same fragments, as the whole volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from pipeline.geometry import ZYX, Nm
from pipeline.segment import basins
from pipeline.segment.basins import Seams

LEVELS = 1023
"""Heights have 10 bits. Finer steps keep minima that are noise, coarser ones leak through gaps."""
TRUNCATE = 4.0


@dataclass(frozen=True)
class FragmentRule:
    """How heights follow from affinities.

    A narrow Gaussian keeps the ridge on the membrane, a wide one removes spurious minima inside
    thick neurites; their mixture does what a distance transform does, without its threshold.
    """

    voxel_size_nm: Nm
    per_section: bool
    """Only pairs within a section count, and fragments do not leave it."""
    narrow_nm: float = 7.5
    wide_nm: float = 30.0
    wide_share: float = 0.4

    def sigmas_vx(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Standard deviations along each axis of the narrow and of the wide Gaussian."""

        def along_axes(sigma_nm: float) -> tuple[float, ...]:
            z, y, x = (sigma_nm / float(size) for size in self.voxel_size_nm)
            return (0.0 if self.per_section else z, y, x)

        return along_axes(self.narrow_nm), along_axes(self.wide_nm)

    @property
    def halo_below_vx(self) -> ZYX:
        """What a block must read below itself: the reach of the Gaussians, and of the watershed."""
        radius = [
            max(int(TRUNCATE * sigma + 0.5) for sigma in pair)
            for pair in zip(*self.sigmas_vx(), strict=True)
        ]
        reach = [0 if self.per_section else basins.HALO_VX, basins.HALO_VX, basins.HALO_VX]
        return ZYX(*(r + n for r, n in zip(radius, reach, strict=True)))

    @property
    def halo_above_vx(self) -> ZYX:
        """One voxel more than below: the pair of a voxel and the next one is stored at the next."""
        z, y, x = self.halo_below_vx
        return ZYX(z if self.per_section else z + 1, y + 1, x + 1)


def boundary(affinities: np.ndarray, origin: tuple[int, ...], per_section: bool) -> np.ndarray:
    """Mean of 1 - affinity over the pairs that each voxel is in, on both of its sides.

    Args:
        affinities: uint8 ``(3, z, y, x)`` of the direct neighbours.
        origin: place of the first voxel in the volume; at place 0 there is no pair below.

    Returns:
        float32 ``(z, y, x)``. Where the array ends inside the volume, the last voxel along an axis
        lacks the pair above it.
    """
    total = np.zeros(affinities.shape[1:], np.int32)
    count = np.zeros(affinities.shape[1:], np.int32)
    for axis in range(1 if per_section else 0, 3):
        first = 1 if origin[axis] == 0 else 0
        pairs = affinities[axis]
        here = tuple(slice(first if a == axis else 0, None) for a in range(3))
        above = tuple(slice(1 if a == axis else 0, None) for a in range(3))
        below = tuple(slice(0, -1 if a == axis else None) for a in range(3))
        total[here] += pairs[here]
        count[here] += 1
        total[below] += pairs[above]
        count[below] += 1
    # A voxel in no pair at all, in a volume one voxel wide, counts as inside an object.
    total[count == 0], count[count == 0] = 255, 1
    return np.asarray(1 - total.astype(np.float32) / (255 * count).astype(np.float32))


def heights(affinities: np.ndarray, origin: tuple[int, ...], rule: FragmentRule) -> np.ndarray:
    """Smoothed boundary in steps of 1 / 1023.

    Args:
        affinities: uint8 ``(3, z, y, x)`` of the direct neighbours.
        origin: place of the first voxel in the volume.

    Returns:
        uint16 ``(z, y, x)``, exact from the rule's halo inwards where the array ends inside the
        volume, and up to the rim where the volume ends. There the border is continued.
    """
    raw = boundary(affinities, origin, rule.per_section)
    narrow, wide = (
        gaussian_filter(raw, sigma, truncate=TRUNCATE, mode="nearest") for sigma in rule.sigmas_vx()
    )
    share = np.float32(rule.wide_share)
    mixed = (np.float32(1) - share) * narrow + share * wide
    return np.asarray(np.rint(np.clip(mixed, 0, 1) * np.float32(LEVELS)).astype(np.uint16))


def block_fragments(
    affinities: np.ndarray,
    valid: np.ndarray,
    inner: tuple[slice, ...],
    origin: tuple[int, ...],
    volume: tuple[int, ...],
    rule: FragmentRule,
) -> tuple[np.ndarray, Seams]:
    """Fragments of one block, up to what its seams leave open.

    Args:
        affinities: uint8 ``(3, z, y, x)`` of the block and its halo, clipped to the volume.
        valid: bool ``(z, y, x)``; other voxels get 0 and separate fragments.
        inner: the block as an index into ``valid``.
        origin: place of the first voxel read in the volume.
        volume: sides of the volume.

    Returns:
        As ``basins.basins``.
    """
    reach = (0 if rule.per_section else basins.HALO_VX, basins.HALO_VX, basins.HALO_VX)
    near = tuple(
        slice(max(0, part.start - r), min(n, part.stop + r))
        for part, r, n in zip(inner, reach, valid.shape, strict=True)
    )
    block = tuple(
        slice(part.start - cut.start, part.stop - cut.start)
        for part, cut in zip(inner, near, strict=True)
    )
    return basins.basins(
        heights(affinities, origin, rule)[near],
        valid[near],
        block,
        tuple(o + cut.start for o, cut in zip(origin, near, strict=True)),
        volume,
        rule.per_section,
    )


def fragments(
    affinities: np.ndarray, rule: FragmentRule, valid: np.ndarray | None = None
) -> np.ndarray:
    """Fragments of a whole volume.

    Args:
        affinities: uint8 ``(channel, z, y, x)``, the direct neighbours first.
        valid: bool ``(z, y, x)``; all voxels if omitted.

    Returns:
        uint64 ``(z, y, x)``: one plus the smallest linear index of the fragment's lowest plateau.
    """
    shape = affinities.shape[1:]
    whole = tuple(slice(0, n) for n in shape)
    mask = np.ones(shape, bool) if valid is None else valid
    labels, _ = block_fragments(affinities[:3], mask, whole, (0, 0, 0), shape, rule)
    return labels
