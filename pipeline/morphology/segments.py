"""Where each segment of a volume is: its size, and its box in every block that it touches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import fastremap
import numpy as np
from scipy.ndimage import find_objects

from pipeline.geometry import NO_HALO, ZYX, Block, BlockGrid, Nm, Roi
from pipeline.volume import Volume

BLOCK_VX = ZYX(128, 128, 128)
"""Read at once. It decides speed and memory, and never what comes out."""


@dataclass(frozen=True)
class Extents:
    """A row for each segment in each block, sorted by segment; background has none.

    Attributes:
        segment: uint64 ``(n,)``.
        block: int64 ``(n,)``, index in the grid.
        begin, end: int64 ``(n, 3)``, the box of its voxels in ``block.read``.
        voxels: int64 ``(n,)``, those in ``block.write``.
    """

    segment: np.ndarray
    block: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    voxels: np.ndarray

    @classmethod
    def of_block(cls, labels: np.ndarray, block: Block) -> Extents:
        """The segments of one block.

        Args:
            labels: uint64 ``(z, y, x)``, the voxels of ``block.read``.
        """
        dense, ids = fastremap.renumber(labels, preserve_zero=True)
        segment = np.fromiter(ids.keys(), np.uint64, len(ids))
        segment = segment[np.argsort(np.fromiter(ids.values(), np.int64, len(ids)))][1:]
        boxes = np.array(
            [[(side.start, side.stop) for side in box] for box in find_objects(dense)], np.int64
        ).reshape(-1, 3, 2)
        origin = np.array(block.read.begin)
        return cls(
            segment,
            np.full(len(segment), block.index),
            boxes[..., 0] + origin,
            boxes[..., 1] + origin,
            np.bincount(dense[block.inner].ravel(), minlength=len(segment) + 1)[1:],
        )

    @classmethod
    def sum_of(cls, parts: Iterable[Extents]) -> Extents:
        """The rows of several blocks together."""
        tables = list(parts)
        columns = [
            np.concatenate([getattr(table, name) for table in tables])
            for name in cls.__dataclass_fields__
        ]
        order = np.lexsort((columns[1], columns[0]))
        return cls(*(column[order] for column in columns))

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all segments, ascending, and their voxels."""
        ids, first = np.unique(self.segment, return_index=True)
        return ids, np.add.reduceat(self.voxels, first) if len(ids) else self.voxels

    def size(self, segment: int) -> int:
        """Voxels of one segment."""
        first, last = self._rows(segment)
        return int(self.voxels[first:last].sum())

    def largest(self, count: int) -> list[int]:
        """Ids of the largest segments, the largest first, of equal ones the smaller id."""
        ids, voxels = self.sizes()
        return [int(segment) for segment in ids[np.lexsort((ids, -voxels))][:count]]

    def boxes(self, segment: int) -> list[tuple[int, Roi]]:
        """Each block that a segment touches, and the box of its voxels there."""
        first, last = self._rows(segment)
        return [
            (int(self.block[row]), Roi(self.begin[row], self.end[row] - self.begin[row]))
            for row in range(first, last)
        ]

    def _rows(self, segment: int) -> list[int]:
        """The first row of a segment, and the one behind its last."""
        sides: tuple[Literal["left", "right"], ...] = ("left", "right")
        return [int(np.searchsorted(self.segment, np.uint64(segment), side=s)) for s in sides]


@dataclass(frozen=True)
class Segments:
    """One level of a segmentation, and where its segments are.

    Boxes count voxels from the first voxel of the level: coarse levels are no whole number of
    their voxels away from the origin of the world.
    """

    volume: Volume
    """At the origin."""
    origin_nm: Nm
    """Where its first voxel begins in the world."""
    grid: BlockGrid
    """Blocks also read the first voxels of the next ones, where surfaces go on."""
    extents: Extents

    @classmethod
    def of(
        cls,
        volume: Volume,
        block_vx: ZYX = BLOCK_VX,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Segments:
        """Find all segments of a volume, block by block.

        Args:
            volume: labels, uint64.
            progress: told the blocks read, and how many there are.
        """
        counted = volume.at_origin()
        grid = BlockGrid(counted.roi, block_vx, NO_HALO, ZYX(1, 1, 1))
        parts = []
        for block in grid:
            parts.append(Extents.of_block(counted.read(block.read), block))
            progress(block.index + 1, len(grid))
        return cls(counted, volume.spec.offset_nm, grid, Extents.sum_of(parts))

    @property
    def voxel_size_nm(self) -> np.ndarray:
        """float64 ``(3,)``, z, y, x."""
        return np.array(self.volume.spec.voxel_size_nm, float)

    def mask(self, segment: int, crop: Roi) -> np.ndarray:
        """Which voxels of a crop belong to a segment, bool ``(z, y, x)``."""
        return np.asarray(self.volume.read(crop) == segment)

    def world(self, places_vx: np.ndarray) -> np.ndarray:
        """Places in nm, float32 ``(n, 3)``, x, y, z.

        Args:
            places_vx: ``(n, 3)``, z, y, x, in voxels from the corner of the first one.
        """
        places = places_vx * self.voxel_size_nm + np.array(self.origin_nm, float)
        return np.asarray(places[:, ::-1], np.float32)
