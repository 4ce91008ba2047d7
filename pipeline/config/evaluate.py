"""What is scored, and how."""

from __future__ import annotations

from pipeline.config.fields import RoiNm, Section, Thresholds


class Evaluate(Section):
    thresholds: Thresholds = tuple(n / 20 for n in range(1, 20))
    """Score the segmentation of each, besides ``agglomerate.threshold``."""
    roi: RoiNm | None = None
    """Score there only, as where the network was not trained; wherever there is a truth if left
    out."""
