"""What each segment shares with each true object, and where: counts with bounding boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.pairs import pair_rows
from pipeline.graph import Assignment, Table, grouped_rows


@dataclass(frozen=True)
class Overlaps(Table):
    """A contingency table whose rows know their bounding boxes; sorted by ``(segment, truth)``.

    As of a contingency table, parts of disjoint boxes join to the table of the whole, and
    relabelling the table equals measuring the relabelled voxels: counts add, boxes grow.
    """

    segment: np.ndarray
    """uint64"""
    truth: np.ndarray
    """uint64"""
    voxels: np.ndarray
    """uint64"""
    begin: np.ndarray
    """``(n, 3)`` int64, in world voxels."""
    end: np.ndarray
    """``(n, 3)`` int64: one beyond the last voxel along each axis."""

    @classmethod
    def count(
        cls, segments: np.ndarray, truth: np.ndarray, origin: Sequence[int] = (0, 0, 0)
    ) -> Overlaps:
        """Measure the pairs of ids in two arrays ``(z, y, x)``.

        Args:
            segments: unsigned integers, ids to 2^64 - 1; so is ``truth``.
            origin: where the first voxel of the arrays lies, in world voxels.
        """
        rows = pair_rows(segments, truth)
        place = np.array(origin, np.int64)
        return cls(rows.segment, rows.truth, rows.voxels, rows.begin + place, rows.end + place)

    @classmethod
    def sum_of(cls, tables: Iterable[Overlaps]) -> Overlaps:
        """The table of all boxes together."""
        parts = [cls.count(*np.zeros((2, 0), np.uint64)), *tables]
        columns = (np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls))
        return cls(*columns)._joined()

    def relabel(self, assignment: Assignment) -> Overlaps:
        """The table of the segmentation that an assignment makes of these segments."""
        segments = assignment.apply(self.segment)
        return Overlaps(segments, self.truth, self.voxels, self.begin, self.end)._joined()

    def without_truth(self, background: int = 0) -> Overlaps:
        """Without the voxels whose true object is background or unknown."""
        kept = self.truth != np.uint64(background)
        return Overlaps(*(column[kept] for column in self.columns().values()))

    @property
    def contingency(self) -> Contingency:
        """The counts alone."""
        return Contingency(self.segment, self.truth, self.voxels)

    def _joined(self) -> Overlaps:
        """With rows of equal ids in one."""
        if len(self) == 0:
            return self
        order, starts = grouped_rows((self.segment, self.truth))
        return Overlaps(
            self.segment[order[starts]],
            self.truth[order[starts]],
            np.add.reduceat(self.voxels[order], starts),
            np.minimum.reduceat(self.begin[order], starts),
            np.maximum.reduceat(self.end[order], starts),
        )
