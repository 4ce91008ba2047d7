"""The patches a network sees: a grid of the raw volume, whatever blocks a run is cut into."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from pipeline.errors import ConfigError, LayoutError
from pipeline.geometry import ZYX, BlockGrid, Offsets, Roi


@dataclass(frozen=True)
class Patch:
    """One call of the network. Both boxes are in world voxels."""

    tile: Roi
    """What it is computed for; the tiles of all patches partition the raw volume."""
    read: Roi
    """What the network sees. Beyond the volume it sees the volume reflected."""


@dataclass(frozen=True)
class PatchGrid:
    """Patches anchored at the first voxel of the raw volume.

        +--------- read: patch_vx ---------+
        | crop_vx +---- tile ----+ crop_vx |
        +---------+--------------+---------+

    At the far end of the volume tiles are clipped, and their patches are only as large as the tile
    and its crop need, in multiples of ``factor``.

    Args:
        total: the raw volume, in world voxels.
        patch_vx: what the network sees at once.
        crop_vx: what is cut off of each side.
        factor: what must divide the sides of a patch.

    Raises:
        LayoutError: sides that do not fit each other, with the nearest that do.
    """

    total: Roi
    patch_vx: ZYX
    crop_vx: ZYX
    factor: ZYX

    def __post_init__(self) -> None:
        if any(side % n for side, n in zip(self.patch_vx, self.factor, strict=True)):
            nearest = [
                max(1, round(s / n)) * n for s, n in zip(self.patch_vx, self.factor, strict=True)
            ]
            raise LayoutError(
                f"run.predict.patch_vx must be multiples of {list(self.factor)}, by which the "
                f"network pools; found {list(self.patch_vx)}\nThe nearest is {nearest}."
            )
        if min(self.tile_vx) < 1:
            most = [(side - 1) // 2 for side in self.patch_vx]
            raise LayoutError(
                f"run.predict.crop_vx must leave something of a patch: of {list(self.patch_vx)} "
                f"voxels {list(self.crop_vx)} are cut off on both sides\nAt most {most}."
            )

    def refuse_long(self, offsets: Offsets) -> None:
        """Raise if the partner of a voxel of a tile may lie outside its patch.

        Raises:
            ConfigError: with the crop that would do.
        """
        reach = [max(abs(v[axis]) for v in offsets.vectors) for axis in range(3)]
        alone = [n <= tile for n, tile in zip(self.total.shape, self.tile_vx, strict=True)]
        for axis in range(3):
            if reach[axis] > self.crop_vx[axis] and not alone[axis]:
                longest = max(offsets.vectors, key=lambda v: abs(v[axis]))
                least = [max(r, c) for r, c in zip(reach, self.crop_vx, strict=True)]
                raise ConfigError(
                    "an offset must not be longer than run.predict.crop_vx, found "
                    f"{list(longest)} and {list(self.crop_vx)}\n"
                    "The partner of a voxel is looked up in its own patch.\n"
                    f"Set run.predict.crop_vx={least}, or shorter run.predict.offsets."
                )

    @property
    def tile_vx(self) -> ZYX:
        return ZYX(*(p - 2 * c for p, c in zip(self.patch_vx, self.crop_vx, strict=True)))

    def cover(self, roi: Roi) -> Roi:
        """The tiles that a region touches, as one box."""
        sides = [self._tiles(axis, roi.begin[axis], roi.end[axis]) for axis in range(3)]
        begin = [tiles[0][0] for tiles in sides]
        return Roi(begin, [tiles[-1][1] - low for tiles, low in zip(sides, begin, strict=True)])

    def patches(self, roi: Roi) -> Iterator[Patch]:
        """Those whose tiles a region touches, in order."""
        sides = [self._tiles(axis, roi.begin[axis], roi.end[axis]) for axis in range(3)]
        for tile in product(*sides):
            begin = ZYX.of(low for low, _ in tile)
            read = [self._side(axis, high - low) for axis, (low, high) in enumerate(tile)]
            yield Patch(
                tile=Roi(begin, [high - low for low, high in tile]),
                read=Roi([b - c for b, c in zip(begin, self.crop_vx, strict=True)], read),
            )

    def network_voxels(self, blocks: BlockGrid) -> int:
        """What the network computes if every block has the patches that it touches computed."""
        total = blocks.total
        sums = []
        for axis in range(3):
            low, high, step = total.begin[axis], total.end[axis], blocks.block_vx[axis]
            sums.append(
                sum(
                    self._side(axis, b - a)
                    for begin in range(low, high, step)
                    for a, b in self._tiles(axis, begin, min(begin + step, high))
                )
            )
        return math.prod(sums)

    def _tiles(self, axis: int, begin: int, end: int) -> list[tuple[int, int]]:
        """Begin and end of the tiles between two places along an axis."""
        origin, last, tile = self.total.begin[axis], self.total.end[axis], self.tile_vx[axis]
        first = origin + (begin - origin) // tile * tile
        return [(low, min(low + tile, last)) for low in range(first, end, tile)]

    def _side(self, axis: int, tile: int) -> int:
        """Side of the patch of a tile."""
        factor = self.factor[axis]
        return -(-(tile + 2 * self.crop_vx[axis]) // factor) * factor


def reflected(begin: int, end: int, side: int) -> np.ndarray:
    """Indices into an axis for the places from ``begin`` to ``end``, some of them beyond it.

    The axis is mirrored at its first and last voxel, as often as need be, and the voxel on the
    mirror is not repeated: ``numpy.pad(mode="reflect")``. An axis of one voxel is that voxel
    everywhere.
    """
    period = max(1, 2 * (side - 1))
    places = np.arange(begin, end) % period
    return np.asarray(np.minimum(places, period - places) if side > 1 else places * 0)
