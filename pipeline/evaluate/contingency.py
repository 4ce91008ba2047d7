"""How many voxels each segment shares with each true object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.graph import Assignment, Table, sum_rows
from pipeline.hashing import densified, grown, slot_of


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
        """Count the pairs of ids in two arrays of one shape; ids up to 2^64 - 1."""
        assert segments.shape == truth.shape, (segments.shape, truth.shape)
        (here, here_ids), (there, there_ids) = densified(segments), densified(truth)
        keys, counts = _pair_counts(np.ravel(here), np.ravel(there), len(there_ids))
        columns = (here_ids[keys // len(there_ids)], there_ids[keys % len(there_ids)])
        return cls(*sum_rows(columns, (counts,)))

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
        kept = self.truth != np.uint64(background)
        return Contingency(self.segment[kept], self.truth[kept], self.voxels[kept])


@njit(cache=True, nogil=True)
def _pair_counts(here, there, num_there):  # type: ignore[no-untyped-def]
    """Keys ``here * num_there + there`` and their counts, unsorted; often one key many times."""
    capacity = 1 << 12
    keys = np.full(capacity, -1, np.int64)
    counts = np.zeros((capacity, 1), np.uint64)
    used = 0
    last, slot = np.int64(-1), np.uint64(0)
    for i in range(len(here)):
        key = np.int64(here[i]) * num_there + there[i]
        if key != last:
            last = key
            slot = slot_of(key, keys)
            if keys[slot] < 0:
                keys[slot] = key
                used += 1
                if used * 2 > capacity:
                    capacity *= 2
                    keys, counts = grown(keys, counts, capacity)
                    slot = slot_of(key, keys)
        counts[slot, 0] += np.uint64(1)
    filled = keys >= 0
    return keys[filled], counts[filled, 0]
