"""Variation of information and adapted Rand error, from a contingency table.

Convention: that of scikit-image with truth 0 ignored, which the PEA paper reports; others stand
beside it in ``conventions``. Voxels whose true label is 0 are left out of the table and of every
total; a predicted 0 is an ordinary segment. VOI is in bits. Split is H(segment | truth), one object
in several segments; merge is H(truth | segment). ARAND is one minus the F-score of the pairs of
voxels that share a segment. Precision and recall are what scikit-image documents; its 0.26 returns
the two exchanged.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from pipeline.evaluate.contingency import Contingency

HEADLINE = "scikit-image"
"""The name of this convention."""


@dataclass(frozen=True)
class Scores:
    """Scores of one segmentation; NaN where no voxel has a truth."""

    voi_split: float
    voi_merge: float
    voi: float
    arand: float
    arand_precision: float
    """Of the pairs of voxels in one segment, the share that is in one object."""
    arand_recall: float
    """Of the pairs of voxels in one object, the share that is in one segment."""
    num_segments: int
    num_objects: int
    num_voxels: int

    @classmethod
    def of(cls, table: Contingency) -> Scores:
        """Scores of a table; rows with truth 0 do not count."""
        table = table.without_truth(0)
        if len(table) == 0:
            nan = float("nan")
            return cls(nan, nan, nan, nan, nan, nan, 0, 0, 0)
        sums = Sums.of(table)
        split, merge = sums.entropies()
        together, in_segment, in_truth = (square - sums.total for square in sums.squares())
        return cls(
            voi_split=split,
            voi_merge=merge,
            voi=split + merge,
            arand=1.0 - ratio(2.0 * together, in_segment + in_truth),
            arand_precision=ratio(together, in_segment),
            arand_recall=ratio(together, in_truth),
            num_segments=len(sums.segment.distinct),
            num_objects=len(sums.truth.distinct),
            num_voxels=int(table.voxels.sum()),
        )

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Totals:
    """How large the objects of one side are."""

    each: np.ndarray
    """For each row of the table, the voxels of its id."""
    distinct: np.ndarray
    """The voxels of each id once, ids ascending."""

    @classmethod
    def of(cls, ids: np.ndarray, counts: np.ndarray) -> Totals:
        _, index = np.unique(ids, return_inverse=True)
        distinct = np.bincount(index, weights=counts)
        return cls(distinct[index], distinct)


@dataclass(frozen=True)
class Sums:
    """The sums that every score is made of; whole numbers in float64."""

    counts: np.ndarray
    """Voxels of each row."""
    segment: Totals
    truth: Totals
    total: float

    @classmethod
    def of(cls, table: Contingency) -> Sums:
        counts = table.voxels.astype(np.float64)
        return cls(
            counts,
            Totals.of(table.segment, counts),
            Totals.of(table.truth, counts),
            float(counts.sum()),
        )

    def entropies(self) -> tuple[float, float]:
        """Split, H(segment | truth), and merge, H(truth | segment), in bits."""
        split, merge = (
            float(np.sum(self.counts * np.log2(side.each / self.counts))) / self.total
            for side in (self.truth, self.segment)
        )
        return split, merge

    def squares(self) -> tuple[float, float, float]:
        """Sums of the squared voxels of rows, of segments, and of true objects.

        They count the ordered pairs of voxels, those of a voxel with itself too, that share both,
        a segment, or an object.
        """
        rows, segment, truth = (
            float(np.sum(voxels * voxels))
            for voxels in (self.counts, self.segment.distinct, self.truth.distinct)
        )
        return rows, segment, truth


def ratio(part: float, whole: float) -> float:
    """1 where there are no pairs at all: nothing is wrong."""
    return part / whole if whole else 1.0
