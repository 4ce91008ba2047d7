"""How many voxels each segment shares with each true object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.evaluate.pairs import pair_rows
from pipeline.graph import Assignment, Table, sum_rows


@dataclass(frozen=True)
class Contingency(Table):
    """Counts of voxels, sorted by ``(segment, truth)``; all columns uint64.

    Tables of disjoint boxes add, and relabelling the table equals counting the relabelled voxels,
    so one pass over the voxels scores every segmentation made of the same fragments.
    """

    segment: np.ndarray
    truth: np.ndarray
    voxels: np.ndarray

    @classmethod
    def count(cls, segments: np.ndarray, truth: np.ndarray) -> Contingency:
        """Count the pairs of ids in two arrays of one shape and up to three axes."""
        return cls(*pair_rows(segments, truth)[:3])

    @classmethod
    def sum_of(cls, tables: Iterable[Contingency]) -> Contingency:
        """The table of all boxes together."""
        parts = list(tables)
        segment, truth, counts = (
            np.concatenate([np.zeros(0, np.uint64)] + [getattr(part, name) for part in parts])
            for name in ("segment", "truth", "voxels")
        )
        return cls(*sum_rows((segment, truth), (counts,)))

    def relabel(self, assignment: Assignment) -> Contingency:
        """The table of the segmentation that an assignment makes of these segments."""
        return Contingency(*sum_rows((assignment.apply(self.segment), self.truth), (self.voxels,)))

    def without_truth(self, background: int = 0) -> Contingency:
        """Without the voxels whose true object is background or unknown."""
        return self._where(self.truth != np.uint64(background))

    def without_segment(self, background: int = 0) -> Contingency:
        """Without the voxels that the segmentation leaves in the background."""
        return self._where(self.segment != np.uint64(background))

    def _where(self, kept: np.ndarray) -> Contingency:
        return Contingency(self.segment[kept], self.truth[kept], self.voxels[kept])
