"""Variation of information and adapted Rand error, from a contingency table.

Convention: that of scikit-image with truth 0 ignored, which the PEA paper reports. Voxels whose
true label is 0 are left out of the table and of every total; a predicted 0 is an ordinary segment.
VOI is in bits. Split is H(segment | truth), one object in several segments; merge is
H(truth | segment). ARAND is one minus the F-score of the pairs of voxels that share a segment.
Precision and recall are what scikit-image documents; its 0.26 returns the two exchanged.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from pipeline.evaluate.contingency import Contingency

CONVENTION = (
    "scikit-image; voxels with truth 0 ignored; predicted 0 is an ordinary segment; VOI in bits; "
    "ARAND from pairs without self-pairs, alpha 0.5"
)


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
        counts = table.voxels.astype(np.float64)
        if len(counts) == 0:
            nan = float("nan")
            return cls(nan, nan, nan, nan, nan, nan, 0, 0, 0)
        segment = _totals(table.segment, counts)
        truth = _totals(table.truth, counts)
        total = float(counts.sum())
        split = float(np.sum(counts * np.log2(truth.each / counts))) / total
        merge = float(np.sum(counts * np.log2(segment.each / counts))) / total
        together, in_segment, in_truth = (
            float(np.sum(c * c) - total) for c in (counts, segment.distinct, truth.distinct)
        )
        precision, recall = _ratio(together, in_segment), _ratio(together, in_truth)
        return cls(
            voi_split=split,
            voi_merge=merge,
            voi=split + merge,
            arand=1.0 - _ratio(2.0 * together, in_segment + in_truth),
            arand_precision=precision,
            arand_recall=recall,
            num_segments=len(segment.distinct),
            num_objects=len(truth.distinct),
            num_voxels=int(table.voxels.sum()),
        )

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class _Totals:
    each: np.ndarray
    """For each row of the table, the voxels of its id."""
    distinct: np.ndarray
    """The voxels of each id once."""


def _totals(ids: np.ndarray, counts: np.ndarray) -> _Totals:
    _, index = np.unique(ids, return_inverse=True)
    distinct = np.bincount(index, weights=counts)
    return _Totals(distinct[index], distinct)


def _ratio(part: float, whole: float) -> float:
    """1 where there are no pairs at all: nothing is wrong."""
    return part / whole if whole else 1.0
